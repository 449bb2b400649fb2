"""Groups pictures of many requests into batches for one model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from PIL import Image

from detrex.predict import Precision, Predictor
from detrex.runtime.exported.thresholds import DEFAULT_THRESHOLD
from detrex.serve.requests import Options, RequestError
from detrex.serve.settings import ServerSettings

logger = logging.getLogger(__name__)

BatchObserver = Callable[[int, float], None]
"""Called with the size of a batch and the seconds that it took."""


@dataclass
class _Job:
    """A picture that waits for its result."""

    image: Image.Image
    options: Options
    done: asyncio.Future[Any] = field(repr=False)


class Batcher:
    """Lets pictures wait briefly for one another, and runs them together on one thread.

    Use it on one event loop: :meth:`start`, any number of concurrent :meth:`predict`, then :meth:`stop`.

    Args:
        predictor: called on a separate thread.
        settings: sizes and times.
        observe: called for every batch.
    """

    def __init__(self, predictor: Predictor, settings: ServerSettings, observe: BatchObserver | None = None):
        self.predictor, self.settings = predictor, settings
        self._observe = observe
        self._waiting = 0
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "model")
        self._loop: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Number of pictures without a result yet."""
        return self._waiting

    def start(self) -> None:
        """Starts processing."""
        self._loop = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Finishes waiting pictures, then stops."""
        while self._waiting:
            await asyncio.sleep(0.01)
        if self._loop is not None:
            self._loop.cancel()
        self._thread.shutdown()

    async def predict(self, images: Sequence[Image.Image], options: Options) -> list[Any]:
        """The results of the pictures of one request.

        They come from :meth:`detrex.Predictor.predict` or, for clicks and boxes, from
        :meth:`detrex.Predictor.prompt`.

        Raises:
            RequestError: with status 429 if too many pictures are waiting already, or 422 if the model cannot
                fulfil the request.
            TimeoutError: it takes too long.
        """
        self.check(options)
        # A request that is larger than the queue is accepted if nothing else is waiting.
        if self._waiting and self._waiting + len(images) > self.settings.queue_size:
            raise RequestError(429, f"{self._waiting} pictures wait already: try again later")
        loop = asyncio.get_running_loop()
        jobs = [_Job(image, options, loop.create_future()) for image in images]
        self._waiting += len(jobs)
        for job in jobs:
            job.done.add_done_callback(self._finished)
            self._jobs.put_nowait(job)
        try:
            together = asyncio.gather(*(job.done for job in jobs))
            return list(await asyncio.wait_for(together, self.settings.timeout))
        except asyncio.TimeoutError:  # noqa: UP041 # another class before Python 3.11
            raise TimeoutError(f"no result within {self.settings.timeout:g} s") from None
        finally:
            for job in jobs:
                job.done.cancel()

    def check(self, options: Options) -> None:
        """Checks that the model can perform the request.

        Raises:
            RequestError: with status 422.
        """
        if options.classes is not None and not self.predictor.reads_words:
            raise RequestError(422, "classes: this model finds its own classes only, and reads no words")
        if options.asks and not self.predictor.takes_prompts:
            raise RequestError(422, "points and boxes: this model takes no prompts")
        if options.asks and options.classes is not None:
            raise RequestError(422, "give classes or points and boxes, not both")
        unknown = sorted(set(options.tasks or ()) - set(self.predictor.tasks))
        if unknown or options.tasks == ():
            there = ", ".join(self.predictor.tasks)
            raise RequestError(422, f"tasks {unknown}: this model gives {there}")
        if options.precision is not None:
            if options.score_threshold is not None:
                raise RequestError(422, "give precision or score_threshold, not both")
            try:
                self.predictor.class_thresholds(options.precision)
            except ValueError as error:
                raise RequestError(422, str(error)) from None

    def _finished(self, done: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not done.cancelled():
            done.exception()  # read, so that asyncio logs nothing if nobody waits any more

    async def _work(self) -> None:
        while True:
            jobs = [await self._jobs.get()]
            until = perf_counter() + self.settings.batch_wait
            while len(jobs) < self.settings.max_batch:
                if not self._jobs.empty():
                    jobs.append(self._jobs.get_nowait())
                    continue
                left = until - perf_counter()
                if left <= 0:
                    break
                try:
                    jobs.append(await asyncio.wait_for(self._jobs.get(), left))
                except asyncio.TimeoutError:  # noqa: UP041 # another class before Python 3.11
                    break
            jobs = [job for job in jobs if not job.done.done()]
            for options in dict.fromkeys(job.options for job in jobs):
                await self._run([job for job in jobs if job.options == options])

    async def _run(self, jobs: Sequence[_Job]) -> None:
        """Runs pictures with the same options together, or one by one if they fail together."""
        loop = asyncio.get_running_loop()
        start, options = perf_counter(), jobs[0].options
        try:
            results = await loop.run_in_executor(self._thread, self._predict, jobs)
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    await self._run([job])
                return
            # Words and prompts that the model does not take are errors for whoever sent them.
            if not (isinstance(error, ValueError) and (options.classes is not None or options.asks)):
                logger.exception("a picture of %s pixels failed", jobs[0].image.size)
            if not jobs[0].done.done():
                jobs[0].done.set_exception(error)
            return
        if self._observe is not None:
            self._observe(len(jobs), perf_counter() - start)
        for job, result in zip(jobs, results, strict=True):
            if not job.done.done():
                job.done.set_result(result)

    def _predict(self, jobs: Sequence[_Job]) -> list[Any]:
        options = jobs[0].options
        if options.asks:
            return [self.predictor.prompt(job.image, options.points, options.boxes) for job in jobs]
        threshold: Any = options.score_threshold
        if options.precision is not None:
            threshold = Precision(options.precision)
        elif threshold is None:
            known = self.predictor.score_thresholds is not None
            threshold = "best" if known else {"instance": DEFAULT_THRESHOLD}
        return list(
            self.predictor.predict_iter(
                [job.image for job in jobs],
                score_threshold=threshold,
                max_detections=options.max_detections,
                tasks=options.tasks,
                batch_size=self.settings.max_batch,
                classes=options.classes,
            )
        )

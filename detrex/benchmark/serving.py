"""Measures requests per second of a server, with and without batches, over this computer's loopback."""

from __future__ import annotations

import http.client
import io
import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detrex.predict import Predictor
from detrex.serve.settings import ServerSettings

_BOUNDARY = "detrex-benchmark"
_PICTURES = 4  # number of different pictures
_SCORES_APART = 5e-3  # largest change of a score by rounding in a batch


def measure_serving(
    predictor: Predictor, clients: Sequence[int], requests: int, size: tuple[int, int], repeats: int
) -> dict[str, Any]:
    """Compares two servers of a model, with batches of up to 8 and without, with the same clients in turns.

    Args:
        predictor: the model.
        clients: numbers of concurrent clients.
        requests: number in each run.
        size: (height, width) of the pictures, which are noise.
        repeats: runs of each server with each number of clients.

    Returns:
        For each number of clients: requests per second and the median and 99th percentile of seconds for
        ``batched`` and ``single``, and the median ``ratio`` of batched to single. Also ``wrong``, the number
        of answers that differ from the model's, and ``memory``, bytes of this process after the first and the
        last run.
    """
    pictures = [_picture(size, seed) for seed in range(_PICTURES)]
    task = predictor.tasks[0]
    bodies = [_form(picture, task) for picture in pictures]
    settings = {
        "batched": ServerSettings(queue_size=4096, timeout=600),
        "single": ServerSettings(max_batch=1, batch_wait=0, queue_size=4096, timeout=600),
    }
    rows: list[dict[str, Any]] = []
    wrong, memory = 0, []
    with _server(predictor, settings["batched"]) as batched, _server(predictor, settings["single"]) as single:
        expected = [_ask(single, body) for body in bodies]
        for count in clients:
            runs: dict[str, list[tuple[float, list[float]]]] = {"batched": [], "single": []}
            for _ in range(repeats):
                for name, port in (("batched", batched), ("single", single)):
                    seconds, latencies, answers = _run(port, bodies, count, requests)
                    wrong += sum(not _same(answer, expected[i % _PICTURES]) for i, answer in answers)
                    runs[name].append((requests / seconds, latencies))
                    memory.append(_resident_bytes())
            rows.append({"clients": count, **_summary(runs)})
    return {
        "clients": rows,
        "requests": requests,
        "wrong": wrong,
        "memory": {"first": memory[0], "last": memory[-1]},
        "answered": 2 * requests * repeats * len(clients),
    }


def _summary(runs: dict[str, list[tuple[float, list[float]]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, of_server in runs.items():
        latencies = [seconds for _, run_latencies in of_server for seconds in run_latencies]
        found[name] = {
            "requests_per_second": statistics.median(rate for rate, _ in of_server),
            "p50": float(np.percentile(latencies, 50)),
            "p99": float(np.percentile(latencies, 99)),
        }
    pairs = zip(runs["batched"], runs["single"], strict=True)
    found["ratio"] = statistics.median(batched / single for (batched, _), (single, _) in pairs)
    return found


def _run(
    port: int, bodies: Sequence[bytes], clients: int, requests: int
) -> tuple[float, list[float], list[tuple[int, Any]]]:
    """Seconds of all requests together and of each, and the answers with the number of the request."""
    numbers = iter(range(requests))
    lock = threading.Lock()

    def client() -> list[tuple[int, float, Any]]:
        done: list[tuple[int, float, Any]] = []
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return done
            start = time.perf_counter()
            answer = _ask(port, bodies[number % len(bodies)])
            done.append((number, time.perf_counter() - start, answer))

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        requests_done = [
            request for of_client in threads.map(lambda _: client(), range(clients)) for request in of_client
        ]
    seconds = time.perf_counter() - start
    return (
        seconds,
        [latency for _, latency, _ in requests_done],
        [(number, answer) for number, _, answer in requests_done],
    )


def _same(answer: Any, expected: Any) -> bool:
    """Whether an answer has the same objects and segments, up to rounding in a batch."""
    if not isinstance(answer, dict) or answer.keys() != expected.keys():
        return False
    answered, wanted = (
        sorted((a["category_id"], a["score"]) for a in content.get("annotations", ()))
        for content in (answer, expected)
    )
    if abs(len(answered) - len(wanted)) > 1:  # one object may lie at the threshold
        return False
    scores, others = (sorted((score for _, score in objects), reverse=True) for objects in (answered, wanted))
    return all(abs(a - b) <= _SCORES_APART for a, b in zip(scores, others, strict=False))


def _ask(port: int, body: bytes) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        kind = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        connection.request("POST", "/predict", body, kind)
        response = connection.getresponse()
        content = response.read()
        return json.loads(content) if response.status == 200 else response.status  # noqa: PLR2004
    finally:
        connection.close()


def _form(picture: bytes, task: str) -> bytes:
    lines = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="tasks"\r\n\r\n{task}\r\n'.encode(),
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n'.encode(),
        b"Content-Type: image/png\r\n\r\n",
        picture,
        f"\r\n--{_BOUNDARY}--\r\n".encode(),
    ]
    return b"".join(lines)


def _picture(size: tuple[int, int], seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def _resident_bytes() -> int:
    """Memory of this process; 0 if the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


@contextmanager
def _server(predictor: Predictor, settings: ServerSettings) -> Iterator[int]:
    """A server on a thread, at a free port of the loopback."""
    import uvicorn

    from detrex.serve.app import create_app

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(create_app(predictor, settings), log_level="warning", log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()

"""A COCO file of any size, and what it costs to open it and to read it from workers.

    python -m tests.data.scale FOLDER [--images 118000] [--annotations 860000] [--check]

writes one into FOLDER (with empty files for images), opens it twice and reads an epoch of annotations with
two workers, forked and spawned. The cache goes to FOLDER, too. With --check, images are small pictures, each
unlike the others, and the data set is checked instead.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from detrex.data import CocoInstances
from detrex.data.check import check_sources
from detrex.data.sources import source_of

SIZE = (480, 640)
SMALL_SIZE = (96, 128)


def write_coco(folder: Path, images: int, annotations: int, pictures: bool = False) -> Path:
    """Writes ``folder/instances.json``, in the order of COCO's own: classes last, annotations mixed."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    size = SMALL_SIZE if pictures else SIZE
    height, width = size
    listed = [
        {"license": 3, "file_name": f"{i:012d}.jpg", "height": height, "width": width, "id": 5 * i + 9}
        for i in range(images)
    ]
    for image in listed:
        place = folder / "images" / image["file_name"]
        if pictures:
            small = Image.fromarray(rng.integers(0, 256, (6, 8), dtype=np.uint8))
            small.resize((width, height), Image.Resampling.BILINEAR).save(place)
        else:
            place.touch()
    path = folder / "instances.json"
    with path.open("w") as file:
        file.write(f'{{"info": {{"year": 2017}}, "licenses": [], "images": {json.dumps(listed)}, ')
        file.write('"annotations": [')
        for k, owner in enumerate(rng.integers(0, images, annotations)):
            file.write(f"{', ' if k else ''}{json.dumps(_annotation(rng, k, listed[owner]['id'], size))}")
        file.write(f'], "categories": {json.dumps([{"id": i, "name": f"class{i}"} for i in range(1, 81)])}}}')
    return path


def _annotation(
    rng: np.random.Generator, number: int, image_id: int, size: tuple[int, int]
) -> dict[str, Any]:
    points = (rng.random((4 + min(296, int(rng.exponential(24))), 2)) * size[::-1]).round(2)
    low, high = points.min(0), points.max(0)
    x, y = points.T
    area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    return {
        "segmentation": [points.ravel().tolist()],
        "area": round(float(area), 4),
        "iscrowd": 0,
        "image_id": image_id,
        "bbox": [*low.round(2).tolist(), *(high - low).round(2).tolist()],
        "category_id": int(rng.integers(1, 81)),
        "id": number + 1,
    }


class Memory(NamedTuple):
    """Megabytes of a process: its own, and with its share of what several have.

    Pages of files count only as far as the process has changed them. Those of PyTorch's libraries become a
    process's own as soon as another one ends.
    """

    private: float
    shared: float


def memory(process: int) -> Memory:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(value) for name, value, *_ in map(str.split, lines)}
    shared = kilobytes["Pss_Anon:"] + kilobytes["Pss_Shmem:"]
    return Memory(kilobytes["Private_Dirty:"] / 1e3, shared / 1e3)


class Sizes(Dataset):
    """Reads each image's annotations and gives their number; pixels are not of interest here."""

    def __init__(self, read: Callable[[int], Any], length: int):
        self.read, self.length = read, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return len(self.read(index))


def epoch_in_workers(dataset: Dataset, start_method: str, workers: int) -> list[tuple[Memory, Memory]]:
    """The memory of each worker after a tenth of an epoch, in random order, and at its end."""
    loader = DataLoader(
        dataset,
        batch_size=max(1, len(dataset) // 100),
        shuffle=True,
        num_workers=workers,
        multiprocessing_context=start_method,
        persistent_workers=True,
    )
    others = multiprocessing.active_children()
    batches = iter(loader)
    processes = [worker.pid for worker in multiprocessing.active_children() if worker not in others]
    for _ in range(10):
        next(batches)
    early = [memory(process) for process in processes]
    for _ in batches:
        pass
    return list(zip(early, [memory(process) for process in processes], strict=True))


def _open(folder: Path) -> CocoInstances:
    return CocoInstances(folder / "images", folder / "instances.json")


def _report_start(folder: Path) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak that importing everything took
    before = _peak()
    wall, cpu = time.perf_counter(), time.process_time()
    dataset = _open(folder)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    _say(f"{len(dataset)} images: {wall:.1f} s ({cpu:.1f} s of CPU), {_peak() - before:.0f} MB at most")


def _peak() -> float:
    """Most megabytes that this process has had in memory."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def _report_workers(folder: Path, start_method: str) -> None:
    dataset = _open(folder)
    sizes = Sizes(partial(dataset.file.objects, masks=True), len(dataset))
    for early, late in epoch_in_workers(sizes, start_method, workers=2):
        private, shared = (f"{a:.0f} -> {b:.0f} MB" for a, b in zip(early, late, strict=True))
        _say(f"{start_method}: USS {private}, PSS {shared}")


def _report_check(folder: Path) -> None:
    Path("/proc/self/clear_refs").write_text("5")
    before, wall, cpu = _peak(), time.perf_counter(), time.process_time()
    report = check_sources([source_of(folder / "images", folder / "instances.json")])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    _say(f"checked: {wall:.1f} s ({cpu:.1f} s of CPU), {_peak() - before:.0f} MB at most above {before:.0f}")
    for finding in report.findings.sorted():
        _say(f"  {finding.title}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _fresh(task: Callable[..., None], *args: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=task, args=args)
    process.start()
    process.join()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--annotations", type=int, default=860_000)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    os.environ["DETREX_CACHE"] = str(options.folder / "cache")
    if not (options.folder / "instances.json").exists():
        write_coco(options.folder, options.images, options.annotations, options.check)
    if options.check:
        _fresh(_report_check, options.folder)
        return
    for _ in range(2):
        _fresh(_report_start, options.folder)
    for start_method in ("fork", "spawn"):
        _fresh(_report_workers, options.folder, start_method)


if __name__ == "__main__":
    main()

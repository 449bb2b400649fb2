"""Videos and clips in the format of the MOT challenge (https://motchallenge.net) and of DanceTrack.

Layout of a folder of videos::

    {video}/seqinfo.ini               number and size of the frames, and where they are
    {video}/img1/00000001.jpg         frames, numbered from 1
    {video}/gt/gt.txt                 frame, track, left, top, width, height, counts, class, visibility
"""

from __future__ import annotations

import configparser
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from detrex.data.categories import read_categories
from detrex.data.coco.reader import ImageEntry
from detrex.data.errors import DataError
from detrex.data.image_dataset import ImageDataset, Record
from detrex.data.image_io import Orientation, read_image
from detrex.data.mappers import EvalMapper
from detrex.structures import Sample, Targets

FRAME, TRACK, BOX, COUNTS = 0, 1, slice(2, 6), 6
"""Columns of ``gt.txt``."""


@dataclass(frozen=True)
class Video:
    """One video.

    Attributes:
        name: of its folder.
        size: (height, width) in pixels.
        files: of its frames in order, relative to the folder of videos.
        truth: the rows of ``gt.txt`` that count, (N, 6) float64: frame from 1, track, and left, top, width
            and height in pixels.
    """

    name: str
    size: tuple[int, int]
    files: list[str]
    truth: np.ndarray

    @classmethod
    def read(cls, folder: Path, with_truth: bool = True) -> Video:
        """Reads ``seqinfo.ini`` and, with ``with_truth``, ``gt.txt``.

        Raises:
            DataError: a file or frame is missing or broken; the message names it.
        """
        info = folder / "seqinfo.ini"
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(info.read_text(encoding="utf-8"))
            section = parser["Sequence"]
            count, width, height = (int(section[k]) for k in ("seqLength", "imWidth", "imHeight"))
            place, suffix = section.get("imDir", "img1"), section.get("imExt", ".jpg")
        except (OSError, KeyError, ValueError, configparser.Error) as error:
            raise DataError(f"{info}: {type(error).__name__}: {error}") from error
        if place in ("", ".", "..") or any(c in place + suffix for c in "/\\"):
            raise DataError(f"{info}: imDir={place} with imExt={suffix} is no folder beside this file")
        numbers = {int(p.stem): p.name for p in (folder / place).glob(f"*{suffix}") if p.stem.isdecimal()}
        missing = next((n for n in range(1, count + 1) if n not in numbers), None)
        if missing is not None or count < 1:
            raise DataError(
                f"{info}: seqLength={count}, but {folder / place} has {len(numbers)} frames"
                + (f", and none of the number {missing}" if missing else "")
            )
        files = [f"{folder.name}/{place}/{numbers[n]}" for n in range(1, count + 1)]
        truth = _read_truth(folder / "gt" / "gt.txt", count) if with_truth else np.zeros((0, 6))
        return cls(folder.name, (height, width), files, truth)

    def __len__(self) -> int:
        return len(self.files)

    def boxes(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Tracks (N,) int64 and boxes (N, 4), absolute xyxy in pixels, of frame ``frame`` (from 0)."""
        rows = self.truth[self.truth[:, FRAME] == frame + 1]
        corners = np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], 1)
        return rows[:, TRACK].astype(np.int64), corners


def read_videos(folder: str | Path, with_truth: bool = True) -> list[Video]:
    """All videos in ``folder``, by name.

    Raises:
        DataError: there are no videos, or a file of one is missing or broken.
    """
    found = sorted(path.parent for path in Path(folder).glob("*/seqinfo.ini"))
    if not found:
        raise DataError(
            f"{folder}: there is no video here. Expected are folders with seqinfo.ini, img1 and gt, as MOT "
            "and DanceTrack have them"
        )
    return [Video.read(path, with_truth) for path in found]


def frame_id(video: str, frame: int) -> str:
    """The ``image_id`` of frame ``frame`` (from 0) of a video."""
    return f"{video}/{frame + 1}"


class FrameRecord(Record, total=False):
    """A frame, or the first one of a clip.

    ``video``: name of the video. ``frame``: number of the frame, from 0. ``tracks``: (N,) int64, tracks of
        the
    targets. ``frames``: records of all frames of the clip.
    """

    video: str
    frame: int
    tracks: Tensor
    frames: list[FrameRecord]


class FrameSample(Sample, total=False):
    """A frame for a model, with the keys of :class:`FrameRecord`."""

    video: str
    frame: int
    tracks: Tensor
    frames: list[FrameSample]


class MotVideos(ImageDataset):
    """Clips of frames of videos, or all single frames in order.

    All objects are of the first class: the class column of MOT's files is not read, and rows that do not
    count (column 7 is 0) are left out.

    Args:
        images: folder of videos.
        categories: file that lists the classes, see :func:`detrex.data.read_categories`.
        clip_length: number of frames in a clip.
        max_step: a clip consists of every k-th frame; k is drawn uniformly from 1 to this, limited by the end
            of the video. A clip starts at every frame that enough frames follow for steps of 1.
        targets: whether to read ``gt.txt``.
        orientation, value_range: see :class:`~detrex.data.image_dataset.ImageDataset`.

    Raises:
        DataError: files are missing or broken, or no video is as long as a clip.
    """

    def __init__(
        self,
        images: str | Path,
        categories: str | Path,
        clip_length: int = 1,
        max_step: int = 1,
        targets: bool = True,
        orientation: Orientation = "auto",
        value_range: tuple[float, float] | None = None,
    ):
        super().__init__(images, read_categories(categories), orientation, value_range)
        if clip_length < 1 or max_step < 1:
            raise DataError(f"clip_length={clip_length}, max_step={max_step}: expected are numbers from 1 on")
        self.clip_length, self.max_step = clip_length, max_step
        self.videos = read_videos(images, targets)
        self._places = [
            (video, frame) for video in self.videos for frame in range(len(video) - clip_length + 1)
        ]
        if not self._places:
            raise DataError(f"{images}: no video has the {clip_length} frames of a clip")

    def __len__(self) -> int:
        return len(self._places)

    def share(self, rank: int, world_size: int) -> range:
        """Whole videos, dealt to the processes in turn, because models follow objects from frame to frame."""
        starts = [0]
        for video in self.videos:
            starts.append(starts[-1] + max(len(video) - self.clip_length + 1, 0))
        first, last = (n * len(self.videos) // world_size for n in (rank, rank + 1))
        return range(starts[first], starts[last])

    def record(self, index: int, draw_masks: bool = True) -> FrameRecord:  # noqa: ARG002
        """The first frame of a clip, with ``frames``; see :class:`FrameRecord`."""
        video, start = self._places[index]
        fitting = (len(video) - 1 - start) // max(self.clip_length - 1, 1)
        step = int(torch.randint(1, max(1, min(self.max_step, fitting)) + 1, ())) if self.max_step > 1 else 1
        frames = [self._frame(video, start + i * step) for i in range(self.clip_length)]
        return FrameRecord(**{**frames[0], "frames": frames})

    def _frame(self, video: Video, frame: int) -> FrameRecord:
        name, file_name = frame_id(video.name, frame), video.files[frame]
        tracks, targets = self._truth(video, frame)
        return FrameRecord(
            image=read_image(self.images / file_name, video.size, name, self.orientation, self.value_range),
            image_id=name,
            file_name=file_name,
            height=video.size[0],
            width=video.size[1],
            targets=targets,
            video=video.name,
            frame=frame,
            tracks=tracks,
        )

    def _truth(self, video: Video, frame: int) -> tuple[Tensor, Targets]:
        """Tracks (N,) and targets of the objects that are at least partly visible."""
        tracks, corners = (torch.from_numpy(values) for values in video.boxes(frame))
        boxes = clip_boxes_to_image(corners.float(), video.size)
        seen = (boxes[:, 2:] > boxes[:, :2]).all(1)
        labels = torch.zeros(len(tracks), dtype=torch.int64)
        return tracks[seen], Targets(labels, boxes, None, torch.ones(len(tracks)) > 0)[seen]

    def entry(self, index: int) -> ImageEntry:
        video, frame = self._places[index]
        return ImageEntry(frame_id(video.name, frame), video.files[frame])

    def image_size(self, index: int) -> tuple[int, int]:
        return self._places[index][0].size

    def targets(self, index: int) -> Targets:
        return self._truth(*self._places[index])[1]


class ClipMapper:
    """Augments all frames of a clip in the same way, with the same random numbers.

    Args:
        mapper: of a single frame, such as :class:`~detrex.data.LargeScaleJitterMapper`.
    """

    def __init__(self, mapper: Callable[[Record], Sample]):
        self.mapper = mapper

    def __call__(self, record: FrameRecord) -> FrameSample:
        """The sample of the first frame, with the samples of all frames as ``frames``."""
        frames, state = [], torch.get_rng_state()
        for frame in record["frames"]:
            torch.set_rng_state(state)
            frames.append(self._frame(frame))
        return FrameSample(**{**frames[0], "frames": frames})

    def _frame(self, record: FrameRecord) -> FrameSample:
        targets = record["targets"]
        # Labels carry the numbers of the objects, which show which objects are left afterwards.
        numbered = replace(targets, labels=torch.arange(len(targets)))
        sample = self.mapper(FrameRecord(**{**record, "targets": numbered}))
        left = sample["targets"].labels
        kept = replace(sample["targets"], labels=targets.labels[left])
        tracks = record["tracks"][left]
        return FrameSample(
            **{**sample, "targets": kept, "tracks": tracks}, video=record["video"], frame=record["frame"]
        )


class FrameMapper(EvalMapper):
    """Resizes frames for evaluation, and says which frame of which video they are.

    Args:
        size, max_size: see :class:`~detrex.data.EvalMapper`.
    """

    def __call__(self, record: Record) -> Sample:
        """See the base class. If the record belongs to no video, neither does the sample."""
        sample = super().__call__(record)
        place = {key: value for key, value in record.items() if key in ("video", "frame")}
        return FrameSample(**{**sample, **place})  # type: ignore[typeddict-item]  # keys of the record


def _read_truth(path: Path, frames: int) -> np.ndarray:
    """The rows that count, (N, 6).

    Raises:
        DataError: the file is missing, is not a table of numbers, names frames that do not exist, or has an
            object twice in a frame.
    """
    try:
        rows = np.loadtxt(path, delimiter=",", ndmin=2) if path.stat().st_size else np.zeros((0, 9))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    if rows.shape[1] < 6 or not np.isfinite(rows).all():
        raise DataError(
            f"{path}: expected are rows of finite numbers: frame, track, left, top, width, height, ..."
        )
    if rows.shape[1] > COUNTS:
        rows = rows[rows[:, COUNTS] != 0]
    rows = rows[:, :COUNTS]
    whole = (rows[:, :2] == rows[:, :2].round()).all(1)
    good = whole & (rows[:, FRAME] >= 1) & (rows[:, FRAME] <= frames) & (rows[:, 4:6] > 0).all(1)
    if not good.all():
        frame, track, *box = rows[~good][0]
        raise DataError(
            f"{path}: a row has frame {frame:g}, track {track:g} and box {[float(v) for v in box]}. Frames "
            f"are numbered from 1 to {frames}, tracks are whole numbers, and boxes are left, top, width and "
            "height, the last two above 0"
        )
    _, first, counts = np.unique(rows[:, :2], axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        frame, track = rows[first[counts > 1][0], :2]
        raise DataError(f"{path}: track {track:g} is in frame {frame:g} more than once")
    return rows

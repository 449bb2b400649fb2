"""Videos, cameras and windows by OpenCV, which is needed for nothing else."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from detrex.data import DataError

_DEFAULT_FPS = 25.0
_CODEC = "mp4v"


def opencv() -> ModuleType:
    """The module ``cv2``.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "videos and cameras need OpenCV: pip install 'detrex-maskdino[video]' or opencv-python-headless"
        ) from error
    return cv2


class VideoReader:
    """The frames of a video file, or of a camera as long as it is wanted: iterate once, then ``close``.

    Attributes:
        name: the file or camera, for messages.
        fps: frames per second; 25 where the source does not say.
        size: (height, width) in pixels.
        frame_count: as the file says, which may be wrong; None for a camera.
        live: whether frames come by the clock.
    """

    def __init__(self, source: str | Path | int):
        """
        Args:
            source: a file, or the number of a camera.

        Raises:
            ImportError: OpenCV is not installed.
            DataError: there is no such camera, or the file is missing, damaged or of an unknown format.
        """
        self._cv2 = opencv()
        self.live = isinstance(source, int)
        self.name = f"camera {source}" if self.live else str(source)
        self._capture = self._cv2.VideoCapture(source if self.live else str(source))
        self._first = self._read()
        if self._first is None:
            self.close()
            hint = "is it there, and may you use it?" if self.live else "it is damaged, empty or no video."
            raise DataError(f"{self.name} gives no frames: {hint}")
        self.size = self._first.shape[:2]
        fps = self._capture.get(self._cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and fps > 0 else _DEFAULT_FPS
        count = int(self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count = None if self.live or count < 1 else count

    def __iter__(self) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8 RGB."""
        frame = self._first
        while frame is not None:
            yield frame
            frame = self._read()

    def close(self) -> None:
        self._capture.release()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> np.ndarray | None:
        there, frame = self._capture.read()
        return self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB) if there else None


class VideoWriter:
    """Writes an MP4 video.

    Args:
        path: the file; its folder is made if need be.
        fps: frames per second.
        size: (height, width) in pixels. The format has even sizes only: of an odd one the last row or column
            is lost.

    Raises:
        ImportError: OpenCV is not installed.
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int]):
        self._cv2 = opencv()
        self._size = (size[1], size[0])
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        codec = self._cv2.VideoWriter.fourcc(*_CODEC)
        self._writer = self._cv2.VideoWriter(str(path), codec, fps, self._size)
        if not self._writer.isOpened():
            raise OSError(
                f"OpenCV cannot write the video {path} of {size[0]} x {size[1]} pixels at {fps} fps"
            )

    def write(self, picture: Image.Image, times: int = 1) -> None:
        """Appends an RGB picture of the video's size, ``times`` times."""
        if picture.size != self._size:
            # OpenCV leaves such frames out without a word.
            raise ValueError(f"a frame of {picture.size} (width, height) in a video of {self._size}")
        frame = self._cv2.cvtColor(np.asarray(picture), self._cv2.COLOR_RGB2BGR)
        for _ in range(times):
            self._writer.write(frame)

    def close(self) -> None:
        self._writer.release()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Window:
    """A window on the screen.

    Raises:
        ValueError: there is no screen, or this OpenCV has no windows.
    """

    def __init__(self, title: str):
        self._cv2, self._title = opencv(), title
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise ValueError("a window needs a display, and there is none")
        try:
            self._cv2.namedWindow(title)
        except self._cv2.error as error:
            raise ValueError(
                "this OpenCV has no windows: install opencv-python in place of opencv-python-headless"
            ) from error

    def show(self, picture: Image.Image) -> bool:
        """Shows an RGB picture; returns whether q or Esc was pressed."""
        self._cv2.imshow(self._title, self._cv2.cvtColor(np.asarray(picture), self._cv2.COLOR_RGB2BGR))
        return self._cv2.waitKey(1) & 0xFF in (ord("q"), 27)

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self._cv2.destroyWindow(self._title)

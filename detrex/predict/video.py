"""Videos, cameras and windows with OpenCV, which nothing else needs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from detrex.data import DataError
from detrex.data.image_io import PIXEL_LIMIT, pixel_limit, read_image, shown_size

_DEFAULT_FPS = 25.0
_CODEC = "mp4v"
# Beginnings of texts that FFmpeg reads as lists of other files, which it would open.
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"[playlist]", b"v=0")
# Options of OpenCV's FFmpeg, so that a file cannot refer to addresses.
_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


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
    """The frames of a video file, or of a camera until it is closed: iterate once, then call ``close``.

    Attributes:
        name: the file or camera, for messages.
        fps: frames per second; 25 if the source does not tell.
        size: (height, width) in pixels.
        frame_count: the number in the file, which may be wrong; None for a camera.
        live: whether frames arrive in real time.
    """

    def __init__(self, source: str | Path | int):
        """
        Args:
            source: a file, or the number of a camera.

        Raises:
            ImportError: OpenCV is not installed.
            DataError: there is no such camera, or the file is missing, damaged, of an unknown format or a
                list of other files, or has more pixels than ``DETREX_MAX_PIXELS`` allows.
        """
        self._cv2 = opencv()
        self.live = isinstance(source, int)
        self.name = f"camera {source}" if self.live else str(source)
        if not isinstance(source, int):
            _check_content(Path(source))
            os.environ.setdefault(_FFMPEG_OPTIONS, "protocol_whitelist;file")
        self._capture = self._cv2.VideoCapture(source if self.live else str(source))
        self._check_size()
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
        """Yields frames, (H, W, 3) uint8 RGB."""
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

    def _check_size(self) -> None:
        sides = (self._cv2.CAP_PROP_FRAME_HEIGHT, self._cv2.CAP_PROP_FRAME_WIDTH)
        height, width = (int(self._capture.get(side)) for side in sides)
        limit = pixel_limit()
        if limit and height * width > limit:
            self.close()
            raise DataError(
                f"{self.name} has frames of {height} x {width} pixels (height x width), more than the limit "
                f"of {limit} (environment variable {PIXEL_LIMIT})"
            )

    def _read(self) -> np.ndarray | None:
        try:
            there, frame = self._capture.read()
        except self._cv2.error as error:
            raise DataError(f"{self.name} cannot be decoded ({str(error).strip()})") from error
        if there and getattr(self, "size", frame.shape[:2]) != frame.shape[:2]:
            raise DataError(f"{self.name} changes the size of its frames, which is not supported")
        return self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB) if there else None


def _check_content(path: Path) -> None:
    """Refuses texts that name other files.

    Raises:
        DataError: the file is such a text.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip()
    except OSError:
        return  # the missing frames are reported later
    if start.startswith(_PLAYLISTS):
        raise DataError(f"{path} is a list of other files, not a video: name these")


class FrameFolder:
    """Pictures as the frames of a video, with the attributes of :class:`VideoReader`.

    Args:
        paths: of the pictures, in order.
        fps: frames per second.

    Raises:
        DataError: the first picture cannot be read.
    """

    live = False

    def __init__(self, paths: Sequence[Path], fps: float = _DEFAULT_FPS):
        self._paths = list(paths)
        self.name = str(self._paths[0].parent)
        self.fps, self.frame_count = fps, len(self._paths)
        self.size = shown_size(self._paths[0])

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields frames, (H, W, 3) uint8 RGB.

        Raises:
            DataError: a picture cannot be read, or its size differs from that of the first.
        """
        for path in self._paths:
            image = read_image(path)
            if tuple(image.shape[1:]) != tuple(self.size):
                raise DataError(
                    f"{path} has {image.shape[1]} x {image.shape[2]} pixels (height x width), but the first "
                    f"frame has {self.size[0]} x {self.size[1]}: frames of a video are of one size"
                )
            yield image.permute(1, 2, 0).numpy()

    def close(self) -> None:
        """Does nothing: no file is open."""

    def __enter__(self) -> FrameFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class VideoWriter:
    """Writes an MP4 video.

    Args:
        path: the file; its folder is created if need be.
        fps: frames per second.
        size: (height, width) in pixels. The format needs even sizes: if a size is odd, the last row or column
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
            # OpenCV would skip such frames silently.
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

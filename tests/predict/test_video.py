"""Videos written and read again."""

import sys

import numpy as np
import pytest
from PIL import Image

from detrex.data import DataError
from detrex.predict.video import VideoReader, VideoWriter, Window, opencv

RED, BLUE = (230, 20, 20), (20, 20, 230)


@pytest.fixture
def cv2():
    return pytest.importorskip("cv2")


def frame(color, size=(48, 64)):
    return Image.new("RGB", size[::-1], color)


@pytest.mark.usefixtures("cv2")
def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new/clip.mp4"
    with VideoWriter(path, fps=12.5, size=(48, 64)) as writer:
        writer.write(frame(RED), times=3)
        writer.write(frame(BLUE))
    with VideoReader(path) as reader:
        assert (reader.size, reader.fps, reader.frame_count, reader.live) == ((48, 64), 12.5, 4, False)
        frames = list(reader)
    assert [f.shape for f in frames] == [(48, 64, 3)] * 4 and frames[0].dtype == np.uint8
    for read, color in zip(frames, [RED, RED, RED, BLUE], strict=True):
        np.testing.assert_allclose(read.mean((0, 1)), color, atol=12)


@pytest.mark.usefixtures("cv2")
def test_a_frame_of_another_size_is_refused(tmp_path):
    with (
        VideoWriter(tmp_path / "x.mp4", 10, (48, 64)) as writer,
        pytest.raises(ValueError, match=r"\(64, 64\)"),
    ):
        writer.write(frame(RED, (64, 64)))


@pytest.mark.usefixtures("cv2")
def test_videos_that_cannot_be_opened(tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    (tmp_path / "empty.avi").touch()
    for name in ("bad.mp4", "empty.avi", "none.mp4"):
        with pytest.raises(DataError, match=rf"{name} gives no frames"):
            VideoReader(tmp_path / name)
    with pytest.raises(DataError, match=r"camera 97 gives no frames: is it there"):
        VideoReader(97)


@pytest.mark.usefixtures("cv2")
def test_a_video_that_cannot_be_written(tmp_path):
    (tmp_path / "x.mp4").mkdir()
    with pytest.raises(OSError, match=r"cannot write the video .*x.mp4 of 48 x 64"):
        VideoWriter(tmp_path / "x.mp4", 10, (48, 64))


@pytest.mark.usefixtures("cv2")
def test_a_window_needs_a_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"needs a display"):
        Window("x")


def test_without_opencv(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", None)
    for use in (opencv, lambda: VideoReader(0), lambda: VideoWriter(tmp_path / "x.mp4", 10, (4, 4))):
        with pytest.raises(ImportError, match=r"detrex-maskdino\[video\]"):
            use()


@pytest.mark.usefixtures("cv2")
@pytest.mark.parametrize(
    "text", ["#EXTM3U\nhttp://127.0.0.1:9/a.ts\n", "ffconcat version 1.0\nfile '/etc/passwd'\n"]
)
def test_a_list_of_other_files_is_no_video(tmp_path, text):
    (tmp_path / "list.mp4").write_text(text)
    with pytest.raises(DataError, match="is a list of other files"):
        VideoReader(tmp_path / "list.mp4")


@pytest.mark.usefixtures("cv2")
def test_a_video_of_too_many_pixels(tmp_path, monkeypatch):
    with VideoWriter(tmp_path / "x.mp4", 10, (48, 64)) as writer:
        writer.write(frame(RED))
    monkeypatch.setenv("DETREX_MAX_PIXELS", "3000")
    with pytest.raises(DataError, match=r"frames of 48 x 64 pixels .* limit of 3000"):
        VideoReader(tmp_path / "x.mp4")


@pytest.mark.usefixtures("cv2")
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_damaged_video_ends_in_an_error_or_early(tmp_path, kept):
    with VideoWriter(tmp_path / "x.mp4", 10, (48, 64)) as writer:
        for color in (RED, BLUE) * 10:
            writer.write(frame(color))
    content = bytearray((tmp_path / "x.mp4").read_bytes())
    middle = slice(len(content) // 3, len(content) // 3 + 200)
    content[middle] = bytes(200)
    (tmp_path / "x.mp4").write_bytes(content[: int(kept * len(content))])
    try:
        with VideoReader(tmp_path / "x.mp4") as reader:
            assert len(list(reader)) <= 20
    except DataError as error:
        assert "x.mp4" in str(error)

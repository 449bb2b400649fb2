"""Videos in MOT's format: what is read, what is refused, and clips that are augmented alike."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from detrex.data import DataError, LargeScaleJitterMapper, TrainingMapper, build_test_loader, category_file
from detrex.data.mot import ClipMapper, FrameMapper, MotVideos, Video, read_videos
from detrex.data.moving_shapes import ensure_moving_shapes

FRAMES, SIZE = 6, 64
CLASSES = category_file("moving_shapes")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "moving"
    return Path(ensure_moving_shapes(str(root), {"train": 3}, FRAMES, SIZE, file="train"))


@pytest.fixture
def video(videos, tmp_path) -> Path:
    """A copy of one video, to be damaged."""
    return Path(shutil.copytree(videos / "train0000", tmp_path / "train0000"))


def test_frames_and_boxes_are_read(videos):
    clips = MotVideos(videos, CLASSES, clip_length=3)
    assert len(clips) == 3 * (FRAMES - 2) and clips.categories.names == ("shape",)
    record = clips[5]  # the second clip of the second video
    assert [frame["image_id"] for frame in record["frames"]] == [f"train0001/{n}" for n in (2, 3, 4)]
    assert (record["video"], record["frame"]) == ("train0001", 1)
    rows = np.loadtxt(videos / "train0001/gt/gt.txt", delimiter=",")
    rows = rows[rows[:, 0] == 2]
    assert record["tracks"].tolist() == rows[:, 1].tolist()
    corners = np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], 1).clip(0, SIZE)
    torch.testing.assert_close(record["targets"].boxes, torch.tensor(corners, dtype=torch.float32))


def test_a_shape_is_where_its_box_is(videos):
    record = MotVideos(videos, CLASSES)[0]
    image, boxes = record["image"].float(), record["targets"].boxes
    for x0, y0, x1, y1 in boxes[-1:].round().long().tolist():  # drawn last, over the others
        inside = image[:, (y0 + y1) // 2, (x0 + x1) // 2]
        assert (inside >= 150).all()  # the ground is darker


def test_steps_between_frames_vary_and_stay_within_the_video(videos):
    clips = MotVideos(videos, CLASSES, clip_length=3, max_step=9)
    taken = [[frame["frame"] for frame in clips[0]["frames"]] for _ in range(20)]
    assert {tuple(t) for t in taken} == {(0, 1, 2), (0, 2, 4)}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("gt/gt.txt", "1,1,2,3,4\n", "frame, track, left"),
        ("gt/gt.txt", "1,1,2,3,4,x,1\n", "could not convert"),
        ("gt/gt.txt", "1,1,2,3,4,nan,1\n", "finite"),
        ("gt/gt.txt", f"{FRAMES + 1},1,2,3,4,5,1\n", "from 1 to 6"),
        ("gt/gt.txt", "1,1,2,3,0,5,1\n", "above 0"),
        ("gt/gt.txt", "1,1.5,2,3,4,5,1\n", "whole numbers"),
        ("gt/gt.txt", "1,1,2,3,4,5,1\n1,1,2,3,4,5,1\n", "track 1 is in frame 1 more than once"),
        ("seqinfo.ini", "[Sequence]\nseqLength=6\n", "imWidth"),
        ("seqinfo.ini", "[Sequence]\nseqLength=7\nimWidth=64\nimHeight=64\nimExt=.png", "of the number 7"),
        ("seqinfo.ini", "[Sequence]\nseqLength=6\nimWidth=64\nimHeight=64\nimDir=..", "no folder beside"),
        ("seqinfo.ini", "[Sequence]\nseqLength=6\nimWidth=64\nimHeight=64\nimDir=/etc", "no folder beside"),
        ("seqinfo.ini", "nonsense", "no section headers"),
    ],
)
def test_a_wrong_file_is_named(video, file, text, message):
    (video / file).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_videos(video.parent)
    assert str(video / file) in str(caught.value)


def test_missing_videos_and_truth_are_named(video, tmp_path):
    (video / "gt/gt.txt").unlink()
    with pytest.raises(DataError, match=r"gt\.txt"):
        read_videos(tmp_path)
    assert len(read_videos(tmp_path, with_truth=False)) == 1
    with pytest.raises(DataError, match="no video here"):
        read_videos(video)


def test_rows_that_do_not_count_are_left_out(video):
    (video / "gt/gt.txt").write_text("1,1,2,3,4,5,0,8,1\n1,2,2,3,4,5,1,1,1\n")
    tracks, boxes = Video.read(video).boxes(0)
    assert tracks.tolist() == [2] and boxes.tolist() == [[2, 3, 6, 8]]


def test_all_frames_of_a_clip_are_augmented_alike(videos):
    mapper = ClipMapper(LargeScaleJitterMapper(32, 0.5, 2.0))
    record = MotVideos(videos, CLASSES, clip_length=2)[0]
    record["frames"][1] = record["frames"][0]
    seen = set()
    for _ in range(6):
        first, second = mapper(record)["frames"]
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["tracks"], second["tracks"])
        seen.add(first["image"].sum().item())
    assert len(seen) == 6


def test_tracks_of_objects_that_a_crop_leaves_stay_theirs(videos):
    record = max(MotVideos(videos, CLASSES), key=lambda frame: len(frame["tracks"]))
    top, left, half = 0, SIZE // 2, SIZE // 2
    boxes = record["targets"].boxes
    kept = (boxes[:, 2] > left) & (boxes[:, 1] < half)

    def crop(shapes: dict) -> dict:
        return {name: v2.functional.crop(value, top, left, half, half) for name, value in shapes.items()}

    sample = ClipMapper(TrainingMapper(crop))(record)
    assert 0 < kept.sum() < len(kept)
    assert sample["tracks"].tolist() == record["tracks"][kept].tolist()
    assert sample["targets"].labels.tolist() == [0] * int(kept.sum())


def test_processes_evaluate_whole_videos(videos):
    frames = MotVideos(videos, CLASSES, targets=False)
    shares = [frames.share(rank, 2) for rank in (0, 1)]
    assert [list(s) for s in shares] == [list(range(FRAMES)), list(range(FRAMES, 3 * FRAMES))]
    samples = [s for batch in build_test_loader(frames, FrameMapper(32, 32), 4, 0) for s in batch]
    assert [(s["video"], s["frame"]) for s in samples[:2]] == [("train0000", 0), ("train0000", 1)]


def test_moving_shapes_are_written_once_and_not_over_other_files(tmp_path):
    root = tmp_path / "moving"
    folder = Path(ensure_moving_shapes(str(root), {"val": 1}, 2, 32, file="val"))
    picture = folder / "val0000/img1/00000001.png"
    before, content = picture.stat().st_mtime_ns, picture.read_bytes()
    ensure_moving_shapes(str(root), {"val": 1}, 2, 32)
    assert picture.stat().st_mtime_ns == before
    ensure_moving_shapes(str(root), {"val": 1}, 2, 32, seed=1)
    assert picture.read_bytes() != content
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").touch()
    with pytest.raises(DataError, match="choose another root"):
        ensure_moving_shapes(str(tmp_path / "other"), {"val": 1}, 2, 32)

"""The demo as users call it, with a tiny model of random weights."""

import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from detrex.cli import prediction
from detrex.cli.commands.predict import parse_arguments, run
from detrex.predict.video import VideoReader, VideoWriter
from tests.predict.tiny_run import noise, read_json, save_noise, write_run

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = ("--confidence-threshold", "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the tiny model's run."""
    return write_run(tmp_path_factory.mktemp("run")).folder


@pytest.fixture
def save(tmp_path):
    """``save(name, height, width)`` writes a picture of noise."""
    return lambda name, *size: save_noise(tmp_path / name, *size)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


@pytest.fixture
def json_file(tmp_path):
    return tmp_path / "found.json"


@pytest.fixture
def start(folder, output):
    """``start(*arguments)`` runs the demo on the tiny model's instances, with pictures in ``output``."""

    def start(*arguments, tasks=("instance",), **options):
        fixed = ["--model", folder, "--output", output, "--device", "cpu", "--tasks", *tasks]
        run(parse_arguments([str(a) for a in (*fixed, *arguments)]), **options)

    return start


@pytest.fixture
def refused(start, caplog):
    """``refused(*arguments)`` is the one message with which the demo ends, of exit code 1."""

    def refuse(*arguments, **options):
        caplog.clear()
        with pytest.raises(SystemExit) as stopped:
            start(*arguments, **options)
        assert stopped.value.code == 1
        (error,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        return error

    return refuse


@pytest.fixture
def video(tmp_path):
    """``video(name, frames)`` writes a clip of 48 x 64 pixels at 12 frames per second."""
    pytest.importorskip("cv2")

    def write(name, frames=6):
        with VideoWriter(tmp_path / name, 12, (48, 64)) as writer:
            for i in range(frames):
                writer.write(Image.fromarray(noise(48, 64, i)))
        return tmp_path / name

    return write


class Camera:
    """Gives frames of noise; after ``frames`` of them the user presses Ctrl-C."""

    live, fps, size, frame_count = True, 10.0, (48, 64), None

    def __init__(self, number, frames=5):
        self.name, self._frames, self.closed = f"camera {number}", frames, False

    def __iter__(self):
        for i in range(self._frames):
            yield noise(48, 64, i)
        raise KeyboardInterrupt

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True


def files_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def frames_of(path):
    with VideoReader(path) as reader:
        return reader, list(reader)


def test_a_folder_a_pattern_and_files(start, save, output, json_file, tmp_path):
    a, b = save("a/x.jpg"), save("b/x.png", 50, 30)
    save("b/more/y.png")
    (tmp_path / "b/notes.txt").touch()
    start("--input", tmp_path / "a", tmp_path / "b/**/*.png", a, "--json", json_file, "--batch-size", 4)
    assert files_in(output) == ["more/y_instance.png", "x.png_instance.png", "x_instance.png"]
    names = [image["file_name"] for image in read_json(json_file)["images"]]
    assert names == [str(a), str(tmp_path / "b/more/y.png"), str(b)]


def test_a_higher_threshold_leaves_less_in_json_and_pictures(start, save, output, json_file):
    picture = save("x.png")
    original = Image.open(picture)
    counts, changed = [], []
    start("--input", picture, "--json", json_file, *EVERYTHING)
    scores = sorted(a["score"] for a in read_json(json_file)["annotations"])
    for threshold in (0.0, float(np.median(scores)), 1.0):
        start("--input", picture, "--json", json_file, "--confidence-threshold", threshold)
        found = [a["score"] for a in read_json(json_file)["annotations"]]
        assert len(found) == sum(s >= threshold for s in scores)
        counts.append(len(found))
        drawn = Image.open(output / "x_instance.png").resize(original.size, Image.Resampling.BOX)
        changed.append(np.abs(np.asarray(drawn).astype(int) - np.asarray(original)).mean())
    assert counts[0] > counts[1] > counts[2] == 0
    assert changed[0] > changed[2] and changed[1] > changed[2]


def test_the_threshold_is_one_half_if_none_is_given(start, save, json_file):
    start("--input", save("x.png"), "--json", json_file, *EVERYTHING)
    scores = [a["score"] for a in read_json(json_file)["annotations"]]
    start("--input", save("x.png"), "--json", json_file)
    assert len(read_json(json_file)["annotations"]) == sum(s >= 0.5 for s in scores) < len(scores)


def test_a_line_for_each_picture(start, save, json_file, capsys):
    pictures = save("x.png"), save("y.png", 50, 30)
    start("--input", *pictures, "--json", json_file, *EVERYTHING)
    scores = [a["score"] for a in read_json(json_file)["annotations"] if a["image_id"] == 1]
    lines = capsys.readouterr().out.splitlines()
    for picture in pictures:
        (line,) = [line for line in lines if line.startswith(f"{picture}: ")]
        assert re.search(r"\d (cat|dog).* \(\d+\.\d\d s\)$", line)
    assert not any("pictures without results" in line for line in lines)

    start("--input", pictures[0], "--confidence-threshold", 1)
    lines = capsys.readouterr().out.splitlines()
    (hint,) = [line for line in lines if "the best score" in line]
    assert f"is {max(scores):.2f}" in hint and "pictures without results: 1" in lines
    lower = re.search(r"try --confidence-threshold ([\d.]+)$", hint)[1]
    start("--input", pictures[0], "--confidence-threshold", lower)
    assert "without results" not in capsys.readouterr().out


def test_segments_that_are_missed(start, save, capsys):
    start("--input", save("x.png"), "--confidence-threshold", 1, tasks=("panoptic",))
    assert re.search(r"best score .* try --tasks instance, or --conf", capsys.readouterr().out)
    start(
        "--input", save("x.png"), "--confidence-threshold", 1, "model.postprocess.instance=null",
        tasks=("panoptic",),
    )  # fmt: skip
    assert "try a lower --confidence-threshold" in capsys.readouterr().out


def test_many_pictures_without_results_are_looked_at_once(start, save, tmp_path, capsys):
    for i in range(prediction.LOOKS_AGAIN + 2):
        save(f"in/{i}.png")
    start("--input", tmp_path / "in", "--confidence-threshold", 1)
    shown = capsys.readouterr().out
    assert (
        shown.count("the best score") == prediction.LOOKS_AGAIN
        and shown.count("no objects") == prediction.LOOKS_AGAIN + 2
    )


def test_fewer_detections(start, save, json_file):
    counts = []
    for limit in (100, 10):
        start("--input", save("x.png"), "--json", json_file, *EVERYTHING, "--max-detections", limit)
        counts.append(len(read_json(json_file)["annotations"]))
    assert 0 < counts[1] <= 10 < counts[0]


def test_all_tasks(start, save, output, json_file):
    start("--input", save("x.png"), "--json", json_file, tasks=("instance", "panoptic", "semantic"))
    assert files_in(output) == ["x_instance.png", "x_panoptic.png", "x_semantic.png"]
    pictures = [np.asarray(Image.open(output / name)) for name in files_in(output)]
    assert not np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[1], pictures[2])
    for task in ("instance", "semantic"):
        assert COCO(json_file.with_stem(f"found_{task}")).imgs[1]["file_name"].endswith("x.png")
    (entry,) = read_json(json_file.with_stem("found_panoptic"))["annotations"]
    rgb = np.asarray(Image.open(json_file.parent / "found_panoptic" / entry["file_name"])).astype(int)
    assert set(np.unique(rgb @ [1, 256, 65536])) - {0} == {s["id"] for s in entry["segments_info"]}


@pytest.mark.parametrize(
    ("without", "task"),
    [([], "panoptic"), (["panoptic"], "instance"), (["panoptic", "instance"], "semantic")],
)
def test_one_task_by_default(folder, save, output, without, task):
    arguments = ["--model", folder, "--input", save("x.png"), "--output", output]
    changes = [f"model.postprocess.{other}=null" for other in without]
    run(parse_arguments([str(a) for a in (*arguments, *changes)]))
    assert files_in(output) == [f"x_{task}.png"]


def test_json_alone(folder, save, json_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", folder, "--input", save("x.png"), "--json", json_file]
    run(parse_arguments([str(a) for a in arguments]))
    assert files_in(tmp_path) == ["found.json", "found/000001.png", "x.png"]


def test_a_corrupt_file_does_not_end_the_run(start, save, output, json_file, tmp_path, capsys):
    save("in/a.png")
    save("in/c.png", 50, 30)
    (tmp_path / "in/b.jpg").write_text("no picture")
    (tmp_path / "in/d.png").write_bytes((tmp_path / "in/a.png").read_bytes()[:-200])
    with pytest.raises(SystemExit) as stopped:
        start("--input", tmp_path / "in", "--json", json_file, "--batch-size", 2)
    assert stopped.value.code == 1
    assert files_in(output) == ["a_instance.png", "c_instance.png"]
    assert [Path(i["file_name"]).name for i in read_json(json_file)["images"]] == ["a.png", "c.png"]
    shown = capsys.readouterr().out
    assert "b.jpg cannot be decoded" in shown and "d.png cannot be decoded" in shown
    assert "left out because they could not be read: 2" in shown


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("empty", "no image or video"),
        ("*.jpg", "no image or video"),
        ("none.png", "no file, folder or match of a pattern"),
    ],
)
def test_nothing_to_do(refused, output, tmp_path, monkeypatch, source, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(prediction, "load", None)  # it fails before the model is loaded
    error = refused("--input", tmp_path / source)
    assert message in error and source in error
    assert not output.exists()


def test_inputs_are_not_overwritten(refused, save, tmp_path):
    save("in/x.jpg")
    before = save("in/x_instance.png").read_bytes()
    error = refused("--input", tmp_path / "in", "--output", tmp_path / "in")
    assert "x_instance.png" in error and "give another --output" in error
    assert (tmp_path / "in/x_instance.png").read_bytes() == before


def test_errors_of_the_model_are_readable(refused, save, tmp_path):
    assert "no config, weights file or folder" in refused(
        "--input", save("x.png"), "--model", tmp_path / "no"
    )
    assert "max_detections" in refused(
        "--input", save("x.png"), "--device", "cpu", "model.postprocess.instance.max_detection=3"
    )
    assert "from 0 to 1" in refused("--input", save("x.png"), "--confidence-threshold", "50")


def test_a_video_has_its_frames_rate_and_size(start, video, save, output, json_file):
    clip = video("clip.mp4")
    start(
        "--input", clip, save("x.png"), "--json", json_file, "--batch-size", 3, *EVERYTHING,
        tasks=("instance", "semantic"),
    )  # fmt: skip
    assert files_in(output) == [
        "clip_instance.mp4", "clip_semantic.mp4", "x_instance.png", "x_semantic.png",
    ]  # fmt: skip
    _, originals = frames_of(clip)
    reader, frames = frames_of(output / "clip_instance.mp4")
    assert (reader.fps, reader.size, len(frames)) == (12, (48, 64), 6)
    changes = [np.abs(f.astype(int) - o).mean() for f, o in zip(frames, originals, strict=True)]
    assert min(changes) > 10  # something is drawn on each
    images = read_json(json_file.with_stem("found_instance"))["images"]
    assert [i.get("frame") for i in images] == [None, 0, 1, 2, 3, 4, 5]
    assert {i["file_name"] for i in images[1:]} == {str(clip)}


def test_the_first_frames_of_a_video(start, video, output, json_file):
    start("--input", video("clip.mp4"), "--max-frames", 2, "--json", json_file)
    assert len(frames_of(output / "clip_instance.mp4")[1]) == 2
    assert len(read_json(json_file)["images"]) == 2


def test_a_corrupt_video_does_not_end_the_run(start, video, output, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_text("no video")
    with pytest.raises(SystemExit) as stopped:
        start("--input", tmp_path / "bad.mp4", video("good.mp4"))
    assert stopped.value.code == 1
    assert files_in(output) == ["good_instance.mp4"]
    assert "bad.mp4 gives no frames" in capsys.readouterr().out


def test_a_video_that_ends_early_is_told(start, video, capsys):
    class Cut(VideoReader):
        def __iter__(self):
            yield from list(super().__iter__())[:4]

    start("--input", video("clip.mp4"), open_video=Cut)
    assert "ended after 4 of 6 frames" in capsys.readouterr().out


def test_a_camera_until_ctrl_c(start, output, json_file, monkeypatch, capsys):
    pytest.importorskip("cv2")
    cameras = []
    # A second passes with each look at the clock, and a camera has 10 frames in it.
    monkeypatch.setattr(prediction, "monotonic", iter(range(100)).__next__)
    start(
        "--webcam", 3, "--json", json_file,
        open_video=lambda number: cameras.append(Camera(number)) or cameras[-1],
    )  # fmt: skip
    assert cameras[0].name == "camera 3" and cameras[0].closed
    assert [i["frame"] for i in read_json(json_file)["images"]] == [0, 1, 2, 3, 4]
    reader, frames = frames_of(output / "webcam_instance.mp4")
    assert reader.fps == 10 and len(frames) == 50
    assert "stopped" in capsys.readouterr().out


def test_a_camera_for_some_frames(start, output):
    pytest.importorskip("cv2")
    start("--webcam", 0, "--max-frames", 3, open_video=lambda n: Camera(n, 1000))
    assert len(frames_of(output / "webcam_instance.mp4")[1]) >= 3


def test_a_window_shows_the_camera_until_a_key(start, output, monkeypatch):
    pytest.importorskip("cv2")
    shown = []

    class FakeWindow:
        def __init__(self, title):
            assert title == "camera 0"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            shown.append("closed")

        def show(self, picture):
            shown.append(picture.size)
            return len(shown) == 2

    monkeypatch.setattr(prediction, "Window", FakeWindow)
    start("--webcam", 0, "--show", open_video=Camera)
    assert shown == [(64, 48), (64, 48), "closed"]
    assert (output / "webcam_instance.mp4").is_file()


def test_no_window_without_display(refused, monkeypatch):
    pytest.importorskip("cv2")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "needs a display" in refused("--webcam", 0, "--show", open_video=Camera)


def test_a_camera_that_is_not_there(refused):
    pytest.importorskip("cv2")
    assert "camera 97 gives no frames" in refused("--webcam", 97)


def test_without_opencv(refused, monkeypatch, tmp_path):
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(prediction, "load", None)  # it fails before the model is loaded
    for source in (("--input", tmp_path / "clip.mp4"), ("--webcam", 0)):
        assert "pip install 'detrex-maskdino[video]'" in refused(*source)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--input", "x.png"],
        ["--model", "m"],
        ["--model", "m", "--input", "x.png", "--webcam", "0"],
        ["--model", "m", "--input", "x.png", "--show"],
        ["--model", "m", "--input", "x.png", "--tasks", "depth"],
    ],
)
def test_command_lines_that_make_no_sense(arguments):
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(arguments)
    assert stopped.value.code == 2


def test_from_the_shell(tool, folder, save, output, tmp_path):
    save("in/x.png")
    (tmp_path / "in/bad.png").touch()
    files = ("--model", folder, "--input", tmp_path / "in", "--output", output)
    done = tool("demo.py", *files, "--device", "cpu", "model.class_score.temperature=0.1")
    assert done.returncode == 1, done.stderr
    assert files_in(output) == ["x_panoptic.png"]
    assert "bad.png" in done.stdout and "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("instance", ["--tta"]),
        ("panoptic", ["--tta"]),
        ("semantic", ["--window", "40"]),
        ("panoptic", ["--tiles", "50"]),
        ("instance", ["--tiles", "50", "--max-detections", "7"]),
    ],
)
def test_looking_more_than_once(start, save, json_file, task, words):
    picture, found = save("a.png", 60, 120), []
    for options in ([], words):
        start("--input", picture, "--json", json_file, *EVERYTHING, *options, tasks=[task])
        found.append(read_json(json_file)["annotations"])
    assert found[0] and found[1] and found[0] != found[1]
    assert "--max-detections" not in words or len(found[1]) == 7


def test_windows_are_not_for_objects(refused, save):
    assert "semantic results alone" in refused("--input", save("a.png"), "--window", "40")


def test_objects_of_a_video_are_numbered(start, video, json_file, output):
    pytest.importorskip("trackers")
    start("--input", video("a.mp4"), "--json", json_file, "--track", "--confidence-threshold", "0.2")
    found = read_json(json_file)["annotations"]
    assert found and all(entry["track_id"] >= 1 for entry in found)
    assert (output / "a_instance.mp4").is_file()


def test_pictures_of_a_folder_are_frames(start, save, json_file, output):
    pytest.importorskip("trackers")
    folder = save("frames/2.png", 48, 64).parent
    save("frames/10.png", 48, 64)
    start("--input", folder, "--json", json_file, "--track", "--confidence-threshold", "0.2")
    assert [image["frame"] for image in read_json(json_file)["images"]] == [0, 1]
    assert (output / "frames_instance.mp4").is_file()

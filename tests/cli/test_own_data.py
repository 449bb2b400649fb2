"""``detrex train --data PATH``: what is found, what is chosen, and that it is what then runs."""

import json
import shlex
import shutil

import pytest

from detrex.cli.arguments import read_config
from detrex.cli.commands.train import parse_arguments, run
from detrex.cli.own_data import choose
from detrex.data import DataError
from tests.tools.conftest import SMALL, Data


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Three images of 48 x 64 with a cat and a dog each, for training and for validation."""
    monkeypatch.chdir(tmp_path)
    return Data(tmp_path / "pets")


def settings(choice):
    return dict(word.split("=", 1) for word in choice.overrides)


def test_settings_fit_the_data(data):
    choice = choose(data.root)
    found = settings(choice)
    assert choice.config == "maskdino_custom_instance"
    assert "COCO JSON (instances), 3 images for training, 3 for validation" in choice.words[0]
    assert found["train.output_dir"] == "'output/pets'"
    assert found["model.decoder.query_init.num_queries"] == "50"
    assert found["dataloader.train.mapper.image_size"] == "256"  # the least


def test_crowded_images_get_queries_and_small_objects_get_pixels(data):
    many = [data.object(1, 3, x, side=2) for x in range(0, 60, 3)] * 4
    data.content["annotations"] += many
    data.content["images"] = [{**image, "height": 480, "width": 640} for image in data.content["images"]]
    data.number()
    data.write()
    found = settings(choose(data.root))
    assert found["model.decoder.query_init.num_queries"] == "100"  # for 82
    assert found["model.criterion.points.num_points"] == "4096"
    assert found["dataloader.train.mapper.image_size"] == "640"


def test_the_command_that_is_shown_does_the_same(data):
    choice = choose(data.root, ["optimizer.lr=0.5"])
    shown = choice.command(["optimizer.lr=0.5", "train.amp=bf16"])
    words = shlex.split(shown.replace("\\\n", ""))
    assert words[:2] == ["detrex", "train"]
    config = read_config(parse_arguments(words[2:]))
    assert config.dataloader.train.dataset.images == str(data.root / "train")
    assert (config.optimizer.lr, config.train.amp) == (0.5, "bf16")


def test_one_list_of_images_is_divided(data, tmp_path):
    shutil.rmtree(data.root / "val")
    data.annotations("val").unlink()
    found = settings(choose(data.root, ["train.output_dir=run"]))
    lists = [json.loads((tmp_path / f"run/data/instances_{s}.json").read_text()) for s in ("train", "val")]
    assert [len(part["images"]) for part in lists] == [2, 1]
    assert [len(part["annotations"]) for part in lists] == [4, 2]
    assert not {i["id"] for i in lists[0]["images"]} & {i["id"] for i in lists[1]["images"]}
    assert found["dataloader.test.dataset.annotations"] == "'run/data/instances_val.json'"


def test_boxes_alone_are_for_a_detector(data, capsys):
    for annotation in data.content["annotations"]:
        del annotation["segmentation"]
    data.write()
    small = [word for word in SMALL if "points" not in word]
    run(parse_arguments(["--data", str(data.root), *small, "train.max_iter=1"]))
    assert "detrex train dino_custom_detection" in capsys.readouterr().out
    assert "bbox/AP" in json.loads((data.root.parent / "output/pets/results.json").read_text())["metrics"]


def test_what_lies_there_must_be_data(data):
    with pytest.raises(FileNotFoundError):
        choose(data.root / "nothing")
    (data.root / "words.txt").write_text("words\n")
    with pytest.raises(DataError, match=r"words\.txt"):
        choose(data.root / "words.txt")


def test_nothing_to_learn_from_is_said(data):
    data.content["annotations"] = []
    data.write()
    with pytest.raises(DataError, match="nothing to learn from"):
        choose(data.root)


@pytest.mark.parametrize("words", [[], ["CONFIG.py", "--data", "x"]])
def test_a_config_or_data(words, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(words)
    assert "--data" in capsys.readouterr().err

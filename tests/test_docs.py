"""The commands and code of the documentation run, and the table of models is up to date."""

import importlib
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import detrex
from detrex.checkpoint import zoo_entries
from detrex.checkpoint.published import to_published
from detrex.cli.arguments import read_config
from detrex.cli.commands import submit, train
from detrex.cli.main import COMMANDS
from detrex.cli.zoo_table import markdown
from detrex.config import LazyConfig, instantiate

ROOT = Path(__file__).resolve().parent.parent
# Of commands that have a config, as the pages call them.
MODULES = {"tools/train_net.py": train, "train": train, "tools/submit.py": submit, "submit": submit}
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"(?:<!-- needs (?P<needs>[^>]*) -->\n)?```(?P<kind>bash|python)\n(?P<text>.*?)```", re.S)


@dataclass
class Block:
    page: str
    number: int
    kind: str
    text: str
    needs: str | None

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def blocks() -> list[Block]:
    return [
        Block(page.stem, number, match["kind"], match["text"], match["needs"])
        for page in PAGES
        for number, match in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")), start=1)
    ]


def own_data(folder: Path) -> None:
    """Two images of 64 x 96 for training and for validation, with a square each."""
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for i in (1, 2):
            pixels = np.random.default_rng(i).integers(0, 120, (64, 96, 3), np.uint8)
            pixels[10:40, 20:50] = 255
            Image.fromarray(pixels).save(folder / split / f"{i}.png")
        square = dict(bbox=[20, 10, 30, 30], area=900, segmentation=[[20, 10, 50, 10, 50, 40, 20, 40]])
        content = {
            "images": [{"id": i, "file_name": f"{i}.png", "height": 64, "width": 96} for i in (1, 2)],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, **square} for i in (1, 2)
            ],
            "categories": [{"id": 1, "name": "square"}],
        }
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / f"annotations/instances_{split}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def place(tmp_path_factory, python_folder) -> Path:
    """A folder like a checkout in which someone works: photos, own data, a trained run, a published file."""
    place = tmp_path_factory.mktemp("docs")
    for name in ("tools", "projects", "configs", "tests"):
        (place / name).symlink_to(ROOT / name)
    (place / "photos").mkdir()
    for name in ("first", "second"):
        # So wide that a model of COCO, which makes the longer side 1,333 pixels, has few pixels to look at.
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 144, 3), np.uint8)).save(
            place / f"photos/{name}.jpg"
        )
    own_data(place / "mydata")
    small = (
        "model.encoder.num_layers=1 model.decoder.layers.num_layers=1 dataloader.train.mapper.image_size=64"
    )
    command = (
        "python tools/train_net.py --config-file projects/maskdino/configs/maskdino_custom_instance.py "
        f"dataloader.root=mydata train.output_dir=output/mine train.max_iter=1 {small}"
    )
    done = shell(command, place, python_folder)
    assert done.returncode == 0, done.stderr
    config = LazyConfig.load(ROOT / "projects/maskdino/configs/maskdino_r50_coco_instance_50ep.py")
    model = instantiate(config.model)
    torch.save({"model": to_published(model.state_dict(), model)}, place / "published.pth")
    return place


def shell(text: str, place: Path, python_folder: Path) -> subprocess.CompletedProcess:
    """Runs commands as a user would."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{python_folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
        "DETREX_CACHE": str(place / "cache"),
    }
    return subprocess.run(
        ["bash", "-e", "-c", text], cwd=place, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("block", [b for b in blocks() if b.needs is None], ids=str)
def test_what_the_pages_show_runs(block, place, python_folder):
    text = block.text if block.kind == "bash" else f"python - <<'END_OF_PAGE'\n{block.text}\nEND_OF_PAGE"
    done = shell(text, place, python_folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_what_cannot_run_here_is_left_out():
    elsewhere = {
        "files beside it",
        "GPUs and COCO",
        "several machines",
        "Slurm",
        "wandb",
        "time",
        "detectron2",
        "a port",
        "a server",
        "a video",
        "an evaluated model",
        "docker",
    }
    assert {b.needs for b in blocks()} <= {None, "the network", "COCO", "the parity kit"} | elsewhere
    assert len([b for b in blocks() if b.needs is None]) >= 6


@pytest.mark.parametrize("block", [b for b in blocks() if b.needs and b.kind == "bash"], ids=str)
def test_commands_that_cannot_run_here_have_options_and_keys_that_exist(block, monkeypatch):
    monkeypatch.chdir(ROOT)
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        for name, module in MODULES.items():
            if name in words and words[-1] != name:
                start = words.index(name)
                if words[start - 1] in ("python", "detrex"):
                    arguments = module.parse_arguments(words[start + 1 :])
                    if arguments.config_file is not None:  # else the data says which
                        read_config(arguments)


def test_keys_that_the_page_on_training_names_exist():
    config = LazyConfig.load(ROOT / "projects/maskdino/configs/maskdino_r50_coco_instance_50ep.py")
    nodes = OmegaConf.to_container(config, resolve=False)
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\+?(?:train|model|dataloader|optimizer|scheduler)\.[\w.]+)(=[^`]*)?`", page)
    assert len(named) > 30
    for key, value in named:
        if value:
            LazyConfig.apply_overrides(config, [key + value])
        else:
            reduce(getitem, key.split("."), nodes)


def test_the_table_of_models_is_that_of_the_zoo():
    """After a change: ``python tools/model_zoo.py --markdown`` below the page's introduction."""
    page = (ROOT / "docs/model_zoo.md").read_text(encoding="utf-8")
    assert page[page.index("| name |") :] == markdown(list(zoo_entries().values()))


def test_the_picture_and_the_table_of_the_family_are_up_to_date():
    """After a change: ``python docs/site/family.py``."""
    family = runpy.run_path(str(ROOT / "docs/site/family.py"))
    assert set(family["FAMILY"]) == {path.parent.name for path in ROOT.glob("projects/*/README.md")}
    assert (ROOT / "docs/images/family.svg").read_text(encoding="utf-8") == family["picture"]()
    page = (ROOT / "docs/family.md").read_text(encoding="utf-8")
    assert page == family["with_table"](page)


def test_the_commands_of_the_front_page_have_options_that_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "output/mydata"  # the folder of the run that the page evaluates
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    blocks = [match for match in BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8"))]
    lines = [line for block in blocks if block["kind"] == "bash" for line in block["text"].splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("detrex ")]
    assert {name for name, *_ in commands} >= {"train", "predict", "check", "eval"}
    for name, *words in commands:
        module = importlib.import_module(f"detrex.cli.commands.{COMMANDS[name].module}")
        options = module.parse_arguments(words)
        if name == "train" and options.config_file:
            read_config(options)


def test_the_code_of_the_front_page_names_what_there_is():
    for block in BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8")):
        if block["kind"] == "python":
            compile(block["text"], "README.md", "exec")
            for name in re.findall(r"\bdetrex\.(\w+)", block["text"]):
                assert hasattr(detrex, name)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target

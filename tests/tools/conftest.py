"""Small data sets of one's own, and runs of a small Mask DINO on them as from the command line."""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detrex.cli.commands.train import parse_arguments, run

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "projects/maskdino/configs/maskdino_custom_instance.py"
HEIGHT, WIDTH = 48, 64
CATEGORIES = {3: "cat", 7: "dog"}  # ids with gaps

SMALL = (
    "model.backbone.name=test_resnet",
    "model.backbone.options={}",
    "model.encoder.num_layers=1",
    "model.decoder.layers.num_layers=1",
    "model.decoder.query_init.num_queries=10",
    "model.criterion.points.num_points=64",
    "dataloader.train.mapper.image_size=64",
    "dataloader.train.total_batch_size=2",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "train.device=cpu",
    "train.max_iter=2",
    "train.log_period=1",
    "train.pictures.count=1",
)


class Data:
    """Three images of one cat and one dog each, for training and for evaluation alike."""

    def __init__(self, root: Path):
        self.root = root
        for split in ("train", "val"):
            (root / split).mkdir(parents=True)
            for i in range(1, 4):
                self.save(split, i, np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
        images = [{"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in range(1, 4)]
        self.content = {
            "images": images,
            "annotations": [self.object(i, *place) for i in range(1, 4) for place in ((3, 5), (7, 30))],
            "categories": [{"id": i, "name": name} for i, name in CATEGORIES.items()],
        }
        self.number()
        self.write()

    @staticmethod
    def object(image: int, category: int, x: int, side: int = 15) -> dict:
        """A square, 8 pixels from the top of the image."""
        corners = [x, 8, x + side, 8, x + side, 8 + side, x, 8 + side]
        return {
            "image_id": image,
            "category_id": category,
            "bbox": [x, 8, side, side],
            "area": side * side,
            "iscrowd": 0,
            "segmentation": [corners],
        }

    def number(self) -> None:
        for i, annotation in enumerate(self.content["annotations"], start=1):
            annotation["id"] = i

    def save(self, split: str, number: int, pixels: np.ndarray) -> None:
        Image.fromarray(pixels).save(self.root / split / f"{number}.png")

    def annotations(self, split: str) -> Path:
        return self.root / f"annotations/instances_{split}.json"

    def write(self, *splits: str) -> None:
        """Brings ``content`` to the files of ``splits``, by default of both."""
        for split in splits or ("train", "val"):
            self.annotations(split).parent.mkdir(exist_ok=True)
            self.annotations(split).write_text(json.dumps(self.content))


@dataclass
class Run:
    """What a finished run left."""

    output: Path

    @property
    def steps(self) -> list[dict]:
        """Metrics of every training step, but times and memory."""
        lines = map(json.loads, (self.output / "metrics.jsonl").read_text().splitlines())
        varying = ("_time", "_mb")
        return [{k: v for k, v in m.items() if not k.endswith(varying)} for m in lines if "loss" in m]

    @property
    def results(self) -> dict:
        return json.loads((self.output / "results.json").read_text())

    @property
    def log(self) -> str:
        return (self.output / "log.txt").read_text()


@pytest.fixture
def data(tmp_path):
    return Data(tmp_path / "data")


@pytest.fixture
def train(tmp_path, data):
    """``train(*arguments)`` is a run of ``tools/train_net.py`` on ``data`` in this process."""

    def start(*arguments: str, output: str = "run") -> Run:
        folder = tmp_path / output
        if not {"--resume", "--eval-only"} & set(arguments):
            shutil.rmtree(folder, ignore_errors=True)
        places = (f"dataloader.root={data.root}", f"train.output_dir={folder}")
        run(parse_arguments(["--config-file", str(CONFIG), *places, *SMALL, *arguments]))
        return Run(folder)

    return start


@pytest.fixture
def refused(train, caplog):
    """``refused(*arguments)`` is the one message with which such a run ends, of exit code 1."""

    def start(*arguments: str, **options: str) -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as stopped:
            train(*arguments, **options)
        assert stopped.value.code == 1
        (error,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert "Traceback" not in error
        return error

    return start

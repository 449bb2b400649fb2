"""A model, data and an evaluator that are as small as can be, for tests of training runs."""

from __future__ import annotations

import torch
from torch import nn

from detrex.runtime.distributed import all_gather_objects, rank, world_size
from detrex.structures import Categories

FEATURES = 6
IMAGES = 12


class Killed(BaseException):
    """Stands for the end of a process: nothing may handle it."""


class Dataset:
    """Vectors as images; an image's class is the index of its largest entry, modulo the number of classes."""

    def __init__(self, num_classes: int = 3, prefix: str = "class"):
        self.categories = Categories.from_names([f"{prefix} {i}" for i in range(num_classes)])
        self._vectors = torch.randn(IMAGES, FEATURES, generator=torch.Generator().manual_seed(7))

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> dict:
        vector = self._vectors[index]
        label = int(vector.argmax()) % len(self.categories)
        return {"image": vector, "image_id": index, "file_name": f"{index}.png", "label": label}


class TrainLoader:
    """Endless batches with a position that can be restored; drawn with generators of its own.

    ``poisoned``: the number of the batch (from 0) whose first image is not a number; ``killed_at``: of the
    one in which the process ends.
    """

    def __init__(
        self,
        dataset: Dataset,
        total_batch_size: int = 4,
        shuffle: bool = True,
        poisoned: int | None = None,
        killed_at: int | None = None,
    ):
        self.dataset = dataset
        self._killed_at = killed_at
        self._batch_size = total_batch_size
        self._shuffle = shuffle
        self._poisoned = poisoned
        self._position = 0

    def __iter__(self):
        while True:
            if self._position == self._killed_at:
                raise Killed
            samples = self.batch(self._position)[rank() :: world_size()]
            if self._position == self._poisoned and rank() == world_size() - 1:
                samples[0]["image"] = samples[0]["image"] * float("nan")
            self._position += 1
            yield samples

    def batch(self, position: int) -> list[dict]:
        order = list(range(len(self.dataset)))
        if self._shuffle:
            generator = torch.Generator().manual_seed(position)
            order = torch.randperm(len(order), generator=generator).tolist()
            return [self.dataset[i] for i in order[: self._batch_size]]
        return [self.dataset[i % len(order)] for i in range(position, position + self._batch_size)]

    def state_dict(self) -> dict:
        return {"position": self._position}

    def load_state_dict(self, state: dict) -> None:
        self._position = state["position"]


class TestLoader:
    """This process's share of the images in batches of one."""

    __test__ = False

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __iter__(self):
        return ([self.dataset[i]] for i in range(rank(), len(self.dataset), world_size()))


class Model(nn.Module):
    """Classifies vectors; has a backbone, a norm, an embedding and dropout."""

    def __init__(self, num_classes: int = 3, dropout: float = 0.3, width: int = 8):
        super().__init__()
        self.num_classes = num_classes
        self.backbone = nn.Linear(FEATURES, width)
        self.norm = nn.LayerNorm(width)
        self.level_embed = nn.Parameter(torch.zeros(1, width))
        self.query = nn.Embedding(1, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)

    def forward(self, samples):
        return self.losses(samples) if self.training else self.detect(samples)

    def logits(self, samples):
        images = torch.stack([s["image"] for s in samples]).to(self.head.weight)
        features = self.norm(self.backbone(images).relu()) + self.level_embed + self.query.weight
        return self.head(self.dropout(features))

    def detect(self, samples):
        checksum = float(sum(p.double().sum() for p in self.parameters()))
        return [{"label": int(label), "checksum": checksum} for label in self.logits(samples).argmax(-1)]

    def losses(self, samples):
        logits = self.logits(samples)
        labels = torch.tensor([s["label"] for s in samples], device=logits.device)
        return {
            "loss_class": nn.functional.cross_entropy(logits, labels),
            "loss_size": 0.01 * logits.square().mean(),
        }


class Accuracy:
    """Share of right classes in percent. Draws random numbers, which must not change training."""

    def __init__(self):
        self.reset()
        self.per_class = {}

    def reset(self) -> None:
        self._right: list[bool] = []

    def process(self, samples, outputs) -> None:
        self._right += [o["label"] == s["label"] for s, o in zip(samples, outputs, strict=True)]

    def metric_names(self) -> list[str]:
        return ["dummy/accuracy"]

    def evaluate(self) -> dict[str, float]:
        torch.rand(3)
        right = [value for one in all_gather_objects(self._right) for value in one]
        assert len(right) == IMAGES
        return {"dummy/accuracy": 100 * sum(right) / len(right)}


class Given:
    """Returns ``values`` one after another; where one is None, the process ends."""

    def __init__(self, name: str, values: list[float | None]):
        self._name, self._values = name, iter(values)
        self.per_class = {}

    def reset(self) -> None:
        pass

    def process(self, samples, outputs) -> None:
        pass

    def evaluate(self) -> dict[str, float]:
        if (value := next(self._values)) is None:
            raise Killed
        return {self._name: value}


class Broken(Given):
    """Fails when it is to give metrics."""

    def __init__(self):
        super().__init__("dummy/accuracy", [])

    def evaluate(self) -> dict[str, float]:
        raise RuntimeError("no metrics")

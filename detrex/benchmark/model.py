"""Runs a config's model for measurements: inference or training steps, their parts and memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR

from detrex.benchmark.machine import describe_machine, memory, reset_peak_memory
from detrex.benchmark.parts import PartTimes
from detrex.benchmark.timing import Clock, Duration
from detrex.config import ConfigError, instantiate
from detrex.config.untrusted import load_config_file
from detrex.engine import Trainer
from detrex.engine.parallel import compile_modules
from detrex.engine.settings import prepare_device
from detrex.engine.weights import load_initial
from detrex.modeling.build import build_model, prepare_detector
from detrex.runtime.device import autocast
from detrex.structures import Sample, Targets


@dataclass(frozen=True)
class Setup:
    """What is measured.

    Attributes:
        config_file, overrides: the config; ``train.device``, its precision, ``train.compile``,
            ``train.keep_memory`` and ``train.init_checkpoint`` count as in any run. Without the latter,
            weights are random.
        training: training steps instead of inference.
        size: (height, width) of the images in pixels, before padding.
        batch: number of images in a run.
        objects: number in every image, in training.
        threads: of PyTorch on the CPU; None for its default.
        trust_code: allow a config beside weights to name any code.
    """

    config_file: str
    overrides: tuple[str, ...] = ()
    training: bool = False
    size: tuple[int, int] = (800, 1333)
    batch: int = 1
    objects: int = 8
    threads: int | None = None
    trust_code: bool = False

    def config(self) -> DictConfig:
        """The config with its overrides.

        Raises:
            ConfigError: there is no such config, or it has no model, or no training if that is measured.
        """
        config = load_config_file(self.config_file, list(self.overrides), self.trust_code)
        needed = ["model", "train", *(["optimizer"] if self.training else [])]
        if missing := [name for name in needed if name not in config]:
            raise ConfigError(f"{self.config_file} has no {', '.join(missing)}, which this benchmark needs")
        return config


@dataclass(frozen=True)
class Run:
    """The duration of one run, and the seconds of its parts."""

    duration: Duration
    parts: dict[str, float]


class Subject:
    """A model that can be run repeatedly on the same synthetic images.

    Attributes:
        device: of the model.
        step: runs once without measuring time.
    """

    def __init__(self, setup: Setup):
        if setup.threads is not None:
            torch.set_num_threads(setup.threads)
        config = setup.config()
        torch.manual_seed(config.train.seed)
        self.device = prepare_device(config.train)
        self._clock = Clock(self.device)
        self._parts = PartTimes(self._clock)
        model = build_model(config.model, self.device)
        if config.train.init_checkpoint:
            load_initial(model, config, None)
        if not setup.training:
            prepare_detector(model.eval())
        compile_modules(model, **config.train.compile)
        self._parts.watch(model)
        samples = make_samples(setup, model.num_classes)
        prepare = self._training if setup.training else self._inference
        self.step = prepare(model, samples, config)
        reset_peak_memory(self.device)
        self._memory_before, _ = memory(self.device)

    def run(self) -> Run:
        """Runs inference once, results included, or a training step."""
        parts: dict[str, float] = {}

        def step() -> None:
            self._parts.start()
            self.step()
            parts.update(self._parts.stop())

        return Run(self._clock.time(step), parts)

    def facts(self) -> dict[str, Any]:
        """The machine, the bytes in use before the first run, and the peak until now, for JSON."""
        return {
            "machine": describe_machine(self.device),
            "memory_before": self._memory_before,
            "peak_memory": memory(self.device)[1],
        }

    def _inference(self, model: nn.Module, samples: list[Sample], config: DictConfig) -> Callable[[], None]:
        model.eval()

        def step() -> None:
            with torch.inference_mode(), autocast(config.train.amp, self.device):
                model(samples)

        return step

    def _training(self, model: nn.Module, samples: list[Sample], config: DictConfig) -> Callable[[], None]:
        optimizer = instantiate(config.optimizer, model=model)
        self._parts.watch_optimizer(optimizer)
        trainer = Trainer(
            model,
            itertools.repeat(samples),
            optimizer,
            ConstantLR(optimizer, factor=1.0),
            max_iter=0,
            output_dir=config.train.output_dir,
            amp=config.train.amp,
            max_norm=config.train.clip_grad.max_norm,
            norm_type=config.train.clip_grad.norm_type,
        )

        def step() -> None:
            trainer.max_iter += 1
            trainer.train()

        return step


def make_samples(setup: Setup, num_classes: int) -> list[Sample]:
    """Images of noise, always the same; in training, with ellipses of all sizes at random places."""
    generator = torch.Generator().manual_seed(0)
    height, width = setup.size
    samples = []
    for number in range(setup.batch):
        image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
        sample = Sample(image=image, image_id=number, file_name=f"noise {number}", height=height, width=width)
        if setup.training:
            boxes, masks = random_ellipses(setup.objects, setup.size, generator)
            labels = torch.randint(num_classes, (setup.objects,), generator=generator)
            sample["targets"] = Targets(labels, boxes, masks, torch.ones_like(labels, dtype=torch.bool))
        samples.append(sample)
    return samples


def random_ellipses(count: int, size: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4), xyxy in pixels, and the masks (N, H, W) bool of the ellipses in them."""
    height, width = size
    scale = torch.tensor([width, height])
    sides = (0.05 + 0.45 * torch.rand(count, 2, generator=generator)) * scale
    corners = torch.rand(count, 2, generator=generator) * (scale - sides)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([x, y], -1)
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    for mask, corner, side in zip(masks, corners, sides, strict=True):
        mask |= ((pixels - corner) * 2 / side - 1).square().sum(-1) <= 1
    return torch.cat([corners, corners + sides], 1), masks

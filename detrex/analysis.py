"""Counts parameters, multiply-adds and activations of a model by module, without computing numbers.

The model is built and run on the meta device, with shapes only: that takes no memory for weights and no time
for arithmetic. One image is followed to all predictions: ``Detector.predict`` and, if there are masks, the
product that makes the masks of all queries.

* **Multiply-adds** (MACs) of convolutions, matrix products and deformable attention's operator, by the
  formulas of ``torch.utils.flop_counter``. Papers call them FLOPs; true floating-point operations are twice
  as many. The tools behind published numbers do not know the operator, so its share is listed separately.
* **Activations**: the output elements of convolutions and matrix products, including those of linear layers
and
  attention, but not of the operator.

Not counted: normalisation, activation functions, softmax, resizing, position encodings, choosing and resizing
results.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from detrex.config import ConfigError, instantiate
from detrex.data import DataError
from detrex.modeling import Detector
from detrex.ops import FLOP_FORMULAS
from detrex.runtime.shapes_only import shapes_only

Size = tuple[int, int]
"""(height, width) in pixels."""

MASK_PRODUCT = "(mask product)"
"""The entry of the product in post-processing among the modules."""


@dataclass(frozen=True)
class Cost:
    """The cost of one image, or of the average image.

    Attributes:
        macs: multiply-adds, including deformable attention's operator.
        operator_macs: the share of the operator.
        activations: output elements of convolutions and matrix products.
    """

    macs: float = 0
    operator_macs: float = 0
    activations: float = 0

    @property
    def macs_without_operator(self) -> float:
        """Multiply-adds as counted by published tools, which do not know the operator."""
        return self.macs - self.operator_macs

    @property
    def flops(self) -> float:
        """Floating-point operations: two for each multiply-add."""
        return 2 * self.macs

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.macs + other.macs,
            self.operator_macs + other.operator_macs,
            self.activations + other.activations,
        )

    def __mul__(self, factor: float) -> Cost:
        return Cost(self.macs * factor, self.operator_macs * factor, self.activations * factor)


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters.

    Attributes:
        total: all of them, each once.
        trainable: those that an optimizer may change.
    """

    total: int = 0
    trainable: int = 0

    def __add__(self, other: Parameters) -> Parameters:
        return Parameters(self.total + other.total, self.trainable + other.trainable)


@dataclass(frozen=True)
class ImageCost:
    """The cost of a model for an image, or the mean cost for several.

    Attributes:
        sizes: of the images that the model gets.
        padded: these sizes after padding each image alone.
        modules: mean cost by dotted name of the module (the model itself is ``""``), for computations outside
            its submodules. :data:`MASK_PRODUCT` is a separate entry.
    """

    sizes: tuple[Size, ...]
    padded: tuple[Size, ...]
    modules: dict[str, Cost]

    @property
    def total(self) -> Cost:
        """Sums over all modules."""
        return sum(self.modules.values(), Cost())


@dataclass(frozen=True)
class Row:
    """A module with everything in it.

    Attributes:
        name: dotted; ``""`` is the whole model. The last row within a module may have its name followed by
            ``" itself"``, for parameters and computations outside its submodules.
        depth: 0 for the model, 1 for its parts, and so on.
        parameters, cost: of the module, and the sum of the rows one level deeper that follow, if any.
    """

    name: str
    depth: int
    parameters: Parameters
    cost: Cost


def build_on_meta(config: DictConfig) -> Detector:
    """The model of a whole config, on the meta device and in evaluation mode. Nothing is downloaded.

    Raises:
        ConfigError: the config has no model, or it is not a :class:`~detrex.modeling.Detector`.
    """
    if not isinstance(config.get("model"), DictConfig):
        raise ConfigError("the config describes no 'model': needed is a config as for tools/train_net.py")
    if "pretrained" in (config.model.get("backbone") or {}):
        config = copy.deepcopy(config)
        config.model.backbone.pretrained = False
    with shapes_only():
        model = instantiate(config.model)
    if not isinstance(model, Detector):
        raise ConfigError(f"'model' is of class {type(model).__name__}; what can be analysed is a Detector")
    return model.eval()


def count_parameters(model: nn.Module) -> dict[str, Parameters]:
    """Parameters by dotted name of their module; a parameter with several names counts at the first one."""
    counts: dict[str, Parameters] = defaultdict(Parameters)
    for name, parameter in model.named_parameters():
        size = parameter.numel()
        counts[name.rpartition(".")[0]] += Parameters(size, size * parameter.requires_grad)
    return dict(counts)


def measure(model: Detector, sizes: Sequence[Size]) -> ImageCost:
    """The mean cost of images of the given sizes, processed one by one.

    Args:
        model: on the meta device, in evaluation mode; see :func:`build_on_meta`.
        sizes: of images as they come to the model: resized, not padded.
    """
    padded = [model.preprocess([_image(size)]).padded_size for size in sizes]
    total: dict[str, Cost] = defaultdict(Cost)
    # Padding is all that a model sees of an image's size.
    for size, count in Counter(padded).items():
        for name, cost in _measure_one(model, size).items():
            total[name] += cost * (count / len(sizes))
    return ImageCost(tuple(sizes), tuple(padded), dict(total))


def evaluation_sizes(config: DictConfig, count: int) -> list[Size]:
    """(height, width) of the first ``count`` test images of a config, as resized for evaluation.

    Images are not opened: the mapper of ``config.dataloader.test`` gets images without content.

    Raises:
        ConfigError: the config has no such data set and mapper.
        DataError: the data set has fewer images.
    """
    loader: Any = (config.get("dataloader") or {}).get("test") or {}
    if not {"dataset", "mapper"} <= set(loader):
        raise ConfigError(
            "the config has no dataloader.test with a 'dataset' and a 'mapper', from which sizes of images "
            "could be taken; give them with --input HEIGHTxWIDTH"
        )
    dataset, mapper = instantiate(loader.dataset), instantiate(loader.mapper)
    if len(dataset) < count:
        raise DataError(f"{count} images are asked for, but dataloader.test.dataset has {len(dataset)}")
    sizes = []
    for index in range(count):
        height, width = dataset.image_size(index)
        record = {**_image((height, width)), "height": height, "width": width}
        sizes.append(tuple(mapper({**record, "image_id": index, "file_name": ""})["image"].shape[-2:]))
    return sizes


def table(parameters: dict[str, Parameters], cost: ImageCost, depth: int) -> list[Row]:
    """The tree of modules down to ``depth``, in the model's order, without modules that cost nothing.

    Args:
        parameters: from :func:`count_parameters`.
        cost: of an image through the same model.
        depth: 1 or more.
    """
    names = dict.fromkeys([*parameters, *cost.modules])
    entries = [(n, parameters.get(n, Parameters()), cost.modules.get(n, Cost())) for n in names]
    return list(_rows("", [e for e in entries if e[1] != Parameters() or e[2] != Cost()], 0, depth))


_Entry = tuple[str, Parameters, Cost]


def _rows(name: str, entries: list[_Entry], level: int, depth: int) -> Iterator[Row]:
    """The row of ``name``, which holds all ``entries``, and the rows within it."""
    yield _sum(name, level, entries)
    inside: dict[str, list[_Entry]] = defaultdict(list)
    for entry in entries:
        # A name with one more part, unless the entry belongs to the module itself.
        inside[".".join(entry[0].split(".")[: level + 1])].append(entry)
    direct = inside.pop(name, [])
    if level == depth or not inside:
        return
    for child, members in inside.items():
        yield from _rows(child, members, level + 1, depth)
    if direct:
        yield _sum(f"{name} itself".strip(), level + 1, direct)


def _sum(name: str, level: int, entries: list[_Entry]) -> Row:
    parameters = sum((p for _, p, _ in entries), Parameters())
    return Row(name, level, parameters, sum((c for _, _, c in entries), Cost()))


def _image(size: Size) -> Any:
    """A sample that holds only an image, without content or memory."""
    return {"image": torch.empty(3, *size, dtype=torch.uint8, device="meta")}


def _measure_one(model: Detector, size: Size) -> dict[str, Cost]:
    # A copy, for the hooks, and because PyTorch's counter fails for views of trained parameters.
    model = copy.deepcopy(model).requires_grad_(False)
    images = model.preprocess([_image(size)])
    macs = FlopCounterMode(display=False)
    outputs = FlopCounterMode(display=False, custom_mapping=_OUTPUTS)
    # Versions differ in the fused operators of attention that they count; all count its two matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), macs, outputs:
        tally = _Tally(macs, outputs)
        tally.follow(model)
        prediction = model.predict(images)
        tally.enter(MASK_PRODUCT)
        if prediction.final.mask_embed is not None and prediction.pixel_embed is not None:
            prediction.final.mask_logits(prediction.pixel_embed)
        tally.leave()
    return {name: cost for name, cost in tally.costs.items() if cost != Cost()}


class _Tally:
    """Splits the results of two counters, FLOPs and elements, by the innermost running module.

    PyTorch's counter also splits, but by names that it learns from calls: it does not know a module if only a
    method of it is called, and treats its submodules as separate models.
    """

    def __init__(self, flops: FlopCounterMode, outputs: FlopCounterMode):
        self._flops, self._outputs = flops, outputs
        self.costs: dict[str, Cost] = defaultdict(Cost)
        self._running = [""]
        self._settled = Cost()

    def follow(self, model: nn.Module) -> None:
        """Splits the work of the model from now on; its hooks stay."""
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: self.enter(name))
            module.register_forward_hook(lambda *_: self.leave())

    def enter(self, name: str) -> None:
        self._settle()
        self._running.append(name)

    def leave(self) -> None:
        self._settle()
        self._running.pop()

    def _settle(self) -> None:
        flops, outputs = (c.flop_counts["Global"] for c in (self._flops, self._outputs))
        of_operator = sum(flops[operator] for operator in FLOP_FORMULAS)
        now = Cost(sum(flops.values()) // 2, of_operator // 2, sum(outputs.values()))
        self.costs[self._running[-1]] += now + self._settled * -1
        self._settled = now


def _elements(*_: Any, out_shape: Sequence[int], **__: Any) -> int:
    return prod(out_shape)


def _nothing(*_: Any, **__: Any) -> int:
    return 0


_OUTPUTS = {o: _nothing if o in FLOP_FORMULAS else _elements for o in flop_registry}
"""Functions that count output elements of all operators with formulas, except deformable attention's."""

"""Uses detectron2's data sets, backbones, evaluators, pictures and loops with our models.

detectron2 is not on a package index; ``docs/coming_from.md`` says how to install it. It is imported only
where it is used, so that this module can be imported without it.

Shape letters: N objects, H and W pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from detrex.config.lazy import locate
from detrex.config.walking import PARTIAL, TARGET
from detrex.data.coco.panoptic import read_segment_ids
from detrex.data.coco.reader import ImageEntry
from detrex.data.coco.segmentation import rasterise, read_segmentation
from detrex.data.errors import DataError
from detrex.data.image_dataset import ImageDataset
from detrex.data.image_io import image_facts, read_label_map
from detrex.modeling import Detector
from detrex.modeling.backbones.timm_backbone import check_ascending
from detrex.structures import Categories, Instances, Sample, Targets, boxes_from_masks

Task = Literal["instances", "semantic", "panoptic"]

_BOUND = "detrex.interop.detectron2.bind"


def to_instances(instances: Instances) -> Any:
    """Our instances as ``detectron2.structures.Instances`` on the CPU, for its visualisers and evaluators."""
    from detectron2.structures import Boxes
    from detectron2.structures import Instances as TheirInstances

    ours = instances.to("cpu")
    fields = {"pred_boxes": Boxes(ours.pred_boxes), "scores": ours.scores, "pred_classes": ours.pred_classes}
    if ours.has("pred_masks"):
        fields["pred_masks"] = ours.pred_masks
    return TheirInstances(ours.image_size, **fields)


def to_output(result: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the result of our models for one image to the form that detectron2's evaluators take.

    Args:
        result: from :meth:`detrex.modeling.Detector.detect`.
    """
    output = dict(result)
    if "instances" in output:
        output["instances"] = to_instances(output["instances"])
    return output


class Detectron2Model(nn.Module):
    """One of our models with detectron2's interface, which takes its dictionaries and returns its results.

    It trains in detectron2's loops with its data loaders, and runs in its ``inference_on_dataset``.

    Args:
        model: one of our models.
        image_format: order of the channels in detectron2's images; its default is ``"BGR"``.
        ignore_label: value of unlabelled pixels in ``sem_seg``.
    """

    def __init__(self, model: Detector, image_format: Literal["BGR", "RGB"] = "BGR", ignore_label: int = 255):
        super().__init__()
        self.model, self.image_format, self.ignore_label = model, image_format, ignore_label

    @property
    def device(self) -> torch.device:
        """The device that the parameters are on."""
        return self.model.device

    def forward(
        self, batched_inputs: Sequence[Mapping[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Weighted losses by name in training mode, results in evaluation mode.

        Args:
            batched_inputs: one dictionary per image, with ``image`` (3, H, W) in 0..255 and, optionally,
                ``height`` and ``width`` of the wanted results; in training, also ``instances`` with
                ``gt_boxes``, ``gt_classes`` and, for models with masks, ``gt_masks`` (bit masks or polygons),
                or ``sem_seg`` (H, W) of class indices, each of which becomes one region.

        Raises:
            ValueError: an image's dictionary has no ground truth.
        """
        samples = [self._sample(entry) for entry in batched_inputs]
        if self.training:
            return self.model.losses(samples)
        return [to_output(result) for result in self.model.detect(samples)]

    def _sample(self, entry: Mapping[str, Any]) -> Sample:
        image = entry["image"].flip(0) if self.image_format == "BGR" else entry["image"]
        facts = {key: entry[key] for key in ("height", "width", "image_id", "file_name") if key in entry}
        sample = Sample(image=image, **facts)  # type: ignore[typeddict-item]  # keys are those of a sample
        if self.training:
            sample["targets"] = self._targets(entry)
        return sample

    def _targets(self, entry: Mapping[str, Any]) -> Targets:
        if "instances" in entry:
            return targets_from_instances(entry["instances"])
        if "sem_seg" not in entry:
            raise ValueError(
                f"image {entry.get('image_id', '?')} ({entry.get('file_name', 'no file name')}) has neither "
                "'instances' nor 'sem_seg', which training needs: is the loader's mapper one for training?"
            )
        label_map = entry["sem_seg"].long().cpu()
        classes = label_map.unique()
        classes = classes[classes != self.ignore_label]
        return _regions(
            classes, label_map == classes[:, None, None], torch.zeros_like(classes, dtype=torch.bool)
        )


def targets_from_instances(instances: Any) -> Targets:
    """Converts ground truth in detectron2's form to targets.

    Args:
        instances: ``detectron2.structures.Instances`` with ``gt_boxes``, ``gt_classes`` and perhaps
            ``gt_masks``.
    """
    labels, masks = instances.gt_classes.cpu(), None
    if instances.has("gt_masks"):
        found = instances.gt_masks
        if hasattr(found, "polygons"):
            height, width = instances.image_size
            masks = _drawn([[p.tolist() for p in polygons] for polygons in found.polygons], (height, width))
        else:
            masks = getattr(found, "tensor", found).bool().cpu()
    return Targets(
        labels, instances.gt_boxes.tensor.cpu().float(), masks, torch.ones(len(labels), dtype=torch.bool)
    )


class CatalogDataset(ImageDataset):
    """A data set that is registered in detectron2's ``DatasetCatalog``, for our loaders and evaluators.

    Args:
        name: under which it is registered.
        task: selects the annotations that become targets: ``annotations`` (instances),
            ``sem_seg_file_name`` (semantic) or ``pan_seg_file_name`` with ``segments_info`` (panoptic).
        ignore_label: value of unlabelled pixels in label maps; None: the value in the catalogue, or 255.

    Raises:
        DataError: there is no such data set, it lists no classes, or an annotation does not fit its image.
    """

    def __init__(self, name: str, task: Task = "instances", ignore_label: int | None = None):
        from detectron2.data import DatasetCatalog, MetadataCatalog

        if name not in DatasetCatalog.list():
            raise DataError(f"detectron2's DatasetCatalog has no '{name}'. Register it before it is used.")
        self.entries: list[dict[str, Any]] = DatasetCatalog.get(name)
        metadata = MetadataCatalog.get(name)  # complete only after the line before
        super().__init__(Path("/"), categories_of(metadata, task))
        self.name, self.task = name, task
        self.ignore_label = metadata.get("ignore_label", 255) if ignore_label is None else ignore_label

    def __len__(self) -> int:
        return len(self.entries)

    def entry(self, index: int) -> ImageEntry:
        entry = self.entries[index]
        return ImageEntry(entry.get("image_id", index), str(Path(entry["file_name"]).absolute()))

    def image_size(self, index: int) -> tuple[int, int]:
        entry = self.entries[index]
        if "height" in entry and "width" in entry:
            return int(entry["height"]), int(entry["width"])
        return image_facts(self.entry(index).file_name).size

    def targets(self, index: int) -> Targets:
        read = {
            "instances": self._objects,
            "semantic": self._semantic_targets,
            "panoptic": self._panoptic_targets,
        }[self.task]
        where = f"{self.name}, image {self.entry(index).image_id}"
        try:
            targets = read(index)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(
                f"{where}: its annotations cannot be read as those of the task '{self.task}' "
                f"({type(error).__name__}: {error})."
            ) from error
        if unknown := sorted(set(targets.labels.tolist()) - set(range(len(self.categories)))):
            raise DataError(
                f"{where}: it has the classes {unknown[:10]}, and {len(self.categories)} are listed."
            )
        return targets

    def _objects(self, index: int) -> Targets:
        from detectron2.structures import BoxMode

        size = self.image_size(index)
        kept = [a for a in self.entries[index].get("annotations", ()) if not a.get("iscrowd", 0)]
        boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in kept]
        labels = torch.tensor([int(a["category_id"]) for a in kept], dtype=torch.int64)
        with_masks = bool(kept) and all("segmentation" in a for a in kept)
        return Targets(
            labels,
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            _drawn([a["segmentation"] for a in kept], size) if with_masks else None,
            torch.ones(len(labels), dtype=torch.bool),
        )

    def _semantic_targets(self, index: int) -> Targets:
        label_map = read_label_map(self.entries[index]["sem_seg_file_name"], self.image_size(index))
        classes = torch.tensor([k for k in np.unique(label_map).tolist() if k != self.ignore_label])
        masks = torch.from_numpy(label_map.astype(np.int64)) == classes[:, None, None]
        return _regions(classes.long(), masks, torch.zeros(len(classes), dtype=torch.bool))

    def _panoptic_targets(self, index: int) -> Targets:
        entry = self.entries[index]
        segment_map = read_segment_ids(Path(entry["pan_seg_file_name"]), self.image_size(index))
        kept = [s for s in entry["segments_info"] if not s.get("iscrowd", 0)]
        ids = torch.tensor([int(s["id"]) for s in kept], dtype=torch.int32)
        labels = torch.tensor([int(s["category_id"]) for s in kept], dtype=torch.int64)
        is_thing = torch.tensor([bool(s.get("isthing", True)) for s in kept], dtype=torch.bool)
        return _regions(labels, torch.from_numpy(segment_map) == ids[:, None, None], is_thing)


def categories_of(metadata: Any, task: Task = "instances") -> Categories:
    """The classes of a data set in detectron2's catalogue, in the order of its contiguous indices.

    Args:
        metadata: ``MetadataCatalog.get(name)``.
        task: things only (instances), or all classes.

    Raises:
        DataError: the metadata lists no classes for the task.
    """
    key = "thing" if task == "instances" else "stuff"
    names = list(metadata.get(f"{key}_classes", []))
    if not names:
        raise DataError(f"detectron2's metadata of '{metadata.name}' has no {key}_classes. Set them.")
    index_of = dict(metadata.get(f"{key}_dataset_id_to_contiguous_id", {}))
    is_thing = [task == "instances"] * len(names)
    if task == "panoptic":
        # Things and stuff share one list of indices, but have separate mappings.
        things = metadata.get("thing_dataset_id_to_contiguous_id", {})
        index_of |= things
        is_thing = [k in set(things.values()) for k in range(len(names))]
    ids = {index: category_id for category_id, index in index_of.items()}
    colors = metadata.get(f"{key}_colors", None)
    plain = Categories.from_names(names)
    return Categories(
        names=tuple(names),
        ids=tuple(ids.get(k, k) for k in range(len(names))),
        is_thing=tuple(is_thing),
        colors=plain.colors if colors is None else tuple((int(r), int(g), int(b)) for r, g, b in colors),
    )


def set_metadata(name: str, categories: Categories, **others: Any) -> Any:
    """Describes our classes in detectron2's ``MetadataCatalog``, for its evaluators and visualiser.

    Args:
        name: of the data set; it need not be registered.
        categories: the classes.
        others: further entries, such as ``json_file`` for its ``COCOEvaluator``.

    Returns:
        The metadata.
    """
    from detectron2.data import MetadataCatalog

    classes = list(zip(categories.names, categories.ids, categories.colors, categories.is_thing, strict=True))
    mapping = {category_id: k for k, (_, category_id, _, _) in enumerate(classes)}
    return MetadataCatalog.get(name).set(
        thing_classes=[name for name, _, _, _ in classes],
        thing_colors=[color for _, _, color, _ in classes],
        thing_dataset_id_to_contiguous_id={i: k for i, k in mapping.items() if classes[k][3]},
        stuff_classes=[name for name, _, _, _ in classes],
        stuff_colors=[color for _, _, color, _ in classes],
        stuff_dataset_id_to_contiguous_id={i: k for i, k in mapping.items() if not classes[k][3]},
        **others,
    )


class Detectron2Backbone(nn.Module):
    """A backbone of detectron2 for our models.

    Args:
        backbone: a ``detectron2.modeling.Backbone``; in configs, a node of it.
        strides: the feature maps to return, finest first; None: all of them.

    Attributes:
        channels: of the maps, by stride: the ``in_channels`` of an encoder.

    Raises:
        ValueError: the backbone has no feature map at one of the strides, or the strides do not ascend.
    """

    def __init__(self, backbone: Any, strides: Sequence[int] | None = None):
        super().__init__()
        shapes = {spec.stride: (name, spec.channels) for name, spec in backbone.output_shape().items()}
        chosen = sorted(shapes) if strides is None else list(strides)
        if missing := sorted(set(chosen) - set(shapes)):
            raise ValueError(f"this backbone has feature maps at strides {sorted(shapes)}, not at {missing}")
        check_ascending(chosen)
        self.backbone = backbone
        self.names = {stride: shapes[stride][0] for stride in chosen}
        self.channels = {stride: shapes[stride][1] for stride in chosen}

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Normalised images (B, 3, H, W) to maps by stride, each (B, C, H / stride, W / stride)."""
        maps = self.backbone(images)
        return {stride: maps[name] for stride, name in self.names.items()}


def lazy_config(config: DictConfig) -> DictConfig:
    """Converts one of our configs, or a node, for detectron2's ``LazyConfig`` and ``instantiate``.

    References are resolved, because its ``instantiate`` builds a part of a config at a time. Nodes for
    partial calls, which it does not have, become calls of :func:`bind`.

    Args:
        config: such as ``LazyConfig.load(find_config("maskdino_shapes")).model``.
    """
    return OmegaConf.create(
        _translated(OmegaConf.to_container(config, resolve=True)), flags={"allow_objects": True}
    )


def bind(function: str, arguments: Mapping[str, Any]) -> Callable:
    """``functools.partial`` of a function by its dotted name; see :func:`lazy_config`."""
    return functools.partial(locate(function), **arguments)


def _translated(value: Any) -> Any:
    if isinstance(value, list):
        return [_translated(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {key: _translated(item) for key, item in value.items()}
    if not plain.pop(PARTIAL, False):
        return plain
    return {TARGET: _BOUND, "function": plain.pop(TARGET), "arguments": plain}


def _drawn(segmentations: Sequence[Any], size: tuple[int, int]) -> Tensor:
    """Masks (N, H, W) bool from polygons and RLE; those that cover nothing are empty."""
    masks = torch.zeros(len(segmentations), *size, dtype=torch.bool)
    for k, segmentation in enumerate(segmentations):
        if (found := read_segmentation(segmentation, size)) is not None:
            masks[k] = rasterise([found[0]], *size)[0]
    return masks


def _regions(labels: Tensor, masks: Tensor, is_thing: Tensor) -> Targets:
    """Targets with boxes around their masks (N, H, W); objects without pixels are left out."""
    visible = masks.flatten(1).any(1)
    labels, masks, is_thing = labels[visible], masks[visible], is_thing[visible]
    return Targets(labels, boxes_from_masks(masks, inclusive=False), masks, is_thing)

"""Graphs of models for prompts: one encodes a picture, the others answer any number of prompts.

``picture.onnx`` takes a picture and returns the inputs of the others; ``prompts.onnx`` answers clicks and
boxes with masks; and ``words.onnx``, for models with a vocabulary, finds what words name.

Shape letters: H and W pixels of the picture, h and w of the padded input, P prompts, G granularities, C
classes, T words of a text, D channels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.export import Dim
from torchvision.ops import box_convert

from detrex.export.capture import SIDES, Captured, ExportError, check, describe, example_pictures, traced
from detrex.export.formats import write_onnx
from detrex.export.graph import Graph, vector, whole
from detrex.modeling.prompts import PromptDetector
from detrex.modeling.text import CosineClassifier, TextDetector, WordEncoder
from detrex.predict import Predictor
from detrex.runtime.exported import PromptGraphs
from detrex.runtime.files import replaced_file
from detrex.structures import PaddedImages, Prompts, Pyramid
from detrex.structures.prompts import BOX, POINT, POINT_SIZE

MOST_PROMPTS, MOST_CLASSES, MOST_WORDS = 256, 256, 16
"""Largest numbers of prompts and classes in a call, and of words in a text."""


class PictureToMemory(Graph):
    """The half of a model that encodes the picture."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Encodes a picture.

        Args:
            images: (1, H, W, 3) uint8 RGB.

        Returns:
            ``frame`` (4,) int64, height and width of the picture and of the resized one; ``pixels``
            (1, D, h / 4, w / 4); and ``memory_0``, ``memory_1``, ..., the levels (1, D, h, w), finest first.
        """
        height, width = images.shape[1:3]
        target = self.target(height, width)
        padded = self.padded(target)
        padded_images = PaddedImages(self.input(images, target, padded), [padded])
        features, memory = self.model.features(padded_images)
        assert self.model.pixel_head is not None
        found = {
            "frame": vector([height, width, *target], images.device).long(),
            "pixels": self.model.pixel_head(features, memory),
        }
        return found | {f"memory_{i}": level for i, level in enumerate(memory.maps())}


class MemoryGraph(Graph):
    """The half of a model that answers, given the outputs of :class:`PictureToMemory`."""

    def sizes(self, frame: Tensor) -> tuple[tuple[int, int], tuple[Tensor, Tensor], tuple[int, int]]:
        """Sizes of the picture, the resized picture and the padded input."""
        height, width, rows, columns = frame.unbind()
        output = []
        for side in (height, width):
            length = whole(side)
            torch._check(length >= SIDES[0])
            torch._check(length <= SIDES[1])
            output.append(length)
        target = rows, columns
        return (output[0], output[1]), target, self.padded(target)


class PromptsToMasks(MemoryGraph):
    """Answers prompts."""

    model: PromptDetector

    def forward(
        self, prompts: Tensor, frame: Tensor, pixels: Tensor, memory: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Masks for prompts.

        Args:
            prompts: (P, 4) float32 boxes, absolute xyxy in pixels of the picture; a click is a box whose
                corners are the same.
            frame, pixels, memory: see :meth:`PictureToMemory.forward`.

        Returns:
            ``masks`` (P, G, H, W) bool, for each prompt from the largest granularity to the smallest, and
            ``quality`` (P, G), the expected IoU of each mask.
        """
        output, target, padded = self.sizes(frame)
        is_click = (prompts[:, :2] == prompts[:, 2:]).all(1)
        boxes = box_convert(prompts, "xyxy", "cxcywh") / frame[[1, 0, 1, 0]]
        boxes = torch.where(
            is_click[:, None], boxes + boxes.new_tensor([0, 0, POINT_SIZE, POINT_SIZE]), boxes
        )
        kind = torch.where(is_click, BOX if self.model.points_as_boxes else POINT, BOX)
        edge = vector([padded[1], padded[0]] * 2, boxes.device).float()
        asked = Prompts((boxes * frame[[3, 2, 3, 2]] / edge)[None], kind[None])
        group = self.model.prompts(asked, self.model.isolated)
        found = self.model.answering(Pyramid.from_maps(list(memory)), pixels, [group]).final
        assert found.mask_embed is not None
        logits = self.masks(found.mask_embed, pixels, output, target, padded).at_output()[0]
        by_level, count = list(self.model.levels), len(self.model.levels)
        return {
            "masks": logits.unflatten(0, (-1, count))[:, by_level] > 0,
            "quality": found.logits[0, :, 0].float().unflatten(0, (-1, count))[:, by_level],
        }


class WordsToResults(MemoryGraph):
    """Finds what words name; for models with a :class:`~detrex.modeling.text.WordEncoder`."""

    model: TextDetector

    def forward(
        self, words: Tensor, score_threshold: Tensor, frame: Tensor, pixels: Tensor, memory: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Finds objects.

        Args:
            words: (C, T) int64 ids of the words of each class, which are their places in the vocabulary from
                1 on, filled up with 0.
            score_threshold: () float32.
            frame, pixels, memory: see :meth:`PictureToMemory.forward`.

        Returns:
            See :func:`detrex.export.results.instances`.
        """
        output, target, padded = self.sizes(frame)
        text = self.model.text
        assert isinstance(text, WordEncoder)
        scaled = text.embed(words) * text.logit_scale.exp()
        classifiers = [module for module in self.model.modules() if isinstance(module, CosineClassifier)]
        before = [classifier.words for classifier in classifiers]
        try:
            for classifier in classifiers:
                classifier.words = scaled
            found = self.model.decode(Pyramid.from_maps(list(memory)), pixels).final
        finally:
            for classifier, kept in zip(classifiers, before, strict=True):
                classifier.words = kept
        assert found.mask_embed is not None
        classes = self.model.postprocess.class_score.probabilities(found.logits.float())
        masks = self.masks(found.mask_embed, pixels, output, target, padded)
        return self.instances(classes, found, masks, score_threshold, output, target, padded)


def answers_prompts(predictor: Predictor) -> bool:
    """Whether a model answers prompts, so that it is exported as several graphs."""
    return isinstance(predictor.model, PromptDetector)


def export_prompts(
    predictor: Predictor,
    folder: str | Path,
    *,
    sides: tuple[int, int] = SIDES,
    name: str = "",
    half: bool = False,
) -> Path:
    """Writes the graphs of a model that answers prompts, as ONNX.

    Args:
        predictor: the model with its preprocessing, on the CPU.
        folder: for the files; created if need be.
        sides: the smallest and the largest height and width of pictures in pixels.
        name: of the model, for the description.
        half: store weights in 16 bits, which halves the files.

    Returns:
        The folder; :func:`detrex.runtime.exported.load_prompts` loads it.

    Raises:
        ExportError: the model takes no prompts, or cannot be exported, see :func:`detrex.export.capture`.
        ImportError: a package is missing.
    """
    folder, model = Path(folder), predictor.model
    if not isinstance(model, PromptDetector):
        raise ExportError("this model takes no clicks and boxes; it is exported as one file")
    if folder.suffix or folder.is_file():
        raise ExportError(
            f"{folder}: a model that answers clicks is several files; name a folder for them, such as "
            f"{folder.with_suffix('')}"
        )
    check(predictor, ("instance",), 1, None, sides, prompts=True)
    if model.mask_padding:
        raise ExportError(
            "the model masks padding, which graphs of prompts do not: set model.mask_padding=false"
        )
    words: tuple[str, ...] | None = None
    if isinstance(model, TextDetector) and isinstance(model.text, WordEncoder):
        words = model.text.tokenizer.words if list(model.templates) == ["{}"] else None
    kept = PromptGraphs(tuple(range(1, len(model.levels) + 1)), words).to_metadata()
    mapper = cast(Any, predictor.mapper)
    images, moving = example_pictures(1, [sides, sides])
    picture = PictureToMemory(model, mapper).eval()
    told = describe(predictor, ("instance",), {}, 1, [sides, sides], name)
    found = traced(picture, (images,), (moving,))
    answers, memory = found[1], [f"memory_{i}" for i in range(len(found[1]) - 2)]
    captured = {"picture": Captured(found[0], told, ["images"], list(answers), (images,))}
    shared = (answers["frame"], answers["pixels"], [answers[level] for level in memory])
    free = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    shared_free = (None, free, [free] * len(memory))
    names = ["frame", "pixels", *memory]
    asked = torch.tensor([[10.0, 20, 10, 20], [5, 5, 60, 80], [30, 30, 30, 30]])
    example = (asked, *shared)
    moving_prompts = {0: Dim("prompts", min=1, max=MOST_PROMPTS)}
    program, outputs = traced(PromptsToMasks(model, mapper).eval(), example, (moving_prompts, *shared_free))
    captured["prompts"] = Captured(program, told, ["prompts", *names], list(outputs), (asked,))
    if words is not None:
        ids = torch.tensor([[1, 2, 3], [2, 0, 0]])
        threshold = torch.tensor(0.0)
        told = describe(predictor, ("instance",), {"score_threshold": 0.0}, 1, [sides, sides], name)
        moving_words = {0: Dim("classes", min=1, max=MOST_CLASSES), 1: Dim("words", min=1, max=MOST_WORDS)}
        graph = WordsToResults(model, mapper).eval()
        program, outputs = traced(graph, (ids, threshold, *shared), (moving_words, None, *shared_free))
        captured["words"] = Captured(
            program, told, ["words", "score_threshold", *names], list(outputs), (ids,)
        )
    for kind, graph_of_kind in captured.items():
        path = write_onnx(graph_of_kind, folder / f"{kind}.onnx", half)
        _complete(path, {"graph": json.dumps(kind), **kept})
    return folder


def _complete(path: Path, more: Mapping[str, str]) -> None:
    """Adds metadata, and removes nodes that no output needs, about which runtimes warn."""
    import onnx

    proto = onnx.load(path)
    graph = proto.graph
    used, nodes = {output.name for output in graph.output}, []
    for node in reversed(graph.node):  # nodes come after what they need
        if used.intersection(node.output):
            nodes.append(node)
            used.update(node.input)
            used.update(name for a in node.attribute for inner in a.g.node for name in inner.input)
    constants = [constant for constant in graph.initializer if constant.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(constants)
    onnx.helper.set_model_props(proto, {**{e.key: e.value for e in proto.metadata_props}, **more})
    with replaced_file(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())

"""The graph that is exported, from raw pictures to results at their size.

Shape letters: B pictures, H and W their pixels, h and w pixels of the model's padded input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from detrex.data import EvalMapper
from detrex.data.transforms import shortest_side_size
from detrex.export import results
from detrex.export.resizing import Length, fixed_point, resize_weights
from detrex.modeling import Detector
from detrex.modeling.class_score import ClassProbabilities
from detrex.structures import PaddedImages, Prediction


class Graph(nn.Module):
    """The base of a detector's graphs, with sizes of pictures and resizing.

    The pictures of a batch have the same size, so that each is padded as it would be alone.

    Args:
        model: in evaluation mode.
        mapper: defines how pictures are resized.
    """

    def __init__(self, model: Detector, mapper: EvalMapper):
        super().__init__()
        self.model, self.mapper = model, mapper

    def target(self, height: int, width: int) -> tuple[Length, Length]:
        """Size of the resized picture, see :func:`detrex.data.transforms.shortest_side_size`.

        It consists of integers if all pictures have the same size, so that all sizes in the graph are fixed.
        """
        if type(height) is int and type(width) is int:
            return shortest_side_size(height, width, self.mapper.size, self.mapper.max_size)
        device = self.model.device
        sides = vector([height, width], device)
        # Quotients before extremes, for the same reason as in ``fixed_point``.
        scale = torch.minimum((self.mapper.size / sides).amax(0), (self.mapper.max_size / sides).amin(0))
        rows, columns = (sides * scale).round().clamp(min=1).long().unbind()
        return rows, columns

    def padded(self, target: tuple[Length, Length]) -> tuple[int, int]:
        """Size of the padded input."""
        divisor = self.model.size_divisor
        most = -(-self.mapper.max_size // divisor)
        units = []
        for length in target:
            count = whole((length + divisor - 1) // divisor)
            torch._check(count >= 1)
            torch._check(count <= most)
            units.append(count * divisor)
        return units[0], units[1]

    def size_without_padding(self, target: tuple[Length, Length], padded: tuple[int, int]) -> tuple[int, int]:
        """The size that the model treats as the picture, equal for the whole batch."""
        if not self.model.mask_padding or self.model.size_divisor == 1:
            return padded
        sizes = []
        for length, cells in zip(target, padded, strict=True):
            count = whole(length)
            torch._check(count >= 1)
            torch._check(count <= cells)
            sizes.append(count)
        return sizes[0], sizes[1]

    def input(self, images: Tensor, target: tuple[Length, Length], padded: tuple[int, int]) -> Tensor:
        """Resizes, normalises and pads pictures: (B, 3, h, w)."""
        device = images.device
        rows, columns = (
            fixed_point(resize_weights(side, length, cells=(side, cells), antialias=True, device=device))
            for side, length, cells in zip(images.shape[1:3], target, padded, strict=True)
        )
        # Rounded along each axis, halves up, like resizing of uint8.
        pixels = (images.permute(0, 3, 1, 2).to(torch.float32) @ columns.T + 0.5).floor()
        pixels = (rows @ pixels + 0.5).floor().clamp(0, 255)
        inside = (torch.arange(padded[0], device=device) < target[0])[:, None] & (
            torch.arange(padded[1], device=device) < target[1]
        )
        return (pixels - self.model.pixel_mean) / self.model.pixel_std * inside

    def masks(
        self,
        embed: Tensor,
        pixels: Tensor,
        output: tuple[int, int],
        target: tuple[Length, Length],
        padded: tuple[int, int],
    ) -> results.BatchMasks:
        """Masks of queries.

        Args:
            embed: (B, Q, D).
            pixels: (B, D, h / 4, w / 4).
            output: (height, width) of the pictures.
            target: size of the resized pictures, from :meth:`target`.
            padded: (h, w), from :meth:`padded`.
        """
        device = pixels.device
        to_image = [
            resize_weights(cells, side, cells=(cells, side), antialias=False, device=device)
            for cells, side in zip(pixels.shape[2:], padded, strict=True)
        ]
        to_output = [
            resize_weights(length, side, cells=(cells, side), antialias=False, device=device)
            for length, side, cells in zip(target, output, padded, strict=True)
        ]
        return results.BatchMasks(embed, pixels, (to_image[0], to_image[1]), (to_output[0], to_output[1]))

    def instances(
        self,
        classes: ClassProbabilities,
        prediction: Prediction,
        masks: results.BatchMasks | None,
        threshold: Tensor,
        output: tuple[int, int],
        target: tuple[Length, Length],
        padded: tuple[int, int],
    ) -> dict[str, Tensor]:
        """See :func:`detrex.export.results.instances`; sizes are those of :meth:`masks`."""
        postprocess, device = self.model.postprocess, prediction.boxes.device
        assert postprocess.instance is not None
        frame: tuple[Length, Length] = target if self.model.mask_padding else padded
        corner = self.corner(frame, target, output, device)
        clip = postprocess.instance.clip_boxes
        edge = vector([output[1], output[0]] * 2, device)

        def to_pixels(boxes: Tensor) -> Tensor:
            places = boxes * corner
            return places.clamp(min=0).minimum(edge) if clip else places

        return results.instances(
            postprocess.instance,
            classes.independent,
            prediction.boxes.float(),
            masks,
            threshold,
            to_pixels,
            postprocess.thing_classes,
        )

    def corner(
        self,
        size: tuple[Length, Length],
        image: tuple[Length, Length],
        output: tuple[int, int],
        device: torch.device,
    ) -> Tensor:
        """The far corner of the normalised frame in pixels of the output, repeated: (4,)."""
        frame, inner, outer = (vector([side[1], side[0]] * 2, device) for side in (size, image, output))
        return (frame / inner * outer).float()


class PictureToResults(Graph):
    """A detector with its preprocessing and post-processing.

    Args:
        model, mapper: see :class:`Graph`.
        tasks: those of the model's ``instance``, ``panoptic`` and ``semantic`` that are wanted.
    """

    def __init__(self, model: Detector, mapper: EvalMapper, tasks: Sequence[str]):
        super().__init__(model, mapper)
        self.tasks = tuple(tasks)

    @property
    def thresholds(self) -> dict[str, float]:
        """The inputs besides the pictures, with their values in the config."""
        postprocess = self.model.postprocess
        found = {}
        if "instance" in self.tasks and postprocess.instance is not None:
            found["score_threshold"] = postprocess.instance.score_threshold
        if "panoptic" in self.tasks and postprocess.panoptic is not None:
            found["panoptic_threshold"] = postprocess.panoptic.score_threshold
        return found

    def forward(self, images: Tensor, *thresholds: Tensor) -> dict[str, Tensor]:
        """Finds what is in the pictures.

        Args:
            images: (B, H, W, 3) uint8 RGB.
            thresholds: () float32 each, in the order of :attr:`thresholds`.

        Returns:
            See :func:`detrex.export.results.instances` and :func:`detrex.export.results.panoptic`; and
            ``semantic`` (B, H, W) int64.
        """
        limits = dict(zip(self.thresholds, thresholds, strict=True))
        height, width = images.shape[1:3]
        target = self.target(height, width)
        padded = self.padded(target)
        size = self.size_without_padding(target, padded)
        output = self.model.predict(PaddedImages(self.input(images, target, padded), [size]))
        prediction, postprocess = output.final, self.model.postprocess
        masks = None
        if prediction.mask_embed is not None and output.pixel_embed is not None:
            masks = self.masks(prediction.mask_embed, output.pixel_embed, (height, width), target, padded)
        classes = postprocess.class_score.probabilities(prediction.logits.float())
        found: dict[str, Tensor] = {}
        if "instance" in self.tasks and postprocess.instance is not None:
            found |= self.instances(
                classes, prediction, masks, limits["score_threshold"], (height, width), target, padded
            )
        if "panoptic" in self.tasks and postprocess.panoptic is not None and masks is not None:
            found |= results.panoptic(
                postprocess.panoptic,
                classes.certainty,
                classes.exclusive,
                masks,
                limits["panoptic_threshold"],
                postprocess.thing_classes,
            )
        if "semantic" in self.tasks and postprocess.semantic is not None and masks is not None:
            queries = getattr(self.model.decoder.query_init, "num_queries", None)
            found["semantic"] = results.semantic(postprocess.semantic, classes.exclusive, masks, queries)
        return found


def whole(number: Length) -> int:
    """The number in a tensor without axes; a symbol while the model is exported."""
    return cast(int, number.item()) if isinstance(number, Tensor) else number


def vector(numbers: Sequence[Length], device: torch.device) -> Tensor:
    """Numbers, some of which may be tensors, as a vector of float64."""
    # Joined from tensors of one entry, because OpenVINO does not take filled tensors without axes.
    return torch.cat(
        [
            number.double().view(1)
            if isinstance(number, Tensor)
            else torch.full((1,), number, dtype=torch.float64, device=device)
            for number in numbers
        ]
    )

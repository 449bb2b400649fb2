"""The whole model: samples in, losses or results out.

Shape letters: B images, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detrex.modeling.class_score import ClassScore, SigmoidScore
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.decoder import Decoder, DecoderOutput
from detrex.modeling.inference import Inference
from detrex.modeling.queries import Denoising, ProposalQueries
from detrex.modeling.results import Frame, PostProcess
from detrex.modeling.token_losses import TokenLoss
from detrex.structures import BatchTargets, PaddedImages, Pyramid, Sample


class Detector(nn.Module):
    """A DETR-style detector and segmenter, composed of replaceable parts.

    Args:
        backbone: turns normalised images (B, 3, H, W) into feature maps by stride.
        encoder: turns feature maps into encoded tokens, a :class:`~detrex.structures.Pyramid`. If it scores
            tokens, its ``token_loss`` adds losses, see :class:`~detrex.modeling.TokenLoss`.
        decoder: turns tokens into predictions, see :class:`~detrex.modeling.decoder.DecoderOutput`.
        criterion: turns predictions and targets into weighted losses.
        postprocess: turns predictions into results.
        num_classes: C; the other parts should refer to this entry of the config.
        class_score: the meaning of class logits; heads, matcher, criterion and post-processing should refer
            to this entry of the config.
        pixel_head: turns feature maps and tokens into a per-pixel embedding; None for a model without masks.
        denoising: makes denoising queries in training, or None.
        pixel_mean, pixel_std: of RGB in 0..255 (ImageNet's by default).
        size_divisor: images are padded right and below to a multiple of this.
        mask_padding: attention ignores padding, and boxes are relative to each image without it. If not,
            padding counts as image, and boxes are relative to the padded input, as in Mask DINO.
        true_boxes_relative_to_image: true boxes are divided by the size of their own image even if predicted
            ones are relative to the padded input. The published Mask DINO was trained so; losses differ only
            if padding differs between images.
        channels_last: store the weights of convolutions and the images with the channels of a pixel side by
            side. Results are the same; the speed depends on the device (``docs/benchmarks.md``).
        initialisation: draws weights of the whole model anew, in place; None keeps those that the parts drew.
        inference: looks at each image more than once, see :mod:`detrex.modeling.inference`; None looks once.

    Raises:
        ValueError: if first boxes come from masks and ``mask_padding`` is set.
    """

    follows_videos = False
    """Whether instances get ``track_ids`` if the samples say which frame of which video they are."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        encoder: nn.Module,
        decoder: Decoder,
        criterion: SetCriterion,
        postprocess: PostProcess,
        num_classes: int,
        class_score: ClassScore | None = None,
        pixel_head: nn.Module | None = None,
        denoising: Denoising | None = None,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
        size_divisor: int = 32,
        mask_padding: bool = False,
        channels_last: bool = False,
        true_boxes_relative_to_image: bool = False,
        initialisation: Callable[[Detector], None] | None = None,
        inference: Inference | None = None,
    ):
        super().__init__()
        self.backbone, self.encoder, self.pixel_head, self.decoder = backbone, encoder, pixel_head, decoder
        self.criterion, self.postprocess, self.denoising = criterion, postprocess, denoising
        self.inference = inference
        self.num_classes, self.class_score = num_classes, class_score or SigmoidScore()
        self.size_divisor, self.mask_padding = size_divisor, mask_padding
        self.true_boxes_relative_to_image = mask_padding or true_boxes_relative_to_image
        for module in decoder.modules():
            if isinstance(module, ProposalQueries):
                module.check_padding(mask_padding)
        if initialisation is not None:
            initialisation(self)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the parameters are; images are moved there."""
        return self.pixel_mean.device

    def forward(self, samples: list[Sample]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """:meth:`losses` in training mode, :meth:`detect` in evaluation mode."""
        return self.losses(samples) if self.training else self.detect(samples)

    def losses(self, samples: list[Sample]) -> dict[str, Tensor]:
        """Weighted losses by name; their sum is the loss.

        Args:
            samples: with ``targets``, see :class:`~detrex.structures.Sample`.

        Raises:
            ValueError: if a sample has no targets, or its targets do not fit the model or the image.
        """
        images = self.preprocess(samples)
        targets = self._collate_targets(samples, images)
        output = self.predict(images, targets)
        losses = self.criterion(output.supervised, output.pixel_embed, targets)
        token_loss: TokenLoss | None = getattr(self.encoder, "token_loss", None)
        if token_loss is not None:
            losses |= token_loss(output.memory, images, targets)
        return losses

    def detect(self, samples: list[Sample], postprocess: PostProcess | None = None) -> list[dict[str, Any]]:
        """Finds objects and segments in images.

        Args:
            samples: see :class:`~detrex.structures.Sample`; targets are not needed.
            postprocess: makes the results, in place of the model's.

        Returns:
            One dictionary per sample with

            * ``instances``: :class:`~detrex.structures.Instances`,
            * ``panoptic_seg``: segment ids (H, W) int32 (0: none) and a list of segments (``id``,
              ``category_id`` = class index, ``isthing``, ``score``),
            * ``sem_seg``: scores (C, H, W),

            as far as post-processing makes them, at each sample's ``height`` x ``width``. Tiles give classes
            (H, W) int32 as ``sem_seg``.
        """
        postprocess = postprocess or self.postprocess
        if self.inference is None:
            return self.detect_once(samples, postprocess)
        return [self.inference(self.detect_once, sample, postprocess) for sample in samples]

    def detect_once(self, samples: list[Sample], postprocess: PostProcess) -> list[dict[str, Any]]:
        """Results like those of :meth:`detect`, from one look at each image."""
        images = self.preprocess(samples)
        output = self.predict(images)
        return postprocess(output.final, output.pixel_embed, self.frames(samples, images))

    def frames(self, samples: list[Sample], images: PaddedImages) -> list[Frame]:
        """The sizes of samples, and of the images that :meth:`preprocess` made from them."""
        return [
            Frame(
                images.padded_size,
                size,
                (int(s.get("height", size[0])), int(s.get("width", size[1]))),
                box_size=size if self.mask_padding else None,
            )
            for s, size in zip(samples, images.sizes, strict=True)
        ]

    def preprocess(self, samples: list[Sample]) -> PaddedImages:
        """Normalises images on the model's device and pads them into one batch.

        Raises:
            ValueError: if an image is not (3, H, W), or there is none.
        """
        if not samples:
            raise ValueError("the list of samples is empty")
        images = []
        for sample in samples:
            image = sample["image"]
            if image.ndim != 3 or image.shape[0] != len(self.pixel_mean):
                raise ValueError(
                    f"{_describe(sample)}: expected an RGB image (3, H, W), got shape {tuple(image.shape)}"
                )
            image = image.as_subclass(Tensor).to(self.device, non_blocking=True)
            images.append((image.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std)
        return PaddedImages.from_list(images, self.size_divisor)

    def predict(self, images: PaddedImages, targets: BatchTargets | None = None) -> DecoderOutput:
        """All predictions for normalised images; with ``targets``, denoising queries take part."""
        features, memory = self.features(images)
        pixel_embed = None if self.pixel_head is None else self.pixel_head(features, memory)
        return self.decode(memory, pixel_embed, targets)

    def decode(
        self, memory: Pyramid, pixel_embed: Tensor | None, targets: BatchTargets | None = None
    ) -> DecoderOutput:
        """All predictions for encoded images; with ``targets``, denoising queries take part."""
        denoising = []
        if self.denoising is not None and targets is not None:
            denoising.append(self.denoising(targets))
        return self.decoder(memory, pixel_embed, denoising, targets)

    def features(self, images: PaddedImages) -> tuple[Mapping[int, Tensor], Pyramid]:
        """The backbone's maps by stride, and the encoded tokens, of normalised images."""
        features = self.backbone(images.tensor.contiguous(memory_format=self.memory_format))
        return features, self.encode(features, images if self.mask_padding and images.has_padding else None)

    def encode(self, features: Mapping[int, Tensor], images: PaddedImages | None) -> Pyramid:
        """Encodes feature maps. Models whose encoder shares parts with the decoder pass them on here.

        Args:
            features: backbone maps by stride, (B, C, H / stride, W / stride).
            images: given if their padding is to be masked.
        """
        return self.encoder(features, images)

    def _collate_targets(self, samples: list[Sample], images: PaddedImages) -> BatchTargets:
        for sample, size in zip(samples, images.sizes, strict=True):
            self._check_targets(sample, size)
        box_sizes = images.sizes if self.true_boxes_relative_to_image else None
        targets = [s["targets"] for s in samples]
        return BatchTargets.collate(targets, images.padded_size, self.device, box_sizes)

    def _check_targets(self, sample: Sample, size: tuple[int, int]) -> None:
        if "targets" not in sample:
            raise ValueError(f"{_describe(sample)}: no 'targets', which training needs")
        labels, masks = sample["targets"].labels, sample["targets"].masks
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(
                f"{_describe(sample)}: class indices {int(labels.min())} to {int(labels.max())} do not "
                f"fit a model of {self.num_classes} classes; set model.num_classes to the data's count"
            )
        if masks is not None and tuple(masks.shape[1:]) != size:
            raise ValueError(
                f"{_describe(sample)}: masks of {tuple(masks.shape[1:])} pixels (height, width) for an image "
                f"of {size}; targets must be in the frame of their image"
            )


def _describe(sample: Sample) -> str:
    return f"image {sample.get('image_id', '?')} ({sample.get('file_name', 'no file name')})"

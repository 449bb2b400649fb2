"""A detector that finds what words name and answers clicks and boxes, with one look at an image for both."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from detrex.modeling.decoder import Decoder
from detrex.modeling.prompts import PromptCriterion, PromptDetector
from detrex.modeling.prompts.detector import without_classes
from detrex.modeling.results import PostProcess
from detrex.modeling.text import TextDetector
from detrex.modeling.text.detector import relabelled
from detrex.structures import Sample


class PromptableDetector(TextDetector, PromptDetector):
    """A :class:`~detrex.modeling.text.TextDetector` that is also a
    :class:`~detrex.modeling.prompts.PromptDetector`.

    Backbone, encoder and pixel head are shared; words and prompts have a decoder each. The names of losses of
    prompts begin with ``prompt_``.

    Args:
        prompt_decoder: the decoder of prompts, which has no queries of its own.
        prompt_criterion: the losses of answers to prompts.
        detector: all other arguments are those of the two classes.
    """

    def __init__(self, prompt_decoder: Decoder, prompt_criterion: PromptCriterion, **detector: Any):
        super().__init__(**detector)
        self.prompt_decoder, self.prompt_criterion = prompt_decoder, prompt_criterion

    @property
    def answering(self) -> Decoder:
        """The decoder that answers prompts."""
        return self.prompt_decoder

    def losses(self, samples: list[Sample]) -> dict[str, Tensor]:
        """Losses of words, as in :class:`~detrex.modeling.text.TextDetector`, and of drawn prompts.

        Images without masks have no prompts.

        Raises:
            ValueError: a sample has no targets or no masks, or its labels do not fit.
        """
        with self._training_words(self.vocabulary) as classes:
            renamed = relabelled(samples, classes)
            images = self.preprocess(renamed)
            targets = self._collate_targets(renamed, images)  # before anything is computed
            encoded = self.encode_images(renamed)
            output = self.decode(encoded.memory, encoded.pixel_embed, targets)
            losses = self.criterion(output.supervised, output.pixel_embed, targets)
        drawn = [self.drawing(sample["targets"]) for sample in samples]
        asked = [i for i, prompts in enumerate(drawn) if prompts is not None]
        if asked:
            found = self._prompt_losses(
                self.prompt_criterion,
                [without_classes(samples[i]) for i in asked],
                [prompts for prompts in drawn if prompts is not None],
                encoded if len(asked) == len(samples) else encoded.of_images(asked),
            )
            losses |= {f"prompt_{name}": value for name, value in found.items()}
        return losses

    def detect(self, samples: list[Sample], postprocess: PostProcess | None = None) -> list[dict[str, Any]]:
        """Results of words, see :meth:`detrex.modeling.Detector.detect`.

        The results of samples with ``prompts`` also have ``prompted``, see
        :meth:`detrex.modeling.prompts.PromptDetector.detect`.
        """
        results = super(PromptDetector, self).detect(samples, postprocess)
        for sample, result in zip(samples, results, strict=True):
            if "prompts" in sample:
                result["prompted"] = self.masks(self.encode_images([sample]), sample["prompts"])
        return results

    def detect_once(self, samples: list[Sample], postprocess: PostProcess) -> list[dict[str, Any]]:
        """Results of words, from one look at each image."""
        return super(PromptDetector, self).detect_once(samples, postprocess)

"""A detector whose classes are texts.

Shape letters: C classes, E channels of an embedding.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from detrex.modeling.decoder import DecoderOutput
from detrex.modeling.detector import Detector
from detrex.modeling.text.class_score import CosineClassifier
from detrex.modeling.text.denoising import WordContent
from detrex.modeling.text.encoder import TextEncoder
from detrex.modeling.text.vocabulary import Vocabulary, for_evaluation, imagenet_templates
from detrex.modeling.text.words import WordEncoder
from detrex.structures import BatchTargets, PaddedImages, Sample

LARGEST_CACHE = 20_000
"""Largest number of classes whose embeddings are kept."""


class TextDetector(Detector):
    """A detector that finds what words name: its classes are given by their names, and can be changed.

    In training, the names of a data set are embedded in every step, each in one random sentence, with
    gradient. Otherwise, a class is the mean over all sentences, which is embedded once and kept until weights
    change.

    Args:
        text: embeds sentences, as :class:`~detrex.modeling.text.TextEncoder` and
            :class:`~detrex.modeling.text.WordEncoder` do.
        vocabulary: the initial classes, to which samples in training refer unless they name another one.
        others: vocabularies of further data sets in training. A sample says by its ``vocabulary`` to which
            one its labels refer; names of the losses of these samples begin with the vocabulary's name and a
            dot ("o365.loss_ce").
        templates: sentences with ``{}`` for the name of a class; None for those of
            :func:`~detrex.modeling.text.imagenet_templates`.
        training_templates: the sentences in training; None for the same.
        detector: all other arguments are those of :class:`~detrex.modeling.Detector`.

    Raises:
        ValueError: ``num_classes`` is not the number of names, or a template has no ``{}``.
    """

    def __init__(
        self,
        text: TextEncoder | WordEncoder,
        vocabulary: Vocabulary | None = None,
        others: Mapping[str, Vocabulary] | None = None,
        templates: Sequence[str] | None = None,
        training_templates: Sequence[str] | None = None,
        **detector: Any,
    ):
        super().__init__(**detector)
        self.text, self.vocabulary = text, vocabulary or Vocabulary()
        self.others = dict(others or {})
        if len(self.vocabulary.names) not in (0, self.num_classes):
            raise ValueError(
                f"model.vocabulary has {len(self.vocabulary.names)} names, but model.num_classes is "
                f"{self.num_classes}"
            )
        for template in (*(templates or ()), *(training_templates or ())):
            if "{}" not in template:
                raise ValueError(f"a template needs {{}} where the name of a class goes: '{template}'")
        self._templates, self._training_templates = templates, training_templates
        self._class_names = tuple(self.vocabulary.names)
        self._embedded: dict[str, Tensor] = {}
        self._embedded_by: tuple[Any, ...] = ()  # the weights
        self._current: tuple[str, ...] | None = None  # classes that the heads compare with
        self._keeps_words = False

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that evaluation looks for."""
        return self._class_names

    @property
    def templates(self) -> Sequence[str]:
        """Sentences whose embeddings evaluation averages."""
        return imagenet_templates() if self._templates is None else self._templates

    @property
    def training_templates(self) -> Sequence[str]:
        """Sentences from which training draws one for each class."""
        return self.templates if self._training_templates is None else self._training_templates

    def set_classes(self, names: Sequence[str], things: Sequence[int] | None = None) -> None:
        """Makes the detector look for other classes from now on.

        Args:
            names: of the classes.
            things: indices of the classes with countable instances; the others are stuff. None: all.

        Raises:
            ValueError: there are no names, or one of them has no letter.
            ImportError: the tokenizer is not installed.
        """
        if not names or not all(name.strip() for name in names):
            raise ValueError(f"expected names of classes, each with a letter at least, not {list(names)}")
        self._class_names, self.num_classes = tuple(names), len(names)
        self.postprocess.thing_classes = None if things is None else list(things)
        self._update_words()

    @contextmanager
    def keeping_words(self) -> Iterator[None]:
        """Embeds the classes once and keeps them inside the block, such as while a graph is traced."""
        self._update_words()
        self._keeps_words = True
        try:
            yield
        finally:
            self._keeps_words = False

    def sharing_weights(self) -> TextDetector:
        """A copy with the same tensors, whose classes can differ from those of this detector."""
        shared = (*self.parameters(), *self.buffers(), self._embedded)
        return copy.deepcopy(self, {id(value): value for value in shared})

    @torch.no_grad()
    def embed_classes(self, names: Sequence[str]) -> Tensor:
        """Embeddings (C, E) of length 1 of the names of classes, each the mean over all templates."""
        missing = [name for name in dict.fromkeys(names) if name not in self._embedded]
        if missing:
            templates = self.templates
            texts = [
                template.replace("{}", for_evaluation(name)) for name in missing for template in templates
            ]
            mean = self.text(texts).unflatten(0, (len(missing), len(templates))).mean(1)  # (missing names, E)
            self._embedded |= zip(missing, mean / mean.norm(dim=-1, keepdim=True), strict=True)
        return torch.stack([self._embedded[name] for name in names])  # (C, E)

    def losses(self, samples: list[Sample]) -> dict[str, Tensor]:
        """See :meth:`~detrex.modeling.Detector.losses`; each vocabulary's samples are handled separately.

        Raises:
            ValueError: a sample names a vocabulary that the model does not have, or has labels beyond it.
        """
        losses: dict[str, Tensor] = {}
        for name in dict.fromkeys(sample.get("vocabulary", "") for sample in samples):
            chosen = [sample for sample in samples if sample.get("vocabulary", "") == name]
            prefix = f"{name}." if name else ""
            with self._training_words(self._vocabulary(name)) as classes:
                found = super().losses(relabelled(chosen, classes))
            losses |= {prefix + key: value for key, value in found.items()}
        return losses

    def predict(self, images: PaddedImages, targets: BatchTargets | None = None) -> DecoderOutput:
        """See :meth:`~detrex.modeling.Detector.predict`, for the classes that are set."""
        # An exported program keeps the words that it was given, and needs no text encoder.
        exporting = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
        if targets is None and not exporting:
            self._update_words()
        return super().predict(images, targets)

    def _vocabulary(self, name: str) -> Vocabulary:
        if not name:
            return self.vocabulary
        if name not in self.others:
            raise ValueError(
                f"samples are of the vocabulary '{name}', but besides its own the model has "
                f"{', '.join(self.others) or 'none'}: see model.others"
            )
        return self.others[name]

    @contextmanager
    def _training_words(self, vocabulary: Vocabulary) -> Iterator[Tensor | None]:
        """The classes of a training step.

        Yields:
            For each class of the vocabulary, its class (C,) in this step; None if all keep theirs.
        """
        if not vocabulary.names:
            raise ValueError("training needs the names of the classes: set model.vocabulary.names")
        templates, names, changed = self.training_templates, list(vocabulary.for_training()), None
        if vocabulary.style == "attributes":
            different = {name: number for number, name in enumerate(dict.fromkeys(names))}
            names, changed = list(different), torch.tensor([different[name] for name in names])
        drawn = torch.randint(len(templates), (len(names),)).tolist()
        embeddings = self.text(
            [templates[k].replace("{}", name) for k, name in zip(drawn, names, strict=True)]
        )
        classes = self.num_classes
        self.num_classes = len(embeddings)
        self._set_words(embeddings)
        try:
            yield changed
        finally:
            self.num_classes, self._current = classes, None
            self._set_words(embeddings.detach())

    def _update_words(self) -> None:
        """Embeds the classes again if weights, names or device have changed.

        Raises:
            ValueError: there are no classes.
        """
        if self._keeps_words:
            return
        if not self._class_names:
            raise ValueError("this model has no classes yet: give it some, with set_classes(names)")
        # Optimizers, averages and loaded weights change parameters in place, which increases their versions.
        weights = (self.device, *((id(p), p._version) for p in self.text.parameters()))
        if weights != self._embedded_by or len(self._embedded) > LARGEST_CACHE:
            self._embedded.clear()  # copies share it, see sharing_weights
            self._embedded_by, self._current = weights, None
        if self._current != self._class_names:
            with torch.inference_mode(False), torch.no_grad():
                self._set_words(self.embed_classes(self._class_names))
            self._current = self._class_names

    def _set_words(self, embeddings: Tensor) -> None:
        scaled = embeddings * self.text.logit_scale.exp()  # (C, E)
        for module in self.modules():
            if isinstance(module, CosineClassifier):
                module.words = scaled
            elif isinstance(module, WordContent):
                module.words = embeddings


def relabelled(samples: list[Sample], classes: Tensor | None) -> list[Sample]:
    """The samples with class ``classes[k]`` in place of class k."""
    if classes is None:
        return samples
    found = []
    for sample in samples:
        if "targets" in sample:
            targets = sample["targets"]
            labels = targets.labels
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
                raise ValueError(
                    f"{sample.get('file_name', 'an image')}: class indices {int(labels.min())} to "
                    f"{int(labels.max())} do not fit the {len(classes)} names of model.vocabulary"
                )
            sample = Sample(**{**sample, "targets": dataclasses.replace(targets, labels=classes[labels])})
        found.append(sample)
    return found

"""Turns text into token ids by byte pair encoding with CLIP's vocabulary.

Shape letters: N texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

VOCABULARY_SIZE = 49408
START, END = 49406, 49407


class ClipTokenizer:
    """CLIP's tokens (arXiv 2103.00020) from the vocabulary that comes with ``open_clip_torch``.

    Args:
        context_length: T; longer texts are cut.
    """

    def __init__(self, context_length: int = 77):
        self.context_length = context_length

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids (N, T) int64: the start token, the tokens of the text, and end tokens up to T.

        White space becomes single spaces, and letters become lower case. If a text is too long, the end token
        replaces the last token that fits. CLIP itself pads with 0 instead, which makes no difference to the
        encoder, because it reads only up to the first end token.

        Raises:
            ImportError: ``open_clip_torch`` is not installed.
        """
        encoder = _byte_pair_encoder()
        ids = torch.full((len(texts), self.context_length), END)  # (N, T)
        for row, text in zip(ids, texts, strict=True):
            tokens = [START, *encoder.encode(text)][: self.context_length - 1]
            row[: len(tokens)] = torch.tensor(tokens)
        return ids


@cache
def _byte_pair_encoder() -> Any:
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except ImportError as error:
        raise ImportError(
            "models that read words take the tokenizer of open_clip_torch, which is not installed: "
            "pip install detrex-maskdino[text]"
        ) from error
    return SimpleTokenizer()

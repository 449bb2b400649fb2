"""A text encoder for a closed vocabulary, which adds up vectors of words.

Shape letters: N texts, T words of a text, E channels of an embedding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detrex.modeling.text.encoder import FIRST_SCALE, unit_length

# Characters that separate words.
_BETWEEN = re.compile(r"[\s,.]+")
NO_WORD = 0
"""The id that fills up short texts; words have ids from 1 on."""


class WordTokenizer:
    """Turns words of a closed vocabulary into ids.

    Args:
        words: in lower case; word number k has the id k + 1.

    Raises:
        ValueError: a word is repeated, or is not a single word.
    """

    def __init__(self, words: Sequence[str]):
        self.words = tuple(words)
        self._ids = {word: number for number, word in enumerate(self.words, start=1)}
        if len(self._ids) != len(self.words) or any(_split(word) != [word] for word in self.words):
            raise ValueError(f"expected different words in lower case, not {list(self.words)}")

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids (N, T) int64, filled up with :data:`NO_WORD`; T is the number of words in the longest text.

        Case is ignored; commas and full stops separate words.

        Raises:
            ValueError: a text has no word, or one that the vocabulary does not have.
        """
        rows = [self._encode(text) for text in texts]
        ids = torch.full((len(rows), max(map(len, rows), default=0)), NO_WORD)  # (N, T)
        for row, found in zip(ids, rows, strict=True):
            row[: len(found)] = torch.tensor(found)
        return ids

    def _encode(self, text: str) -> list[int]:
        words = _split(text)
        unknown = [word for word in words if word not in self._ids]
        if unknown or not words:
            problem = f"this model does not know {_quoted(unknown)}" if unknown else f"'{text}' has no word"
            raise ValueError(f"{problem}; the words that it knows are {_quoted(self.words)}")
        return [self._ids[word] for word in words]


class WordEncoder(nn.Module):
    """A learned vector for each word; a text is the sum of its words, scaled to length 1.

    The order of words does not matter, and words that were never seen together combine like others.

    Args:
        words: the vocabulary, see :class:`WordTokenizer`.
        embed_dim: E.

    Attributes:
        tokenizer: makes the ids.
        logit_scale: () logarithm of the factor between cosines and class logits.
    """

    def __init__(self, words: Sequence[str], embed_dim: int = 64):
        super().__init__()
        self.tokenizer, self.embed_dim = WordTokenizer(words), embed_dim
        self.vectors = nn.Embedding(len(self.tokenizer.words) + 1, embed_dim, padding_idx=NO_WORD)
        # A vector that all texts share, so that their cosines need not be small on average.
        self.common = nn.Parameter(torch.randn(embed_dim) * embed_dim**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        nn.init.normal_(self.vectors.weight, std=embed_dim**-0.5)
        with torch.no_grad():
            self.vectors.weight[NO_WORD] = 0

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (N, E) of length 1.

        Raises:
            ValueError: a text has no word, or one that the vocabulary does not have.
        """
        return self.embed(self.tokenizer(texts))

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings (N, E) of length 1 of word ids (N, T), which are on any device."""
        return unit_length(self.common + self.vectors(tokens.to(self.common.device)).sum(1))


def _split(text: str) -> list[str]:
    return [word for word in _BETWEEN.split(text.lower()) if word]


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)

"""The text encoder, which turns sentences into vectors of length 1.

Shape letters: N texts, T tokens, W width, E channels of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detrex.modeling.text.tokenizer import END, VOCABULARY_SIZE, ClipTokenizer

# Added to lengths before vectors are divided by them, as published (OpenSeeD, arXiv 2303.08131).
LENGTH_EPS = 1e-7
# Initially, logits are 1 / 0.07 times a cosine (CLIP, arXiv 2103.00020).
FIRST_SCALE = 1 / 0.07
MOST_AT_ONCE = 256
"""Number of texts that are encoded together if no gradient is wanted."""


class TextEncoder(nn.Module):
    """A transformer with causal attention, read at the end of the text (CLIP, arXiv 2103.00020).

    Args:
        context_length: largest number of tokens in a text, including start and end; longer texts are cut.
        width: W.
        num_layers, num_heads: of the transformer.
        embed_dim: E.
        vocabulary_size: number of different tokens.

    Attributes:
        tokenizer: makes the tokens.
        logit_scale: () logarithm of the factor between cosines and class logits, stored with the text encoder
            as published.
    """

    def __init__(
        self,
        context_length: int = 77,
        width: int = 512,
        num_layers: int = 12,
        num_heads: int = 8,
        embed_dim: int = 512,
        vocabulary_size: int = VOCABULARY_SIZE,
    ):
        super().__init__()
        self.tokenizer, self.embed_dim = ClipTokenizer(context_length), embed_dim
        self.tokens = nn.Embedding(vocabulary_size, width)
        self.position = nn.Parameter(torch.empty(context_length, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                num_heads,
                4 * width,
                dropout=0.0,
                activation=quick_gelu,
                layer_norm_eps=1e-12,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.projection = nn.Parameter(torch.empty(width, embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.position, std=0.01)
        nn.init.normal_(self.projection, std=width**-0.5)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (N, E) of length 1.

        Raises:
            ImportError: the tokenizer is not installed.
        """
        tokens = self.tokenizer(texts)  # (N, T)
        if torch.is_grad_enabled() or len(tokens) <= MOST_AT_ONCE:
            return self.embed(tokens)
        # Texts of equal length are encoded together, so that short ones take little time.
        order = (tokens == END).int().argmax(1).argsort(stable=True)  # (N,)
        found = torch.cat([self.embed(part) for part in tokens[order].split(MOST_AT_ONCE)])  # (N, E)
        return torch.empty_like(found).index_copy(0, order.to(found.device), found)

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings (N, E) of length 1 of token ids (N, T), which are on any device."""
        end = (tokens == END).int().argmax(1)  # (N,) place of the first end token
        # No token sees a later one, so tokens after the last end need not be computed.
        states = self.hidden(tokens[:, : int(end.max()) + 1 if len(end) else 1])  # (N, last end + 1, W)
        read = states[torch.arange(len(end), device=states.device), end.to(states.device)]  # (N, W)
        return unit_length(read @ self.projection)

    def hidden(self, tokens: Tensor) -> Tensor:
        """States (N, T, W) of token ids (N, T) after the last layer and its norm."""
        device = self.position.device
        length = tokens.shape[1]
        x = self.tokens(tokens.to(device, non_blocking=True)) + self.position[:length]  # (N, T, W)
        later = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)  # (T, T)
        for layer in self.layers:
            x = layer(x, src_mask=later)
        return self.norm(x)


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's activation, an approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


def unit_length(x: Tensor) -> Tensor:
    """Scales vectors (..., E) to length 1; zero vectors stay zero."""
    return x / (x.norm(dim=-1, keepdim=True) + LENGTH_EPS)

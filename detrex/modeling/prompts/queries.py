"""Turns clicks and boxes into queries, one for each granularity (Semantic-SAM, arXiv 2307.04767).

Shape letters: B images, P prompts of an image, G granularities, D channels.
"""

from __future__ import annotations

from torch import nn

from detrex.modeling.assignment import Assignment
from detrex.modeling.queries.group import QueryGroup
from detrex.structures import Prompts


class PromptQueries(nn.Module):
    """Turns every prompt into G consecutive queries.

    Args:
        granularities: G.
        hidden_dim: D.

    Attributes:
        label: (2, D) embedding that all prompts share. As published, only the first row is used.
        kinds: (2, D) embeddings of boxes and of points.
        tokens: (G, D) embeddings of granularities.
    """

    def __init__(self, granularities: int = 6, hidden_dim: int = 256):
        super().__init__()
        self.granularities = granularities
        self.label, self.kinds = nn.Embedding(2, hidden_dim), nn.Embedding(2, hidden_dim)
        self.tokens = nn.Embedding(granularities, hidden_dim)

    def forward(self, prompts: Prompts, isolated: bool, assignment: Assignment | None = None) -> QueryGroup:
        """The queries (B, P * G), prompt by prompt.

        Args:
            prompts: relative to the padded input.
            isolated: whether the queries of a prompt see only one another, so that prompts do not influence
                each other's results.
            assignment: of masks to queries, in training.
        """
        prompt = self.label.weight[0] + self.kinds(prompts.kind)  # (B, P, D)
        content = prompt[:, :, None] + self.tokens.weight  # (B, P, G, D)
        reference = prompts.boxes.repeat_interleave(self.granularities, 1)  # (B, P * G, 4)
        blocks = prompts.boxes.shape[1] if isolated else 1
        return QueryGroup(content.flatten(1, 2), reference, assignment=assignment, blocks=blocks)

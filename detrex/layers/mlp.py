"""Multi-layer perceptron."""

from __future__ import annotations

from torch import Tensor, nn

from detrex.layers.products import Linear


class MLP(nn.Module):
    """``num_layers`` linear layers with ReLU between them: (..., in_dim) to (..., out_dim)."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int):
        super().__init__()
        dims = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(
            Linear(a, b, relu=i < num_layers - 1)
            for i, (a, b) in enumerate(zip(dims[:-1], dims[1:], strict=True))
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

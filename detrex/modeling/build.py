"""A model from its config."""

from __future__ import annotations

import torch
from omegaconf import DictConfig
from torch import nn

from detrex.config import instantiate
from detrex.layers import use_onednn


def build_model(node: DictConfig, device: torch.device) -> nn.Module:
    """The model that a config describes, on its device, with the layers that are fastest there."""
    model: nn.Module = instantiate(node).to(device)
    if device.type == "cpu":
        use_onednn(model)
    return model

"""A model from its config."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from detrex.config import instantiate
from detrex.layers import use_onednn
from detrex.modeling.detector import Detector


def build_model(node: DictConfig, device: torch.device) -> Detector:
    """The model that a config describes, on its device, with the layers that are fastest there."""
    model: Detector = instantiate(node).to(device)
    if device.type == "cpu":
        use_onednn(model)
    return model

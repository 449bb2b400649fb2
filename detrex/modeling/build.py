"""A model from its config."""

from __future__ import annotations

import torch
from omegaconf import DictConfig
from torch import nn

from detrex.config import ConfigError, instantiate
from detrex.layers import use_onednn
from detrex.modeling.detector import Detector


def build_model(node: DictConfig, device: torch.device) -> Detector:
    """The model that a config describes, on its device, with the layers that are fastest there.

    Raises:
        ConfigError: the config describes something else, or cannot be built.
    """
    model = instantiate(node)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"'model' builds a {type(model).__name__}, not a module: check model._target_")
    model.to(device)
    if device.type == "cpu":
        use_onednn(model)
    return model  # type: ignore[return-value]  # projects may have detectors of their own

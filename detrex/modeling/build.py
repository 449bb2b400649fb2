"""Builds a model from its config."""

from __future__ import annotations

import torch
from omegaconf import DictConfig
from torch import nn

from detrex.config import ConfigError, instantiate
from detrex.layers import prepare_for_prediction, use_onednn
from detrex.modeling.detector import Detector


def build_model(node: DictConfig, device: torch.device) -> Detector:
    """Builds the model that a config describes, on its device, with the layers that are fastest there.

    Raises:
        ConfigError: the config does not describe a model, or it cannot be built.
    """
    model = instantiate(node)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"'model' builds a {type(model).__name__}, not a module: check model._target_")
    model.to(device)
    if device.type == "cpu":
        use_onednn(model)
    return model  # type: ignore[return-value]  # projects may have detectors of their own


def prepare_detector(model: Detector) -> None:
    """Folds the backbone's batch norms and prepares weights for prediction; call it after loading them.

    See :func:`~detrex.layers.prepare_for_prediction`. Training works as before.
    """
    sides = (2 * model.size_divisor,) * 2
    images = model.pixel_mean.new_zeros(1, len(model.pixel_mean), *sides)
    prepare_for_prediction(model, lambda: model.backbone(images))

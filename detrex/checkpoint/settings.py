"""Reads a model's settings from a published Mask DINO file, and finds rows of the zoo that have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor

from detrex.checkpoint.zoo import zoo_entries
from detrex.config import LazyConfig

_PIXEL = "sem_seg_head.pixel_decoder."
_PREDICTOR = "sem_seg_head.predictor."
_COARSEST_BACKBONE_STRIDE = 32
_PROJECT = "maskdino"  # whose rows they are


@dataclass(frozen=True)
class Settings:
    """The settings in which published models differ, as far as shapes of weights show them.

    Attributes:
        levels: number of levels in the encoder.
        backbone_levels: number of those that are maps of the backbone.
        ffn_dim: width of the encoder's feed-forward networks.
        classes: number of classes.
        learned_queries: whether queries are learned; otherwise, they are selected from the encoder's tokens.
        swin: whether the backbone is a Swin; otherwise, it is a ResNet.
    """

    levels: int
    backbone_levels: int
    ffn_dim: int
    classes: int
    learned_queries: bool
    swin: bool

    def __str__(self) -> str:
        return (
            f"a {'Swin' if self.swin else 'ResNet'}, {self.levels} levels ({self.backbone_levels} of them "
            f"from the backbone), an encoder's feed-forward width of {self.ffn_dim}, {self.classes} classes, "
            f"and {'learned' if self.learned_queries else 'selected'} queries"
        )


def settings_of_file(state: Mapping[str, Tensor]) -> Settings:
    """The settings shown by a published ``model`` state dict."""
    projections = [
        value
        for name, value in state.items()
        if name.startswith(f"{_PIXEL}input_proj.") and name.endswith(".0.weight")
    ]
    return Settings(
        levels=len(projections),
        backbone_levels=sum(weight.shape[-1] == 1 for weight in projections),
        ffn_dim=len(state[f"{_PIXEL}transformer.encoder.layers.0.linear1.weight"]),
        classes=len(state[f"{_PREDICTOR}label_enc.weight"]),
        learned_queries=f"{_PREDICTOR}query_feat.weight" in state,
        swin=any(name.startswith("backbone.patch_embed.") for name in state),
    )


def settings_of_config(model: DictConfig) -> Settings:
    """The settings of the ``model`` of a Mask DINO config."""
    strides = model.encoder.strides
    return Settings(
        levels=len(strides),
        backbone_levels=sum(stride <= _COARSEST_BACKBONE_STRIDE for stride in strides),
        ffn_dim=model.encoder.ffn_dim,
        classes=model.num_classes,
        learned_queries="anchor_sizes" not in model.decoder.query_init,
        swin="Swin" in model.backbone._target_,
    )


def fitting_rows(settings: Settings) -> list[str]:
    """Names of the rows of the model zoo with these settings."""
    rows = {name: entry.config for name, entry in zoo_entries().items() if _PROJECT in entry.config.parts}
    return [name for name, config in rows.items() if _settings_of_row(config) == settings]


@cache
def _settings_of_row(config: Path) -> Settings:
    return settings_of_config(LazyConfig.load(config).model)

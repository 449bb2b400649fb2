"""Sets the classes of a model that reads words in its config."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from detrex.config import ConfigError, instantiate
from detrex.data import read_categories, read_words


def set_words(config: DictConfig, words: str) -> None:
    """Writes other names for the classes of the data into a config, in place.

    Args:
        config: with ``model``, and with ``dataloader.categories`` if the data's classes are known.
        words: see :func:`detrex.data.read_words`.

    Raises:
        ConfigError: the model does not read words, or the numbers of names and classes differ.
        FileNotFoundError, DataError, ValueError: see :func:`detrex.data.read_words`.
    """
    if OmegaConf.select(config, "model.vocabulary") is None:
        raise ConfigError(
            "--classes is for models that read words, such as OpenSeeD: this config has no model.vocabulary"
        )
    categories = read_words(words)
    listed = OmegaConf.select(config, "dataloader.categories")
    if listed is not None:
        known = read_categories(instantiate(listed))
        if len(known) != len(categories):
            raise ConfigError(
                f"{words} names {len(categories)} classes, but the data have {len(known)}: give a name for "
                f"each, in their order ({', '.join(known.names[:3])}, ...)"
            )
    config.model.vocabulary.names = list(categories.names)
    config.model.num_classes = len(categories)

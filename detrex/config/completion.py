"""Completes configs with the defaults of their targets, and checks the keys of nodes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from detrex.config.lazy import ConfigError, create_config, to_plain
from detrex.config.signatures import NO_VALUE, signature_of
from detrex.config.walking import PARTIAL, TARGET, dotted, is_node, walk


def complete(config: Mapping[str, Any]) -> DictConfig:
    """A copy of ``config`` in which every node has all the keywords of its target that have a default.

    Defaults that a config cannot hold are left out, and so are those of nodes with ``_partial_: true``,
        because
    callers of the partial function may give them by position. If the default is a node, a dict without a
    target becomes that node with the entries of the dict. Nodes whose target cannot be imported do not
    change.

    Raises:
        ConfigError: a node has a key that its target does not take, naming the nearest; or ``config`` holds
            an object that a config file cannot.
    """
    plain = to_plain(config)
    fill_in(plain)
    for keys, node in walk(plain):
        complaint = signature_of(node[TARGET]).complaint(node) if is_node(node) else None
        if complaint:
            raise ConfigError(f"{dotted(keys) or 'the config'} ({node[TARGET]}): {complaint}")
    return create_config(plain)


def fill_in(plain: Any) -> bool:
    """Writes the defaults into ``plain``, a config of plain values; returns whether any were missing.

    Names are not checked.
    """
    missing = False
    for _, node in walk(plain):
        parameters = signature_of(node[TARGET]).parameters if is_node(node) else {}
        for key, parameter in parameters.items():
            value = node.get(key)
            if isinstance(value, dict) and TARGET not in value and parameter.node:
                node[key] = {**parameter.node, **value}
            elif key not in node and parameter.default is not NO_VALUE and not node.get(PARTIAL):
                node[key] = copy.deepcopy(parameter.default)
            missing |= node.get(key) is not value
    return missing

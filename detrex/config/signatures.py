"""The keys, types and defaults of a target's keywords, which define what a node may hold.

A config contains what differs from the defaults of its targets. Overrides, saving, building and the check of
names get the rest from here.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from detrex.config.lazy import ConfigError, hint, locate, name_of, to_plain
from detrex.config.walking import PARTIAL, TARGET, is_node


class NoValue:
    """Stands for a default that a config cannot hold, or for no default."""


NO_VALUE = NoValue()
_MODULES = "torch.nn.modules.module"  # where nn.Module is


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A keyword of a target.

    Attributes:
        annotation: the type; ``Any`` if there is none, or it cannot be read.
        required: whether the target has no default for it.
        default: in the form of configs, or ``NO_VALUE``.
    """

    annotation: Any
    required: bool = True
    default: Any = NO_VALUE

    @property
    def node(self) -> dict[str, Any] | None:
        """The node that a dict without a target changes: the default, or one of the annotated dataclass."""
        if is_node(self.default):
            return copy.deepcopy(self.default)
        kinds = [kind for kind in alternatives(self.annotation) if kind is not type(None)]
        only = kinds[0] if len(kinds) == 1 else None
        return {TARGET: name_of(only)} if dataclasses.is_dataclass(only) else None


@dataclasses.dataclass(frozen=True)
class Signature:
    """The keywords of a target.

    Attributes:
        parameters: by name.
        is_open: whether the target takes any other keyword, too.
        returned: the annotated type of the result; ``Any`` if it has no annotation.
    """

    parameters: Mapping[str, Parameter]
    is_open: bool
    returned: Any

    def complaint(self, keys: Iterable[Any]) -> str | None:
        """The error for the first of ``keys`` that the target does not take; None if it takes all of them."""
        for key in () if self.is_open else keys:
            if key not in (*self.parameters, TARGET, PARTIAL):
                takes = ", ".join(self.parameters) or "no keywords"
                return f"unexpected keyword '{key}'{hint(str(key), self.parameters)}; it takes {takes}"
        return None


UNKNOWN = Signature({}, True, Any)


def signature_of(target: Any) -> Signature:
    """The keywords of a class or function, which may be given by its dotted name.

    If a constructor passes others to its parent class (``**others``), the parent's keywords belong to it,
    too.
    A target that cannot be imported, called or inspected accepts anything: building it reports the error.
    """
    if isinstance(target, str):
        try:
            target = locate(target)
        except Exception:  # importing a module can raise anything
            return UNKNOWN
    return _read(target) if callable(target) else UNKNOWN


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types of a union; any other type alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(option for part in typing.get_args(annotation) for option in alternatives(part))
    return (annotation,)


@functools.cache
def _read(function: Callable[..., Any]) -> Signature:
    parameters: dict[str, Parameter] = {}
    returned: Any = function if isinstance(function, type) else Any
    is_parent = False
    try:
        for signature, owner, names in _signatures(function):
            if owner is None:
                returned = _resolve(signature.return_annotation, names)
            for name, parameter in signature.parameters.items():
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    found = _parameter(parameter, owner, names)
                    # A constructor passes required arguments to its parents.
                    required = found.required and not is_parent
                    parameters.setdefault(name, dataclasses.replace(found, required=required))
            is_parent = True
            if not _takes_others(signature):
                return Signature(parameters, False, returned)
    except (TypeError, ValueError):  # some built-in functions have no signature
        pass
    return Signature(parameters, True, returned)


def _signatures(
    function: Callable[..., Any],
) -> Iterator[tuple[inspect.Signature, type | None, Mapping[str, Any]]]:
    """Signatures that successively take keywords, each with its class and the meaning of its names."""
    if not isinstance(function, type):
        yield inspect.signature(function), None, _names(function)
        return
    signature = inspect.signature(function)
    constructors = [(kind, vars(kind)["__init__"]) for kind in function.__mro__ if "__init__" in vars(kind)]
    if not _takes_others(signature):
        yield signature, function, _names(*reversed(constructors[0]))
        return
    for owner, constructor in constructors:
        # Signatures of nn.Module accept anything, but its constructor does not.
        if owner is not object and owner.__module__ != _MODULES:
            signature = inspect.signature(constructor)
            others = list(signature.parameters.values())[1:]  # all but self
            yield signature.replace(parameters=others), owner, _names(constructor, owner)


def _takes_others(signature: inspect.Signature) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())


def _names(function: Callable[..., Any], owner: type | None = None) -> Mapping[str, Any]:
    """The objects that names in annotations of ``function`` stand for."""
    module = sys.modules.get(owner.__module__ if owner else "")
    return getattr(inspect.unwrap(function), "__globals__", vars(module) if module else {})


def _resolve(annotation: Any, names: Mapping[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(names))  # like Python: annotations are code of the same module
    except Exception:  # names that are imported for type checkers only, for example
        return Any


def _parameter(parameter: inspect.Parameter, owner: type | None, names: Mapping[str, Any]) -> Parameter:
    annotation = _resolve(parameter.annotation, names)
    if parameter.default is parameter.empty:
        return Parameter(annotation)
    default = parameter.default
    fields = dataclasses.fields(owner) if owner is not None and dataclasses.is_dataclass(owner) else ()
    for field in fields:
        if field.name == parameter.name and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
    if default is None and annotation is not Any:
        annotation = typing.Union[annotation, None]  # noqa: UP007 # `|` is not for texts
    return Parameter(annotation, False, _plain(default))


def _plain(default: Any) -> Any:
    """``default`` in the form of configs, where an object of a dataclass is a node."""
    try:
        if dataclasses.is_dataclass(default) and not isinstance(default, type):
            fields = {f.name: _plain(getattr(default, f.name)) for f in dataclasses.fields(default) if f.init}
            held = {name: value for name, value in fields.items() if value is not NO_VALUE}
            return {TARGET: name_of(type(default)), **held} if len(held) == len(fields) else NO_VALUE
        return to_plain(default)
    except ConfigError:
        return NO_VALUE

"""A machine that carries out the few instructions of a pickle that plain data and arrays consist of.

A pickle is a program for a stack machine that may call any function of any installed module. Restricting the
lookup of names in Python's own machine leaves ways around it (the registry of extensions, hashing of deeply
nested keys), so this one has no means to import anything and knows no other instructions.
"""

from __future__ import annotations

import inspect
import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_LONGEST_NUMBER = 40  # digits or bytes


class RefusedError(Exception):
    """A pickle does what plain data does not need; the message goes on from "the file"."""


@dataclass(frozen=True)
class Global:
    """Stands for a function or class: its name alone."""

    name: str


class Machine:
    """Carries out a pickle of any protocol; strings of Python 2 are taken for Latin-1.

    Args:
        data: the pickle.
        calls: what is called in place of the functions and classes that the pickle names, by full name;
            others are refused.
        set_state: called with an object and the state that the pickle gives it.
    """

    def __init__(
        self,
        data: bytes,
        calls: Mapping[str, Callable[..., object]],
        set_state: Callable[[object, object], None],
    ):
        self._data = data
        self._calls = calls
        self._set_state = set_state
        self._position = 0
        self._stack: list = []
        self._below: list[list] = []  # what was on the stack at each mark
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        """The object that is on the stack when the pickle stops.

        Raises:
            RefusedError: the pickle does what plain data does not need.
            ValueError: it is truncated or damaged.
        """
        while (code := self.take(1)) != pickle.STOP:
            if code in _LITERALS:
                self.push(_LITERALS[code](self))
            elif code in _ACTIONS:
                _ACTIONS[code](self)
            else:
                known = pickletools.code2op.get(code.decode("latin-1"))
                if known is None:
                    raise ValueError(f"byte {code.hex()} at {self._position - 1} is no instruction")
                raise RefusedError(f"has the pickle instruction {known.name} at byte {self._position - 1}")
        return self.pop()

    def take(self, count: int) -> bytes:
        """The next bytes."""
        end = self._position + count
        if count < 0 or end > len(self._data):
            raise ValueError(f"at byte {self._position}, {count} bytes are due and less are left")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def line(self) -> bytes:
        """The bytes before the next line break."""
        end = self._data.find(b"\n", self._position)
        if end < 0:
            raise ValueError(f"the line at byte {self._position} has no end")
        return self.take(end + 1 - self._position)[:-1]

    def number(self, layout: str) -> int | float:
        """The next number, of a layout of ``struct``."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def pop(self) -> object:
        if not self._stack:
            raise ValueError(f"nothing is on the stack at byte {self._position}")
        return self._stack.pop()

    def items(self) -> list:
        """Takes everything above the last mark off the stack."""
        if not self._below:
            raise ValueError(f"there is no mark at byte {self._position}")
        items, self._stack = self._stack, self._below.pop()
        return items

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def push(self, value: object) -> None:
        self._stack.append(value)

    def top(self) -> object:
        self.push(value := self.pop())
        return value

    def put(self, index: int) -> None:
        self._memo[index] = self.top()

    def memoize(self) -> None:
        self.put(len(self._memo))

    def get(self, index: int) -> object:
        if index not in self._memo:
            raise ValueError(f"object {index}, asked for at byte {self._position}, was not kept")
        return self._memo[index]

    def check_protocol(self) -> None:
        if (protocol := self.number("<B")) > 5:
            raise ValueError(f"it is of pickle protocol {protocol}")

    def tuple_of(self, count: int) -> tuple:
        return tuple(reversed([self.pop() for _ in range(count)]))

    def name(self, module: object, name: object) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise RefusedError("asks for something whose name is no text")
        if (full := f"{module}.{name}") not in self._calls:
            raise RefusedError(f"asks for {full[:200]}")
        return Global(full)

    def call(self) -> None:
        function, arguments = self.tuple_of(2)
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise RefusedError("calls something that is no function")
        substitute = self._calls[function.name]
        try:
            inspect.signature(substitute).bind(*arguments)
        except TypeError as error:
            raise ValueError(f"{function.name}: {error}") from None
        self.push(substitute(*arguments))

    def append(self, items: list) -> None:
        if not isinstance(target := self.top(), list):
            raise ValueError("an element for something that is no list")
        target.extend(items)

    def set_items(self, items: list) -> None:
        target = self.top()
        for key, value in _pairs(items):
            _set_item(target, key, value)

    def set_state(self) -> None:
        state = self.pop()
        self._set_state(self.top(), state)


def dict_of(items: object = ()) -> dict:
    """A dict of pairs.

    Raises:
        RefusedError, ValueError: as :meth:`Machine.run`.
    """
    if not isinstance(items, (list, tuple)):
        raise ValueError("a dict is made of no list")
    out: dict = {}
    for item in items:
        if not isinstance(item, (list, tuple)) or len(item) != 2:
            raise ValueError("an entry of a dict is no pair")
        _set_item(out, *item)
    return out


def _set_item(target: object, key: object, value: object) -> None:
    if not isinstance(target, dict):
        raise ValueError("an entry for something that is no dict")
    # Text and numbers only: to hash nested tuples can overflow the C stack.
    if not isinstance(key, (str, int)):
        raise RefusedError(f"has a dict with a {type(key).__name__.lstrip('_')} as key")
    target[key] = value


def _pairs(items: list) -> list[tuple]:
    if len(items) % 2:
        raise ValueError("the last key of a dict has no value")
    return list(zip(items[::2], items[1::2], strict=True))


def _decimal(text: bytes) -> int | bool:
    """Protocol 0 writes booleans as 00 and 01."""
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return text == b"01" if text in (b"00", b"01") else int(text.removesuffix(b"L"))


def _long(data: bytes) -> int:
    if len(data) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(data)} bytes")
    return int.from_bytes(data, "little", signed=True)


def _quoted(line: bytes) -> str:
    """Text as Python 2 writes it in protocol 0, with quotes and escapes."""
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("text without quotes")
    return line[1:-1].decode("unicode_escape")


# Instructions that put a value on the stack.
_LITERALS: dict[bytes, Callable[[Machine], object]] = {
    pickle.NONE: lambda _: None,
    pickle.NEWTRUE: lambda _: True,
    pickle.NEWFALSE: lambda _: False,
    pickle.INT: lambda m: _decimal(m.line()),
    pickle.LONG: lambda m: _decimal(m.line()),
    pickle.BININT: lambda m: m.number("<i"),
    pickle.BININT1: lambda m: m.number("<B"),
    pickle.BININT2: lambda m: m.number("<H"),
    pickle.LONG1: lambda m: _long(m.take(m.number("<B"))),
    pickle.FLOAT: lambda m: float(m.line()),
    pickle.BINFLOAT: lambda m: m.number(">d"),
    pickle.STRING: lambda m: _quoted(m.line()),
    pickle.SHORT_BINSTRING: lambda m: m.take(m.number("<B")).decode("latin-1"),
    pickle.BINSTRING: lambda m: m.take(m.number("<i")).decode("latin-1"),
    pickle.UNICODE: lambda m: m.line().decode("raw_unicode_escape"),
    pickle.SHORT_BINUNICODE: lambda m: m.take(m.number("<B")).decode(),
    pickle.BINUNICODE: lambda m: m.take(m.number("<I")).decode(),
    pickle.BINUNICODE8: lambda m: m.take(m.number("<Q")).decode(),
    pickle.SHORT_BINBYTES: lambda m: m.take(m.number("<B")),
    pickle.BINBYTES: lambda m: m.take(m.number("<I")),
    pickle.BINBYTES8: lambda m: m.take(m.number("<Q")),
    pickle.BYTEARRAY8: lambda m: m.take(m.number("<Q")),
    pickle.EMPTY_TUPLE: lambda _: (),
    pickle.EMPTY_LIST: lambda _: [],
    pickle.EMPTY_DICT: lambda _: {},
    pickle.TUPLE: lambda m: tuple(m.items()),
    pickle.TUPLE1: lambda m: m.tuple_of(1),
    pickle.TUPLE2: lambda m: m.tuple_of(2),
    pickle.TUPLE3: lambda m: m.tuple_of(3),
    pickle.LIST: lambda m: m.items(),
    pickle.DICT: lambda m: dict_of(_pairs(m.items())),
    pickle.GET: lambda m: m.get(_decimal(m.line())),
    pickle.BINGET: lambda m: m.get(m.number("<B")),
    pickle.LONG_BINGET: lambda m: m.get(m.number("<I")),
    pickle.GLOBAL: lambda m: m.name(m.line().decode(), m.line().decode()),
    pickle.STACK_GLOBAL: lambda m: m.name(*m.tuple_of(2)),
}
# Instructions that do something to what is there.
_ACTIONS: dict[bytes, Callable[[Machine], object]] = {
    pickle.PROTO: Machine.check_protocol,
    pickle.FRAME: lambda m: m.take(8),
    pickle.MARK: Machine.mark,
    pickle.PUT: lambda m: m.put(_decimal(m.line())),
    pickle.BINPUT: lambda m: m.put(m.number("<B")),
    pickle.LONG_BINPUT: lambda m: m.put(m.number("<I")),
    pickle.MEMOIZE: Machine.memoize,
    pickle.APPEND: lambda m: m.append([m.pop()]),
    pickle.APPENDS: lambda m: m.append(m.items()),
    pickle.SETITEM: lambda m: m.set_items(list(m.tuple_of(2))),
    pickle.SETITEMS: lambda m: m.set_items(m.items()),
    pickle.REDUCE: Machine.call,
    pickle.BUILD: Machine.set_state,
}

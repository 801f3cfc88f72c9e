"""Records and values of algebraic types as files have them: ``[1, nil]``, ``$Leaf(1)``.

Inside of one, values are written as elsewhere in files; a text ends where the record goes on, so one that has
a comma or a closing sign in it stands in double quotes, with a backslash before a quote and a backslash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from dataflow_serve.protocol import Column, TypeInfo
from dataflow_serve.values import Branch

__all__ = ["defined_reader"]

MAX_DEPTH = 100
"""How deep records may stand in one another; the server takes no deeper ones."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PLAIN = re.compile(r"[^,\])]*")
_NAME = re.compile(r"\$([A-Za-z_?][A-Za-z0-9_?]*(?:\.[A-Za-z_?][A-Za-z0-9_?]*)*)")
_SPACE = re.compile(r"\s*")


def defined_reader(column: Column, simple: Mapping[str, Callable[[str], Any]]) -> Callable[[str], Any]:
    """What reads the values of a column of a defined type; raises `ValueError` for other texts.

    Args:
        column: The column, with the definitions.
        simple: What reads the types that aren't defined, by name.
    """
    types = column.types or {}

    def read(text: str) -> Any:
        reader = _Reader(text, types, simple)
        value = reader.value(column.type, 0)
        reader.end()
        return value

    return read


class _Reader:
    def __init__(
        self, text: str, types: Mapping[str, TypeInfo], simple: Mapping[str, Callable[[str], Any]]
    ) -> None:
        self._text = text
        self._types = types
        self._simple = simple
        self._at = 0

    def value(self, kind: str, depth: int) -> Any:
        self._skip()
        info = self._types.get(kind)
        if info is None:
            return self._simple[kind](self._piece())
        if depth > MAX_DEPTH:
            raise ValueError(self._text)
        if info.record is not None:
            if self._text.startswith("nil", self._at):
                self._at += 3
                return None
            return self._fields("[", "]", info.record, depth)
        name = _NAME.match(self._text, self._at)
        fields = None if name is None else (info.branches or {}).get(name[1])
        if name is None or fields is None:
            raise ValueError(self._text)
        self._at = name.end()
        if not fields and not self._text.startswith("(", self._at):
            return Branch(name[1])
        return Branch(name[1], self._fields("(", ")", fields, depth))

    def end(self) -> None:
        self._skip()
        if self._at != len(self._text):
            raise ValueError(self._text)

    def _fields(self, opening: str, closing: str, fields: tuple[Column, ...], depth: int) -> tuple[Any, ...]:
        self._expect(opening)
        values: list[Any] = []
        for field in fields:
            if values:
                self._expect(",")
            values.append(self.value(field.type, depth + 1))
        self._expect(closing)
        return tuple(values)

    def _piece(self) -> str:
        quoted = _QUOTED.match(self._text, self._at)
        if quoted is not None:
            self._at = quoted.end()
            return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
        plain = _PLAIN.match(self._text, self._at)
        assert plain is not None
        self._at = plain.end()
        return plain[0].rstrip()

    def _expect(self, sign: str) -> None:
        self._skip()
        if not self._text.startswith(sign, self._at):
            raise ValueError(self._text)
        self._at += 1

    def _skip(self) -> None:
        space = _SPACE.match(self._text, self._at)
        assert space is not None
        self._at = space.end()

"""The types of columns, and what the language calls them."""

from __future__ import annotations

import datetime
import enum
import uuid
from typing import NamedTuple

__all__ = ["ALIASES", "BUILT_IN", "Branch", "Column", "Composite", "Kind", "Scalar", "Type"]

Scalar = int | float | str | bool | datetime.datetime | uuid.UUID | bytes
"""A value of a column."""


class Type(enum.StrEnum):
    """The type of a column; the value is its name on the wire and in programs."""

    NUMBER = "number"
    UNSIGNED = "unsigned"
    FLOAT = "float"
    SYMBOL = "symbol"
    BOOL = "bool"
    INSTANT = "instant"
    UUID = "uuid"
    BYTES = "bytes"


class Composite:
    """A record type, or an algebraic one; equal to those of the same definition."""

    __slots__ = ("branches", "id", "name")

    def __init__(self, name: str, identity: str = "") -> None:
        """A type whose branches, and id if it isn't known, are still to be set: they may contain it."""
        self.name = name
        self.id = identity
        self.branches: tuple[Branch, ...] = ()

    @property
    def value(self) -> str:
        """What plans call it."""
        return self.id

    @property
    def record(self) -> Branch | None:
        """What a record holds, if it is a record type."""
        return self.branches[0] if self.branches and self.branches[0].name is None else None

    @property
    def has_order(self) -> bool:
        """Whether choices and subsumption can order its values: it isn't part of itself, nor large."""
        return _conditions(self, MAX_ORDERED_DEPTH, MAX_ORDERED) <= MAX_ORDERED

    def __eq__(self, other: object) -> bool:
        """Whether both are defined alike."""
        return isinstance(other, Composite) and (self is other or (self.id == other.id and self.id != ""))

    def __hash__(self) -> int:
        """By definition; types that aren't identified yet have no place in a table."""
        return hash(self.id)

    def __str__(self) -> str:
        """Its name in programs."""
        return self.name

    def __repr__(self) -> str:
        """Its name, and the definition it stands for."""
        return f"Composite({self.name}{self.id})"


MAX_ORDERED_DEPTH = 12
"""How deep records with an order may stand in one another."""
MAX_ORDERED = 256
"""Conditions that it may take to say which of two records comes first."""


def _conditions(kind: Kind, depth: int, most: int) -> int:
    """How many conditions an order of values needs; some number above ``most`` if it needs more."""
    if isinstance(kind, Type):
        return 1
    if depth == 0:
        return most + 1
    count = len(kind.branches)
    found = 1 + count * (count - 1) // 2
    for branch in kind.branches:
        for field in branch.fields:
            if found > most:
                return found
            found += _conditions(field.type, depth - 1, most - found)
    return found


Kind = Type | Composite
"""The type of a column, a variable or a term."""


class Column(NamedTuple):
    """A named, typed column of a relation, or field of a record."""

    name: str
    type: Kind

    def __str__(self) -> str:
        """As in a declaration."""
        return f"{self.name}: {self.type}"


class Branch(NamedTuple):
    """A way to make a value of an algebraic type; that of a record has no name."""

    name: str | None
    fields: tuple[Column, ...]

    def __str__(self) -> str:
        """As in a declaration."""
        fields = ", ".join(map(str, self.fields))
        return f"[{fields}]" if self.name is None else f"{self.name} {{ {fields} }}".replace("{  }", "{}")


BUILT_IN: dict[str, Type] = {kind.value: kind for kind in Type}
"""The types by their own names."""

ALIASES: dict[str, Type] = {
    **BUILT_IN,
    **{f"int{bits}": Type.NUMBER for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": Type.UNSIGNED for bits in (8, 16, 32, 64)},
    "float32": Type.FLOAT,
    "float64": Type.FLOAT,
    "string": Type.SYMBOL,
}
"""Every type name that needs no declaration; sized types keep the range of 64 bits."""

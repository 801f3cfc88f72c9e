"""The types of columns, and what the language calls them."""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["ALIASES", "BUILT_IN", "Column", "Scalar", "Type"]

Scalar = int | float | str | bool
"""A value of a column."""


class Type(enum.StrEnum):
    """The type of a column; the value is its name on the wire and in programs."""

    NUMBER = "number"
    UNSIGNED = "unsigned"
    FLOAT = "float"
    SYMBOL = "symbol"
    BOOL = "bool"


class Column(NamedTuple):
    """A named, typed column of a relation."""

    name: str
    type: Type

    def __str__(self) -> str:
        """As in a declaration."""
        return f"{self.name}: {self.type.value}"


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

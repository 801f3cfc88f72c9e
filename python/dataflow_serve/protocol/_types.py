"""Where the protocol is spoken, how its words become bytes, and what columns are."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from msgspec import Struct

__all__ = ["DEFAULT_PORT", "PREAMBLE", "VERSION", "Column", "Encoding", "Row", "TypeInfo", "Value"]

VERSION = 1
"""The protocol's version, as `Hello` says it."""

PREAMBLE = b"\xdfFL\x01"
"""First bytes of a connection that goes on in length-prefixed MessagePack."""

DEFAULT_PORT = 6262
"""Where a server listens unless told otherwise."""

Value: TypeAlias = Any
"""A column's value, as its type says: int, float, str, bool, datetime, UUID or bytes, for a record a tuple or
None, for an algebraic type a `Branch`."""

Row: TypeAlias = tuple[Value, ...]
"""Values in column order."""


class Encoding(enum.Enum):
    """How the words of one message become bytes."""

    JSON = "json"
    MESSAGEPACK = "messagepack"


class TypeInfo(Struct, frozen=True):
    """What values of a defined type hold: the fields of a record, or those of each branch."""

    record: tuple[Column, ...] | None = None
    branches: Mapping[str, tuple[Column, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a relation: its name and its type's name.

    Attributes:
        name: As declared.
        type: As declared, aliases resolved.
        types: The definitions of record types and algebraic types by name, where the column's is one of them.
    """

    name: str
    type: str
    types: Mapping[str, TypeInfo] | None = field(default=None, compare=False, repr=False)

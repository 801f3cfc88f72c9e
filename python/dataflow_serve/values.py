"""Values that have a text of their own: how instants, uuids and bytes are written.

The same text stands in programs (``to_instant("…")``), in JSON, in files and on the command line. All readers
raise `ValueError` for what isn't such a text.
"""

from __future__ import annotations

import base64
import datetime
import re
import uuid
from typing import Any, Final

__all__ = [
    "Branch",
    "instant_text",
    "instant_value",
    "parse_bytes",
    "parse_instant",
    "parse_uuid",
    "value_order",
    "value_text",
]


class Branch:
    """A value of an algebraic type: ``Branch("Leaf", (1,))`` is ``$Leaf(1)`` in programs.

    A record is a tuple, and ``nil`` is None. Neither changes once it is made.
    """

    # Not a dataclass: msgspec would spell that by itself, and otherwise.
    __slots__ = ("name", "values")
    __match_args__ = ("name", "values")

    def __init__(self, name: str, values: tuple[Any, ...] = ()) -> None:
        """A value of the branch ``name`` that holds ``values``, in the order of its fields."""
        self.name: Final = name
        self.values: Final = values

    def __eq__(self, other: object) -> bool:
        """Whether both are of the same branch and hold the same."""
        if not isinstance(other, Branch):
            return NotImplemented
        return (self.name, self.values) == (other.name, other.values)

    def __hash__(self) -> int:
        """Equal for equal values."""
        return hash((self.name, self.values))

    def __repr__(self) -> str:
        """As it is made in Python."""
        return f"Branch({self.name!r}, {self.values!r})"

    def __str__(self) -> str:
        """As in programs and in files."""
        return value_text(self)


_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def parse_instant(text: str) -> datetime.datetime:
    """An instant as RFC 3339 writes it, with any offset, no finer than microseconds; it is in UTC.

    Raises:
        ValueError: it isn't one.
    """
    found = _INSTANT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no instant")
    year, month, day, hour, minute, second = map(int, found.group(1, 2, 3, 4, 5, 6))
    micros = int((found[7] or "").ljust(6, "0"))
    offset = datetime.timedelta()
    if found[8] is not None:
        hours, minutes = int(found[9]), int(found[10])
        if hours > 23 or minutes > 59:
            raise ValueError(f"{text!r} has no such offset")
        offset = datetime.timedelta(hours=hours, minutes=minutes)
        offset = -offset if found[8] == "-" else offset
    local = datetime.datetime(year, month, day, hour, minute, second, micros, tzinfo=datetime.UTC)
    try:
        return local - offset
    except OverflowError:
        raise ValueError(f"{text!r} is outside of the years 1 to 9999") from None


def instant_text(moment: datetime.datetime) -> str:
    """The text of an instant, as the server writes it."""
    utc = moment.astimezone(datetime.UTC)
    return f"{utc.year:04}{utc:-%m-%dT%H:%M:%S.%f}Z"


def instant_value(value: datetime.datetime) -> datetime.datetime:
    """An instant from a date and time that says its offset, in UTC.

    Raises:
        ValueError: it says none, or is finer than microseconds.
    """
    if value.tzinfo is None:
        raise ValueError(f"{value} has no time zone")
    if getattr(value, "nanosecond", 0):
        raise ValueError(f"{value} is finer than microseconds")
    utc = value.astimezone(datetime.UTC)
    # Of a subclass, such as pandas' own, what remains is the plain value.
    return datetime.datetime(
        utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, datetime.UTC
    )


def value_text(value: object) -> str:
    """A value as files and terminals show it; floats as Python has them."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case datetime.datetime():
            return instant_text(value)
        case bytes():
            return base64.b64encode(value).decode()
        case None:
            return "nil"
        case tuple():
            return f"[{', '.join(map(_inner_text, value))}]"
        case Branch(name, values):
            return f"${name}({', '.join(map(_inner_text, values))})" if values else f"${name}"
        case _:
            return str(value)


_WANTS_QUOTES = re.compile(r'[,"\\\[\]()]|^\s|\s$|^$')


def _inner_text(value: object) -> str:
    """A value in a record: a text stands in quotes where it could be taken for something else."""
    if isinstance(value, str) and _WANTS_QUOTES.search(value):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return value_text(value)


def value_order(value: object) -> tuple[object, ...]:
    """A key that orders the values of one type, records too; what isn't a number comes after all floats."""
    match value:
        case None:
            return (0,)
        case tuple():
            return (1, tuple(map(value_order, value)))
        case Branch(name, values):
            return (name, tuple(map(value_order, values)))
        case _:
            return (value != value, value)


def parse_uuid(text: str) -> uuid.UUID:
    """A uuid with its hyphens.

    Raises:
        ValueError: it isn't one.
    """
    if _UUID.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no uuid")
    return uuid.UUID(text)


def parse_bytes(text: str) -> bytes:
    """Bytes as base64 of the standard alphabet, padded.

    Raises:
        ValueError: it isn't that.
    """
    value = base64.b64decode(text, validate=True)
    if base64.b64encode(value).decode() != text:
        raise ValueError(f"{text!r} is not the base64 of anything")
    return value

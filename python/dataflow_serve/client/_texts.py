"""Values from text, as files have them.

Numbers are decimal, or hexadecimal and binary with their prefixes; truth values are ``true`` and ``false``
(or ``1`` and ``0``). Instants are written as RFC 3339 has it, uuids with hyphens, bytes in base64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dataflow_serve.client._records import defined_reader
from dataflow_serve.errors import IncorrectError
from dataflow_serve.protocol import Column
from dataflow_serve.values import parse_bytes, parse_instant, parse_uuid

__all__ = ["A_VALUE", "reader_of", "value_from_text"]

A_VALUE: Mapping[str, str] = {
    "number": "a number (64 bits, signed)",
    "unsigned": "an unsigned number (64 bits)",
    "float": "a float",
    "bool": "true or false",
    "symbol": "a symbol",
    "instant": "an instant with its offset, as in 2026-11-23T21:00:00Z, no finer than microseconds",
    "uuid": "a uuid",
    "bytes": "bytes (in text: base64)",
}
"""What a value of a type is called where another one stands."""


def _integer(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        # int() takes base 0 for prefixes, but then refuses leading zeros: only a second choice.
        value = int(text, 0)
    if "_" in text:
        raise ValueError(text)
    return value


def _number(text: str) -> int:
    value = _integer(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(text)
    return value


def _unsigned(text: str) -> int:
    value = _integer(text)
    if not 0 <= value < 2**64:
        raise ValueError(text)
    return value


def _float(text: str) -> float:
    if "_" in text:
        raise ValueError(text)
    return float(text)


_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def _bool(text: str) -> bool:
    if text not in _TRUTH:
        raise ValueError(text)
    return _TRUTH[text]


def _symbol(text: str) -> str:
    return text


def reader_of(column: Column) -> Callable[[str], Any]:
    """What reads a column's values from text."""
    if column.types is not None:
        return defined_reader(column, _FROM_TEXT)
    return _FROM_TEXT[column.type]


_FROM_TEXT: Mapping[str, Callable[[str], Any]] = {
    "number": _number,
    "unsigned": _unsigned,
    "float": _float,
    "bool": _bool,
    "symbol": _symbol,
    "instant": parse_instant,
    "uuid": parse_uuid,
    "bytes": parse_bytes,
}


def value_from_text(column: Column, text: str) -> Any:
    """A value for a column, written as in files.

    Raises:
        IncorrectError: it doesn't fit.
    """
    try:
        return reader_of(column)(text)
    except ValueError:
        what = A_VALUE.get(column.type, f"a {column.type}")
        raise IncorrectError(f"column {column.name!r}: {text!r} is not {what}") from None

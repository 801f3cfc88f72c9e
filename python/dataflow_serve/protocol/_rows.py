"""Rows as they are decoded, to rows of Python values."""

from __future__ import annotations

import datetime
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from dataflow_serve.errors import RemoteProtocolError
from dataflow_serve.protocol._types import Column, Encoding, Row, TypeInfo
from dataflow_serve.values import Branch, instant_value, parse_bytes, parse_instant, parse_uuid

__all__ = ["row_reader"]

_NAN = math.nan


def _float(value: Any) -> float:
    # Every NaN becomes the same object: tuples then compare and hash equal, as the protocol's NaNs do.
    number = float(value)
    return number if number == number else _NAN


def _instant(value: Any) -> datetime.datetime:
    return parse_instant(value) if isinstance(value, str) else instant_value(value)


def _uuid(value: Any) -> uuid.UUID:
    return parse_uuid(value) if isinstance(value, str) else uuid.UUID(bytes=bytes(value))


def _bytes(value: Any) -> bytes:
    return parse_bytes(value) if isinstance(value, str) else bytes(value)


def _defined(kind: str, types: Mapping[str, TypeInfo]) -> Callable[[Any], Any]:
    """A reader of a defined type's values. Rows must be hashable, so records become tuples."""

    def fields(values: Sequence[Any], columns: tuple[Column, ...]) -> tuple[Any, ...]:
        return tuple(read(value, column.type) for value, column in zip(values, columns, strict=True))

    def read(value: Any, name: str) -> Any:
        info = types.get(name)
        if info is None:
            reader = _READERS.get(name)
            return value if reader is None else reader(value)
        if info.record is not None:
            return None if value is None else fields(value, info.record)
        ((branch, values),) = value.items()
        name = branch.removeprefix("$")
        return Branch(name, fields(values, (info.branches or {})[name]))

    return lambda value: read(value, kind)


_SPELLED_AS_THEMSELVES = frozenset({"number", "unsigned", "symbol", "bool"})
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "float": _float,
    "instant": _instant,
    "uuid": _uuid,
    "bytes": _bytes,
}


def row_reader(columns: Sequence[Column], encoding: Encoding) -> Callable[[Row], Row] | None:
    """The function that turns decoded rows into rows of Python values, or None where they are already.

    Reading a value that doesn't fit its column raises `RemoteProtocolError`.
    """
    if all(column.type in _SPELLED_AS_THEMSELVES for column in columns):
        return None
    readers = [
        None
        if column.type in _SPELLED_AS_THEMSELVES
        else _READERS.get(column.type) or _defined(column.type, column.types or {})
        for column in columns
    ]

    def read(row: Row) -> Row:
        try:
            return tuple(
                value if reader is None else reader(value) for reader, value in zip(readers, row, strict=True)
            )
        except (TypeError, ValueError, LookupError, AttributeError, msgspec.MsgspecError) as error:
            raise RemoteProtocolError(
                f"the server sent a row that does not fit its columns: {error}"
            ) from error

    return read

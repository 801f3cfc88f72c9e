"""Rows of Python values, checked against their columns."""

from __future__ import annotations

import datetime
import operator
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dataflow_serve.client._texts import A_VALUE, reader_of
from dataflow_serve.errors import IncorrectError
from dataflow_serve.protocol import Column, Row
from dataflow_serve.values import instant_value, parse_instant, parse_uuid

__all__ = ["ObjectSource"]


class ObjectSource:
    """Rows of Python values, such as an iterable or a data frame gives."""

    def __init__(self, rows: Iterable[Iterable[Any]], columns: Sequence[Column], length: int | None) -> None:
        self._rows = rows
        self._columns = columns
        self._length = length
        self._read = 0

    @property
    def fraction(self) -> float | None:
        """The part of the rows that was read, where their number is known."""
        return None if not self._length else self._read / self._length

    def __iter__(self) -> Iterator[Row]:
        """Check each row against the columns."""
        converters = [_from_object(column) for column in self._columns]
        for row in self._rows:
            try:
                if isinstance(row, str):
                    raise TypeError("a text is not a row")
                yield tuple([convert(value) for convert, value in zip(converters, row, strict=True)])
            except (TypeError, ValueError, OverflowError) as error:
                raise IncorrectError(f"row {self._read} is {row!r}: {self._misfit(row)}") from error
            self._read += 1

    def _misfit(self, row: Iterable[Any]) -> str:
        values = list(row) if isinstance(row, Iterable) and not isinstance(row, str) else None
        if values is None or len(values) != len(self._columns):
            return f"expected a tuple of {len(self._columns)}"
        for column, value in zip(self._columns, values, strict=True):
            try:
                _from_object(column)(value)
            except (TypeError, ValueError, OverflowError):
                what = A_VALUE.get(column.type, f"a {column.type}")
                return f"column {column.name!r} has {value!r}, which is not {what}"
        return "it does not fit"


def _number_object(value: Any) -> int:
    number = operator.index(value)
    if isinstance(value, bool) or not -(2**63) <= number < 2**63:
        raise ValueError(value)
    return number


def _unsigned_object(value: Any) -> int:
    number = operator.index(value)
    if isinstance(value, bool) or not 0 <= number < 2**64:
        raise ValueError(value)
    return number


def _float_object(value: Any) -> float:
    if value is None or isinstance(value, bool | str | bytes):
        raise ValueError(value)
    return float(value)


def _symbol_object(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _bool_object(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise ValueError(value)


def _instant_object(value: Any) -> datetime.datetime:
    if isinstance(value, str):
        return parse_instant(value)
    if not isinstance(value, datetime.datetime):
        raise ValueError(value)
    return instant_value(value)


def _uuid_object(value: Any) -> uuid.UUID:
    match value:
        case uuid.UUID():
            return value
        case str():
            return parse_uuid(value)
        case bytes():
            return uuid.UUID(bytes=value)
        case _:
            raise ValueError(value)


def _bytes_object(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise ValueError(value)
    return bytes(value)


def _from_object(column: Column) -> Callable[[Any], Any]:
    """What checks and converts a column's values."""
    if column.types is None:
        return _FROM_OBJECT[column.type]
    read = reader_of(column)
    # The server checks what is in a record that isn't text.
    return lambda value: read(value) if isinstance(value, str) else value


_FROM_OBJECT: Mapping[str, Callable[[Any], Any]] = {
    "number": _number_object,
    "unsigned": _unsigned_object,
    "float": _float_object,
    "symbol": _symbol_object,
    "bool": _bool_object,
    "instant": _instant_object,
    "uuid": _uuid_object,
    "bytes": _bytes_object,
}

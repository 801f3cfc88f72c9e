"""Rows that are in MessagePack already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import msgspec

from dataflow_serve.protocol._rows import row_reader
from dataflow_serve.protocol._types import Column, Encoding, Row

__all__ = ["PackedRows"]

_ROWS = msgspec.msgpack.Decoder(list[tuple[Any, ...]])


class PackedRows(Sequence[Row]):
    """Rows for a transaction as they are sent; going through them makes rows of Python values."""

    __slots__ = ("_columns", "_count", "packed")

    def __init__(self, packed: bytes, count: int, columns: Sequence[Column]) -> None:
        """An array of ``count`` rows in MessagePack, which fit ``columns``."""
        self.packed = packed
        self._count = count
        self._columns = columns

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """The row or rows at a place; all are made for it."""
        return list(self)[index]

    def __iter__(self) -> Iterator[Row]:
        """The rows as Python has them."""
        read = row_reader(self._columns, Encoding.MESSAGEPACK)
        rows: list[Row] = _ROWS.decode(self.packed)
        return iter(rows) if read is None else map(read, rows)

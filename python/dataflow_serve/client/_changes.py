"""What callers write in a transaction, brought into the words of the wire. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from dataflow_serve.errors import LocalProtocolError
from dataflow_serve.protocol import Change, Value

__all__ = ["RowsByRelation", "changes"]

RowsByRelation: TypeAlias = Mapping[str, Iterable[Iterable[Value]]]


def changes(
    first: RowsByRelation | None, insert: RowsByRelation, delete: RowsByRelation | None
) -> list[Change]:
    """One change a relation; rows of ``first`` come before those of ``insert``.

    Raises:
        LocalProtocolError: something that stands for a row isn't one.
    """
    inserted = [(name, rows) for group in (first or {}, insert) for name, rows in group.items()]
    return [
        *(Change(name, delete=_rows(name, rows)) for name, rows in (delete or {}).items()),
        *(Change(name, insert=_rows(name, rows)) for name, rows in inserted),
    ]


def _rows(relation: str, rows: Iterable[Iterable[Value]]) -> list[Sequence[Value]]:
    if isinstance(rows, str | bytes):
        raise LocalProtocolError(
            f"cannot change {relation}: {rows!r} is not a list of rows",
            'Write a list of tuples: [("ann", "bob")].',
        )
    return [row if isinstance(row, tuple | list) else _row(relation, n, row) for n, row in enumerate(rows)]


def _row(relation: str, number: int, row: object) -> Sequence[Value]:
    """A row that isn't a tuple yet; text would fall apart into letters, a mapping lose its values."""
    if isinstance(row, str | bytes | Mapping) or not isinstance(row, Iterable):
        raise LocalProtocolError(
            f"cannot change {relation}: row {number} is {row!r}",
            "A row is a tuple with a value for each column.",
        )
    return tuple(row)

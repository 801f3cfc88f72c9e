"""The order that rows are wanted in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from dataflow_serve.client._tables import in_order
from dataflow_serve.dsl import Term
from dataflow_serve.errors import LocalProtocolError
from dataflow_serve.protocol import Column, Row
from dataflow_serve.values import value_order

__all__ = ["Order", "order_names", "ordered"]

Order: TypeAlias = str | Term | Iterable[str | Term]
"""Columns to order by, the first one first; one after a ``-`` has its greatest value first.

A variable of rules, as in ``-points``, stands for the column of its name.
"""


def order_names(order: Order | None) -> tuple[str, ...] | None:
    """The order as requests have it.

    Raises:
        LocalProtocolError: something in it isn't a column.
    """
    if order is None:
        return None
    parts = [order] if isinstance(order, str | Term) else order
    return tuple(part if isinstance(part, str) else _column(part) for part in parts)


def _column(part: Term) -> str:
    text = part.text.removeprefix("(").removesuffix(")")
    if not text.removeprefix("-").isidentifier():
        raise LocalProtocolError(f"cannot order by {part.text}: it isn't a column", "Order by x or by -x.")
    return text


def ordered(columns: Sequence[Column], rows: Iterable[Row], order: Sequence[str]) -> list[Row]:
    """Rows as the server orders them; the remaining columns decide where those of ``order`` don't."""
    names = [column.name for column in columns]
    found = in_order(columns, rows)
    # A stable sort by the last one first leaves what the first one doesn't decide to the others.
    for name in reversed(order):
        at = names.index(name.removeprefix("-"))
        found.sort(key=lambda row, at=at: value_order(row[at]), reverse=name.startswith("-"))  # type: ignore[misc]
    return found

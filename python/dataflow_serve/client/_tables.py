"""Rows in the shapes that people look at: text, HTML, data frames.

pandas, polars and pyarrow are used where the caller asks for them and has them; none is needed otherwise.
"""

from __future__ import annotations

import html
import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dataflow_serve.errors import LocalProtocolError
from dataflow_serve.protocol import Column, Row, Rows
from dataflow_serve.values import value_order, value_text

__all__ = ["SHOWN_ROWS", "html_table", "in_order", "text_table", "to_arrow", "to_pandas", "to_polars"]

SHOWN_ROWS = 10
"""Rows that a repr shows."""

WIDEST_CELL = 40

_NUMPY = {
    "number": "int64",
    "unsigned": "uint64",
    "float": "float64",
    "bool": "bool",
    "instant": "datetime64[us, UTC]",
}
_POLARS: dict[str, Callable[[Any], Any]] = {
    "number": lambda polars: polars.Int64,
    "unsigned": lambda polars: polars.UInt64,
    "float": lambda polars: polars.Float64,
    "symbol": lambda polars: polars.String,
    "bool": lambda polars: polars.Boolean,
    "instant": lambda polars: polars.Datetime("us", "UTC"),
    "uuid": lambda polars: polars.String,
    "bytes": lambda polars: polars.Binary,
}
_ARROW: dict[str, Callable[[Any], Any]] = {
    "number": lambda arrow: arrow.int64(),
    "unsigned": lambda arrow: arrow.uint64(),
    "float": lambda arrow: arrow.float64(),
    "symbol": lambda arrow: arrow.string(),
    "bool": lambda arrow: arrow.bool_(),
    "instant": lambda arrow: arrow.timestamp("us", "UTC"),
    "uuid": lambda arrow: arrow.string(),
    "bytes": lambda arrow: arrow.binary(),
}


def to_pandas(rows: Rows) -> Any:
    """A pandas data frame with the columns' types; its ``attrs["time"]`` says when it was true.

    Raises:
        LocalProtocolError: there is no pandas.
    """
    library = _import("pandas")
    columns = _transposed(rows)
    data = {
        column.name: library.Series(values, dtype=_NUMPY.get(column.type))
        for column, values in zip(rows.columns, columns, strict=True)
    }
    frame = library.DataFrame(data, index=library.RangeIndex(len(rows)))
    frame.attrs["time"] = rows.time
    return frame


def to_polars(rows: Rows) -> Any:
    """A polars data frame with the columns' types.

    Raises:
        LocalProtocolError: there is no polars.
    """
    library = _import("polars")
    schema = {
        column.name: _POLARS[column.type](library) if column.type in _POLARS else None
        for column in rows.columns
    }
    frame = library.DataFrame(list(zip(*_transposed(rows), strict=True)), schema=schema, orient="row")
    return frame


def to_arrow(rows: Rows) -> Any:
    """An Arrow table with the columns' types.

    Raises:
        LocalProtocolError: there is no pyarrow.
    """
    library = _import("pyarrow")
    arrays = [
        library.array(values, type=_ARROW[column.type](library) if column.type in _ARROW else None)
        for column, values in zip(rows.columns, _transposed(rows), strict=True)
    ]
    table = library.table(arrays, names=[column.name for column in rows.columns])
    return table


def _transposed(rows: Rows) -> list[list[Any]]:
    """The columns; uuids and records as text, since tables have no type for them."""
    if not rows.rows:
        return [[] for _ in rows.columns]
    return [
        list(map(value_text, values)) if column.type == "uuid" or column.types is not None else list(values)
        for column, values in zip(rows.columns, zip(*rows.rows, strict=True), strict=True)
    ]


def _import(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise LocalProtocolError(f"cannot make this table: {library} is not installed") from error


def in_order(columns: Sequence[Column], rows: Iterable[Row]) -> list[Row]:
    """Rows sorted by their values; what isn't a number comes after all floats."""
    if not any(column.type == "float" or column.types is not None for column in columns):
        return sorted(rows)
    return sorted(rows, key=lambda row: tuple(map(value_order, row)))


def text_table(name: str, rows: Rows) -> str:
    """The first rows as aligned text, with the time they are true for."""
    lines = [[column.name for column in rows.columns], *([_cell(v) for v in row] for row in _shown(rows))]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    body = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return f"{_caption(name, rows)}\n{body}"


def html_table(name: str, rows: Rows) -> str:
    """The first rows as an HTML table, with the time they are true for."""
    head = "".join(f"<th>{html.escape(column.name)}</th>" for column in rows.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) + "</tr>"
        for row in _shown(rows)
    )
    caption = html.escape(_caption(name, rows))
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _shown(rows: Rows) -> Sequence[Row]:
    return rows[:SHOWN_ROWS]


def _caption(name: str, rows: Rows) -> str:
    count = (
        f"first {SHOWN_ROWS} rows"
        if len(rows) > SHOWN_ROWS
        else "1 row"
        if len(rows) == 1
        else f"{len(rows)} rows"
    )
    return f"{name}({_columns(rows.columns)}), {count} at time {rows.time}"


def _columns(columns: Sequence[Column]) -> str:
    return ", ".join(f"{column.name}: {column.type}" for column in columns)


def _cell(value: Any) -> str:
    text = value_text(value)
    return text if len(text) <= WIDEST_CELL else text[: WIDEST_CELL - 1] + "…"

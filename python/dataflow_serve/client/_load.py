"""Rows from files, data frames, Arrow streams and iterables, cut into batches. No network.

A value that doesn't fit is found where file, line and column are still known: ``_text_files`` reads files,
with ``_texts`` for the values in them, ``_objects`` everything else.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from dataflow_serve.client._objects import ObjectSource
from dataflow_serve.client._text_files import FileSource
from dataflow_serve.errors import IncorrectError, LocalProtocolError
from dataflow_serve.protocol import Column, Row, Transacted
from dataflow_serve.values import Branch

__all__ = [
    "BATCH_ROWS",
    "Batch",
    "LoadProgress",
    "Loaded",
    "RowSource",
    "Source",
    "batches",
    "open_source",
    "send_batches",
]

BATCH_ROWS = 10_000
"""Rows of one transaction."""

BATCH_CHARACTERS = 2_000_000
"""Characters of text in one transaction, so that one with long symbols stays within what a message holds."""

BATCHES_UNDER_WAY = 8
"""Transactions that a load has sent and that aren't answered yet."""

Source: TypeAlias = str | os.PathLike[str] | Iterable[Iterable[Any]] | Any
"""A path, a data frame, an object with ``__arrow_c_stream__``, or an iterable of rows."""


class Loaded(Struct, frozen=True):
    """What a load did: how many rows it sent, and the time at which the last are visible."""

    rows: int
    time: int


class LoadProgress(Struct, frozen=True):
    """How far a load is: rows sent, and the part of the source that was read, where that is known."""

    rows: int
    fraction: float | None


class Batch(Struct, frozen=True):
    """Rows for one transaction; ``last`` says that none follow."""

    rows: Sequence[Row]
    progress: LoadProgress
    last: bool


class RowSource(Protocol):
    """Rows that fit their columns, and how much of them was read."""

    def __iter__(self) -> Iterator[Row]:
        """Go through the rows once.

        Raises:
            IncorrectError: a row doesn't fit; says which.
        """
        ...

    @property
    def fraction(self) -> float | None:
        """The part that was read, from 0 to 1; None where the whole is unknown."""
        ...


def batches(source: RowSource, batch_rows: int = BATCH_ROWS) -> Iterator[Batch]:
    """Cut a source into batches; at least one, which is empty if the source is."""
    chunks: Iterator[Sequence[Row]]
    if isinstance(source, FileSource):
        chunks = source.batches(batch_rows)
    else:
        chunks = _chunks(iter(source), batch_rows)
    sent = 0
    batch = next(chunks, [])
    while True:
        # One batch is read ahead: only the last one has to be waited for until it is visible.
        following = next(chunks, None)
        sent += len(batch)
        yield Batch(batch, LoadProgress(sent, source.fraction), following is None)
        if following is None:
            return
        batch = following


def send_batches(
    source: RowSource,
    batch_rows: int,
    send: Callable[[Batch], Callable[[], Transacted]],
    show: Callable[[LoadProgress], object],
) -> Loaded:
    """Load a source, batch by batch, for a caller that waits in its own thread.

    Args:
        source: Where rows come from.
        batch_rows: How many rows make a transaction.
        send: Sends a transaction without waiting for its answer; what it returns does.
        show: Is told of each batch that was sent.
    """
    under_way: deque[Callable[[], Transacted]] = deque()
    for batch in batches(source, batch_rows):
        if len(under_way) >= BATCHES_UNDER_WAY:
            under_way.popleft()()
        under_way.append(send(batch))
        show(batch.progress)
    outcomes = [answer() for answer in under_way]
    return Loaded(batch.progress.rows, outcomes[-1].time)


def _chunks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while chunk := list(itertools.islice(rows, size)):
        yield from _halved(chunk)


def _halved(rows: list[Row]) -> Iterator[list[Row]]:
    """The rows in as few equal parts as keep each within the bound on characters."""
    characters = sum([_length(value) for row in rows for value in row if isinstance(value, _LONG)])
    if characters <= BATCH_CHARACTERS or len(rows) == 1:
        yield rows
    else:
        middle = len(rows) // 2
        yield from _halved(rows[:middle])
        yield from _halved(rows[middle:])


_LONG = (str, bytes, tuple, Branch)
"""What a value may be that takes more than a few bytes of a message."""


def _length(value: Any) -> int:
    """About how many characters a value takes."""
    match value:
        case str() | bytes():
            return len(value)
        case Branch(values=values):
            return 8 + sum(map(_length, values))
        case tuple():
            return 8 + sum(map(_length, value))
        case _:
            return 8


def open_source(
    source: Source, columns: Sequence[Column], *, header: bool | None, delimiter: str
) -> RowSource:
    """The rows of whatever a caller gave.

    Raises:
        LocalProtocolError: it is nothing that has rows.
        IncorrectError: its columns aren't the relation's.
    """
    if isinstance(source, str | os.PathLike):
        return FileSource(Path(source), columns, delimiter=delimiter, quoted=True, header=header)
    if isinstance(source, FileSource):
        return source
    library = type(source).__module__.partition(".")[0]
    if library == "pandas" and hasattr(source, "itertuples"):
        frame: Any = source
        chosen = frame.iloc[:, _order(list(frame.columns), columns)]
        return ObjectSource(chosen.itertuples(index=False, name=None), columns, len(frame))
    if library == "polars" and hasattr(source, "iter_rows"):
        frame = source
        return ObjectSource(frame[:, _order(frame.columns, columns)].iter_rows(), columns, len(frame))
    if hasattr(source, "__arrow_c_stream__"):
        return _arrow(source, columns)
    if isinstance(source, Iterable) and not isinstance(source, bytes | Mapping):
        return ObjectSource(source, columns, len(source) if isinstance(source, Sized) else None)
    raise LocalProtocolError(
        f"cannot load from a {type(source).__name__}", "Give a path, a data frame, an Arrow stream or rows."
    )


def _arrow(source: Any, columns: Sequence[Column]) -> RowSource:
    try:
        library = importlib.import_module("pyarrow")
    except ImportError as error:
        raise LocalProtocolError(
            f"cannot load from a {type(source).__name__}: pyarrow is not installed",
            "Install pyarrow, or load from a list of tuples.",
        ) from error
    reader = library.RecordBatchReader.from_stream(source)
    order = _order(reader.schema.names, columns)
    rows = itertools.chain.from_iterable(
        zip(*(batch.column(place).to_pylist() for place in order), strict=True) for batch in reader
    )
    return ObjectSource(rows, columns, None)


def _order(names: Sequence[Any], columns: Sequence[Column]) -> list[int]:
    """Where each column stands in a table: by name if the names are the same, else by position."""
    wanted = [column.name for column in columns]
    found = [str(name) for name in names]
    if sorted(found) == sorted(wanted):
        return [found.index(name) for name in wanted]
    if len(found) == len(wanted):
        return list(range(len(wanted)))
    raise IncorrectError(
        f"the table has {len(found)} columns ({', '.join(found)}), "
        f"the relation {len(wanted)} ({', '.join(wanted)})"
    )

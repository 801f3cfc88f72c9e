"""Rows as text, the way Soufflé writes them: a row a line, in a fixed order.

Reading, sorting and spelling them is the extension's (``rust/protocol/src/table``), as a result may have
millions of rows. Here is only where the text goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TextIO, TypeAlias

import msgspec

from dataflow_serve.errors import IncorrectError
from dataflow_serve.protocol import Column
from dataflow_serve.run._directives import FileFormat

if TYPE_CHECKING:
    import gzip

__all__ = ["NewTable", "RowCount", "Table", "print_rows", "write_file"]

_CHANGES = msgspec.msgpack.Decoder(list[tuple[msgspec.Raw, int]])


class Table(Protocol):
    """The rows of a relation: they come in as the server sends them, and go out as text."""

    def add(self, changes: bytes, /) -> None:
        """Take the changes of one message of a snapshot."""
        ...

    def __len__(self) -> int:
        """How many rows there are, copies counted."""
        ...

    def header(self, delimiter: str, quoted: bool, /) -> bytes:
        """The line of the columns' names."""
        ...

    def lines(self, delimiter: str, quoted: bool, /) -> bytes:
        """The next lines in the order of values, not too many; nothing when there are no more."""
        ...


class RowCount:
    """How many rows a relation has: they come in as the server sends them, and none is kept."""

    def __init__(self) -> None:
        """None yet."""
        self._rows = 0

    def add(self, changes: bytes) -> None:
        """Count the changes of one message of a snapshot."""
        self._rows += sum(max(copies, 0) for _, copies in _CHANGES.decode(changes))

    def __len__(self) -> int:
        """How many rows there are, copies counted."""
        return self._rows


NewTable: TypeAlias = Callable[[Sequence[Column]], Table]
"""Makes a table without rows."""


def write_file(path: Path, table: Table, form: FileFormat) -> None:
    """Write all rows to a file.

    Raises:
        IncorrectError: the file can't be written.
    """
    try:
        with path.open("wb") as plain, _compressed(plain) if form.compressed else plain as file:
            if form.headers:
                file.write(table.header(form.delimiter, form.quoted))
            for piece in _pieces(table, form):
                file.write(piece)
    except OSError as error:
        raise IncorrectError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error


def _compressed(file: BinaryIO) -> gzip.GzipFile:
    """What compresses what is written to a file."""
    # Most results are written as they are.
    import gzip

    # Without the time of day, so that the same rows are the same bytes.
    return gzip.GzipFile("", "wb", 6, file, mtime=0)


def print_rows(stdout: TextIO, relation: str, table: Table, form: FileFormat) -> None:
    """Write all rows between lines that say whose they are, as several relations share the output."""
    stdout.write(f"---------------\n{relation}\n")
    if form.headers:
        stdout.write(table.header(form.delimiter, False).decode())
    stdout.write("===============\n")
    for piece in _pieces(table, form):
        stdout.write(piece.decode())
    stdout.write("===============\n")


def _pieces(table: Table, form: FileFormat) -> Iterator[bytes]:
    while piece := table.lines(form.delimiter, form.quoted):
        yield piece

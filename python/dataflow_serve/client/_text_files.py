"""Rows from files of text, with one row a line.

The extension makes rows of a file's bytes as it is read, ready to be sent (``rust/facts``). What a text is as
a value is asked here (``_texts``) where it isn't written in the usual way.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from dataflow_serve.client._texts import A_VALUE, reader_of
from dataflow_serve.errors import IncorrectError, LocalProtocolError
from dataflow_serve.protocol import Column, PackedRows, Row, encode_value

__all__ = ["FileSource"]

PIECE_BYTES = 32 * 1024
"""Most that is read at once."""

ROWS_AT_ONCE = 10_000
"""Rows that are made at once where nobody says how many."""

BATCH_BYTES = 2_000_000
"""About how much rows of one transaction may take, so that it stays within what a message holds."""

_GZIP = b"\x1f\x8b"


class FileSource:
    """Rows of a text file with one row a line (of a quoted field, lines).

    Empty lines mean nothing, except in a relation whose only column is a symbol or bytes: there they are the
    empty one. The only row of a relation without columns is written ``()``, or as an empty line. A record is
    one field, whatever signs it has in it. A file may be compressed with gzip.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[Column],
        *,
        delimiter: str,
        quoted: bool,
        header: bool | None,
        skip_lines: int = 0,
    ) -> None:
        """Describe a file; it is opened when its rows are asked for.

        Args:
            path: The file, in UTF-8.
            columns: What its rows must fit.
            delimiter: What separates fields.
            quoted: Whether fields may stand in double quotes, as RFC 4180 has it.
            header: Whether its first line names the columns, in any order. None compares them to find out.
            skip_lines: How many rows at the beginning say nothing.
        """
        if quoted and len(delimiter) != 1:
            raise LocalProtocolError(f"cannot read {path}: a delimiter is one character, not {delimiter!r}")
        self._path = path
        self._columns = columns
        self._delimiter = delimiter
        self._quoted = quoted
        self._header = header
        self._skip_lines = skip_lines
        self._file: io.BufferedReader | None = None
        self._size = 0

    @property
    def fraction(self) -> float | None:
        """The part of the file's bytes that was read."""
        if self._file is None:
            return 0.0
        return 1.0 if self._file.closed or not self._size else self._file.tell() / self._size

    def __iter__(self) -> Iterator[Row]:
        """Read the file from its beginning.

        Raises:
            IncorrectError: the file can't be read, or a row doesn't fit; names file, line and column.
        """
        for rows in self.batches(ROWS_AT_ONCE):
            yield from rows

    def batches(self, size: int) -> Iterator[PackedRows]:
        """Read the file from its beginning, so many rows at a time, or fewer long ones.

        Raises:
            IncorrectError: as for single rows; those before a row that doesn't fit are lost from ``size`` on.
        """
        # Whoever loads no files has no use for it.
        from dataflow_serve._core import Facts

        described = msgspec.json.encode(self._columns).decode()
        facts = Facts(described, self._delimiter, self._quoted, self._header, self._skip_lines)
        readers = [reader_of(column) for column in self._columns]

        def odd(column: int, text: str) -> bytes:
            return encode_value(readers[column](text))

        pieces = self._pieces()
        last = False
        while True:
            while (batch := facts.batch(size, BATCH_BYTES, odd)) is not None:
                yield PackedRows(*batch, self._columns)
            if facts.misfit is not None:
                raise self._misfit(*facts.misfit)
            if last:
                return
            piece = next(pieces, b"")
            last = not piece
            facts.feed(piece, last)

    def _pieces(self) -> Iterator[bytes]:
        """The bytes of the file, decompressed."""
        try:
            self._file = self._path.open("rb")
        except OSError as error:
            raise IncorrectError(
                f"cannot read {self._path}: {(error.strerror or str(error)).lower()}"
            ) from error
        with self._file:
            self._size = os.fstat(self._file.fileno()).st_size
            if self._file.peek(2)[:2] == _GZIP:
                yield from self._decompressed(self._file)
            while piece := self._file.read1(PIECE_BYTES):
                yield piece

    def _decompressed(self, file: io.BufferedReader) -> Iterator[bytes]:
        import gzip
        import zlib

        content = gzip.GzipFile(fileobj=file)
        try:
            while piece := content.read1(PIECE_BYTES):
                yield piece
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise IncorrectError(f"{self._path}: not what gzip writes: {str(error).lower()}") from error

    def _misfit(self, line: int, column: int | None, what: str) -> IncorrectError:
        where = f"{self._path}, line {line}"
        if column is not None:
            name, kind = self._columns[column].name, self._columns[column].type
            where, what = f"{where}, column {name!r}", f"{what!r} is not {A_VALUE.get(kind, f'a {kind}')}"
        return IncorrectError(f"{where}: {what}")

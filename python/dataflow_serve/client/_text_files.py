"""Rows from files of text, with one row a line."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import operator
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dataflow_serve.client._records import SIGNS_OF_RECORDS, split_fields
from dataflow_serve.client._texts import A_VALUE, many_reader_of, reader_of
from dataflow_serve.errors import IncorrectError, LocalProtocolError
from dataflow_serve.protocol import Column, Row

__all__ = ["FileSource"]

LINES_AT_ONCE = 4_096
"""Lines of a file that are made into rows together."""

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
        self._blank_counts = not columns or (len(columns) == 1 and columns[0].type in ("symbol", "bytes"))
        self._records = [column.types is not None for column in columns]
        """Which fields of a line are records, which may have the delimiter in them."""
        self._split_plainly = not (any(self._records) and set(delimiter) & SIGNS_OF_RECORDS)
        self._file: io.BufferedReader | None = None
        self._size = 0
        self._lines = 0

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
        try:
            self._file = self._path.open("rb")
        except OSError as error:
            raise IncorrectError(
                f"cannot read {self._path}: {(error.strerror or str(error)).lower()}"
            ) from error
        self._size = os.fstat(self._file.fileno()).st_size
        content: io.BufferedReader | gzip.GzipFile = self._file
        if self._file.peek(2)[:2] == _GZIP:
            content = gzip.GzipFile(fileobj=self._file)
        # Only \n ends a line here: a lone \r may be part of a symbol.
        with (
            self._file,
            io.TextIOWrapper(content, encoding="utf-8-sig", newline="" if self._quoted else "\n") as text,
        ):
            try:
                yield from self._rows(text)
            except UnicodeDecodeError as error:
                raise IncorrectError(f"{self._path}, line {self._undecodable_line()}: not UTF-8") from error
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise IncorrectError(f"{self._path}: not what gzip writes: {str(error).lower()}") from error

    def _quoted_fields(self, text: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(text, delimiter=self._delimiter, strict=True)
        line = 1
        try:
            for fields in reader:
                if fields or self._blank_counts:
                    yield line, fields or [""]
                line = reader.line_num + 1
        except csv.Error as error:
            raise IncorrectError(f"{self._path}, line {line}: {error}") from error

    def _plain_fields(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        for line in lines:
            self._lines += 1
            content = line.removesuffix("\n").removesuffix("\r")
            if not content and not self._blank_counts:
                continue
            if self._split_plainly:
                yield self._lines, content.split(self._delimiter)
            else:
                yield self._lines, split_fields(content, self._delimiter, self._records)

    def _rows(self, text: io.TextIOWrapper) -> Iterator[Row]:
        self._lines = 0
        lines = self._quoted_fields(text) if self._quoted else self._plain_fields(text)
        for _ in itertools.islice(lines, self._skip_lines):
            pass
        places = list(range(len(self._columns)))
        if self._header is not False and (first := next(lines, None)) is not None:
            names = [column.name for column in self._columns]
            if sorted(first[1]) == sorted(names):
                places = [first[1].index(name) for name in names]
                self._records = [self._columns[names.index(name)].types is not None for name in first[1]]
            elif self._header is None:
                yield from self._one_by_one([first], places) if self._columns else self._nullary([first])
        if not self._columns:
            yield from self._nullary(lines)
        elif self._quoted or not self._split_plainly:
            yield from self._one_by_one(lines, places)
        else:
            yield from self._plain_rows(text, places)

    def _plain_rows(self, text: io.TextIOWrapper, places: Sequence[int]) -> Iterator[Row]:
        """Many lines at a time, as long as they are written in the usual way."""
        failure: UnicodeDecodeError | None = None
        while failure is None:
            lines: list[str] = []
            try:
                lines.extend(itertools.islice(text, LINES_AT_ONCE))
            except UnicodeDecodeError as error:
                failure = error  # Lines before it come first.
            if not lines:
                break
            if (rows := self._at_once(lines, places)) is not None:
                self._lines += len(lines)
                yield from rows
            else:
                yield from self._one_by_one(self._plain_fields(lines), places)
        if failure is not None:
            raise failure

    def _at_once(self, lines: Sequence[str], places: Sequence[int]) -> Iterable[Row] | None:
        """The rows of some lines, or None where it takes a look at each of them."""
        text, delimiter, arity = "".join(lines), self._delimiter, len(places)
        if len(delimiter) != 1 or delimiter == "\n" or "\r" in text:
            return None
        if not set(map(operator.methodcaller("count", delimiter), lines)) <= {arity - 1}:
            return None
        texts = text.removesuffix("\n").replace("\n", delimiter).split(delimiter)
        try:
            return zip(
                *(
                    many_reader_of(column)(texts[place::arity])
                    for column, place in zip(self._columns, places, strict=True)
                ),
                strict=True,
            )
        except ValueError:
            return None

    def _one_by_one(self, lines: Iterable[tuple[int, list[str]]], places: Sequence[int]) -> Iterator[Row]:
        converters = [reader_of(column) for column in self._columns]
        arity = len(converters)
        for line, texts in lines:
            if len(texts) != arity:
                raise IncorrectError(f"{self._path}, line {line}: {_count(texts)}, expected {arity}")
            fields = [texts[place] for place in places]
            try:
                yield tuple([convert(text) for convert, text in zip(converters, fields, strict=True)])
            except ValueError:
                raise self._misfit(line, fields) from None

    def _nullary(self, lines: Iterable[tuple[int, list[str]]]) -> Iterator[Row]:
        for line, fields in lines:
            if fields not in (["()"], [""]):
                raise IncorrectError(f"{self._path}, line {line}: expected (), the row without columns")
            yield ()

    def _misfit(self, line: int, fields: Sequence[str]) -> IncorrectError:
        for column, text in zip(self._columns, fields, strict=True):
            try:
                reader_of(column)(text)
            except ValueError:
                what = f"{text!r} is not {A_VALUE.get(column.type, f'a {column.type}')}"
                return IncorrectError(f"{self._path}, line {line}, column {column.name!r}: {what}")
        raise AssertionError("every value fits")

    def _undecodable_line(self) -> int:
        """The first line that isn't UTF-8: the decoder works in blocks and doesn't know."""
        with self._path.open("rb") as file:
            lines = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == _GZIP else file
            for number, line in enumerate(lines, 1):
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return number
        return 1


def _count(fields: Sequence[str]) -> str:
    return "1 field" if len(fields) == 1 else f"{len(fields)} fields"

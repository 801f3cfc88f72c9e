"""Rows from files, data frames, Arrow streams and iterables, cut into batches. No network.

A value that doesn't fit is found here, where file, line and column are still known. Numbers in text are
decimal, or hexadecimal and binary with their prefixes; truth values are ``true`` and ``false`` (or ``1`` and
``0``). Instants are written as RFC 3339 has it, uuids with hyphens, bytes in base64.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import importlib
import io
import itertools
import operator
import os
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from dataflow_serve.client._records import SIGNS_OF_RECORDS, defined_reader, split_fields
from dataflow_serve.errors import IncorrectError, LocalProtocolError
from dataflow_serve.protocol import Column, Row
from dataflow_serve.values import Branch, instant_value, parse_bytes, parse_instant, parse_uuid

__all__ = [
    "BATCH_ROWS",
    "Batch",
    "FileSource",
    "LoadProgress",
    "Loaded",
    "RowSource",
    "Source",
    "batches",
    "open_source",
    "value_from_text",
]

BATCH_ROWS = 10_000
"""Rows of one transaction."""

BATCH_CHARACTERS = 2_000_000
"""Characters of text in one transaction, so that one with long symbols stays within what a message holds."""

LINES_AT_ONCE = 4_096
"""Lines of a file that are made into rows together."""

BATCHES_UNDER_WAY = 8
"""Transactions that a load has sent and that aren't answered yet."""

_GZIP = b"\x1f\x8b"

Source: TypeAlias = str | os.PathLike[str] | Iterable[Iterable[Any]] | Any
"""A path, a data frame, an object with ``__arrow_c_stream__``, or an iterable of rows."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did: how many rows it sent, and the time at which the last are visible."""

    rows: int
    time: int


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load is: rows sent, and the part of the source that was read, where that is known."""

    rows: int
    fraction: float | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows for one transaction; ``last`` says that none follow."""

    rows: list[Row]
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
        return _Objects(chosen.itertuples(index=False, name=None), columns, len(frame))
    if library == "polars" and hasattr(source, "iter_rows"):
        frame = source
        return _Objects(frame[:, _order(frame.columns, columns)].iter_rows(), columns, len(frame))
    if hasattr(source, "__arrow_c_stream__"):
        return _arrow(source, columns)
    if isinstance(source, Iterable) and not isinstance(source, bytes | Mapping):
        return _Objects(source, columns, len(source) if isinstance(source, Sized) else None)
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
    return _Objects(rows, columns, None)


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


# --- files --------------------------------------------------------------------------------------------------


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
                    _many_from_text(column)(texts[place::arity])
                    for column, place in zip(self._columns, places, strict=True)
                ),
                strict=True,
            )
        except ValueError:
            return None

    def _one_by_one(self, lines: Iterable[tuple[int, list[str]]], places: Sequence[int]) -> Iterator[Row]:
        converters = [_from_text(column) for column in self._columns]
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
                _from_text(column)(text)
            except ValueError:
                what = f"{text!r} is not {_A.get(column.type, f'a {column.type}')}"
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


_A = {
    "number": "a number (64 bits, signed)",
    "unsigned": "an unsigned number (64 bits)",
    "float": "a float",
    "bool": "true or false",
    "symbol": "a symbol",
    "instant": "an instant with its offset, as in 2026-11-23T21:00:00Z, no finer than microseconds",
    "uuid": "a uuid",
    "bytes": "bytes (in text: base64)",
}


def _integer(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        # int() takes base 0 for prefixes, but then refuses leading zeros: only a second choice.
        value = int(text, 0)
    if "_" in text:
        raise ValueError(text)
    return value


def _number(text: str) -> int:
    value = _integer(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(text)
    return value


def _unsigned(text: str) -> int:
    value = _integer(text)
    if not 0 <= value < 2**64:
        raise ValueError(text)
    return value


def _float(text: str) -> float:
    if "_" in text:
        raise ValueError(text)
    return float(text)


_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def _bool(text: str) -> bool:
    if text not in _TRUTH:
        raise ValueError(text)
    return _TRUTH[text]


def _symbol(text: str) -> str:
    return text


def _from_text(column: Column) -> Callable[[str], Any]:
    """What reads a column's values from text."""
    if column.types is not None:
        return defined_reader(column, _FROM_TEXT)
    return _FROM_TEXT[column.type]


_FROM_TEXT: Mapping[str, Callable[[str], Any]] = {
    "number": _number,
    "unsigned": _unsigned,
    "float": _float,
    "bool": _bool,
    "symbol": _symbol,
    "instant": parse_instant,
    "uuid": parse_uuid,
    "bytes": parse_bytes,
}


def _numbers(texts: Sequence[str]) -> list[int]:
    values = list(map(int, texts))
    if "_" in "".join(texts) or min(values) < -(2**63) or max(values) >= 2**63:
        raise ValueError
    return values


def _floats(texts: Sequence[str]) -> list[float]:
    if "_" in "".join(texts):
        raise ValueError
    return list(map(float, texts))


def _many_from_text(column: Column) -> Callable[[Sequence[str]], Sequence[Any]]:
    """What reads many values of a column; raises `ValueError` where one isn't written in the usual way."""
    match column.type:
        case "number":
            return _numbers
        case "float":
            return _floats
        case "symbol":
            return lambda texts: texts
    read = _from_text(column)
    return lambda texts: list(map(read, texts))


def value_from_text(column: Column, text: str) -> Any:
    """A value for a column, written as in files.

    Raises:
        IncorrectError: it doesn't fit.
    """
    try:
        return _from_text(column)(text)
    except ValueError:
        what = _A.get(column.type, f"a {column.type}")
        raise IncorrectError(f"column {column.name!r}: {text!r} is not {what}") from None


# --- objects ------------------------------------------------------------------------------------------------


class _Objects:
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
                what = _A.get(column.type, f"a {column.type}")
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
    read = _from_text(column)
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

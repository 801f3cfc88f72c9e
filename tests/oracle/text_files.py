"""What the rows of a text file are, line by line and with the standard library's reader of CSV.

Slow and plain. What a text is as a value it asks the package, whose answer is the definition.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from dataflow_serve.client._texts import A_VALUE, reader_of
from dataflow_serve.protocol import Column

SIGNS_OF_RECORDS = frozenset(',[]()$ "\\')
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


class Misfit(Exception):
    """Something isn't a row; says where and what."""


def rows_of_text(
    content: bytes,
    columns: Sequence[Column],
    *,
    delimiter: str,
    quoted: bool,
    header: bool | None,
    skip_lines: int = 0,
) -> Iterator[tuple[Any, ...]]:
    """The rows of a file that has this in UTF-8, or those before the first misfit, and then that."""
    text = content.decode("utf-8-sig")
    names = [column.name for column in columns]
    records = [column.types is not None for column in columns]
    blank_counts = not columns or (len(columns) == 1 and columns[0].type in ("symbol", "bytes"))
    if quoted:
        lines = quoted_fields(text, delimiter, blank_counts)
    else:
        lines = plain_fields(text, delimiter, blank_counts, records)
    for _ in zip(range(skip_lines), lines, strict=False):
        pass
    places = list(range(len(columns)))
    for place, (line, fields) in enumerate(lines):
        if place == 0 and header is not False:
            if sorted(fields) == sorted(names):
                places = [fields.index(name) for name in names]
                records[:] = [columns[names.index(name)].types is not None for name in fields]
                continue
            if header:
                continue
        yield row(line, fields, columns, places)


def row(line: int, fields: list[str], columns: Sequence[Column], places: list[int]) -> tuple[Any, ...]:
    """The row of a line."""
    if not columns:
        if fields not in (["()"], [""]):
            raise Misfit(f"line {line}: expected (), the row without columns")
        return ()
    if len(fields) != len(columns):
        found = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
        raise Misfit(f"line {line}: {found}, expected {len(columns)}")
    values = []
    for column, place in zip(columns, places, strict=True):
        try:
            values.append(reader_of(column)(fields[place]))
        except ValueError:
            what = f"{fields[place]!r} is not {A_VALUE.get(column.type, f'a {column.type}')}"
            raise Misfit(f"line {line}, column {column.name!r}: {what}") from None
    return tuple(values)


def quoted_fields(text: str, delimiter: str, blank_counts: bool) -> Iterator[tuple[int, list[str]]]:
    """The fields of each row as RFC 4180 has them, and the line that it begins on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for fields in reader:
            if fields or blank_counts:
                yield line, fields or [""]
            line = reader.line_num + 1
    except csv.Error as error:
        raise Misfit(f"line {line}: {error}") from None


def plain_fields(
    text: str, delimiter: str, blank_counts: bool, records: list[bool]
) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line."""
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        content = line.removesuffix("\n").removesuffix("\r")
        if content or blank_counts:
            yield number, split(content, delimiter, records)


def split(line: str, delimiter: str, records: list[bool]) -> list[str]:
    """A line cut at each delimiter that isn't part of a record."""
    apart = not (any(records) and set(delimiter) & SIGNS_OF_RECORDS)
    fields: list[str] = []
    start = 0
    while True:
        inside = start
        if not apart and len(fields) < len(records) and records[len(fields)]:
            inside = end_of_record(line, start, delimiter)
        end = line.find(delimiter, inside)
        if end < 0:
            return [*fields, line[start:]]
        fields.append(line[start:end])
        start = end + len(delimiter)


def end_of_record(line: str, start: int, delimiter: str) -> int:
    """Where a record is over: where the delimiter follows what closes it."""
    at, depth, before = start, 0, ""
    while at < len(line):
        if depth <= 0 and line.startswith(delimiter, at):
            return at
        sign = line[at]
        quoted = QUOTED.match(line, at) if sign == '"' and before in ("[", "(", ",") else None
        at = at + 1 if quoted is None else quoted.end()
        depth += (sign in "[(") - (sign in ")]")
        before = before if sign.isspace() else sign
    return len(line)

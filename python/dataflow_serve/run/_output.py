"""Rows as text, the way Soufflé writes them: a row a line, in a fixed order.

Floats have up to 17 significant digits (``%.17g``), what a Soufflé of 64 bits prints: enough to read the same
number back, at the price of ``0.10000000000000001``. With ``rfc4180`` a symbol stands in quotes where it has
to. Rows are sorted by their values, so that equal contents give equal files.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from dataflow_serve.protocol import Column, Row
from dataflow_serve.run._directives import FileFormat
from dataflow_serve.values import value_text

__all__ = ["write_rows"]


def write_rows(target: TextIO, columns: Sequence[Column], rows: Iterable[Row], form: FileFormat) -> None:
    """Write rows in the order they come in, after a line of column names if the form wants one."""
    spell = _speller(columns)
    names = [column.name for column in columns]
    if form.quoted:
        writer = csv.writer(target, delimiter=form.delimiter, lineterminator="\n")
        if form.headers:
            writer.writerow(names)
        writer.writerows(spell(row) for row in rows)
        return
    if form.headers:
        target.write(form.delimiter.join(names) + "\n")
    target.writelines(form.delimiter.join(spell(row)) + "\n" for row in rows)


def _speller(columns: Sequence[Column]) -> Callable[[Row], Sequence[str]]:
    if not columns:
        return lambda row: ["()"]
    spellers = [_float if column.type == "float" else value_text for column in columns]
    return lambda row: [spell(value) for spell, value in zip(spellers, row, strict=True)]


def _float(value: float) -> str:
    return f"{value:.17g}"

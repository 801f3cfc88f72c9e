"""Tables of the extension: rows as a server sends them come out as Python would sort and write them."""

from __future__ import annotations

import csv
import datetime
import io
import math
import random
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dataflow_serve.client._tables import in_order
from dataflow_serve.protocol import (
    Changes,
    Column,
    Encoding,
    Row,
    TypeInfo,
    Undecoded,
    decode_message,
    encode_message,
)
from dataflow_serve.server import new_table
from dataflow_serve.values import Branch, value_text

TYPES = {
    "Pair": TypeInfo(record=(Column("a", "float"), Column("b", "symbol"))),
    "List": TypeInfo(record=(Column("head", "Pair"), Column("tail", "List"))),
    "Tree": TypeInfo(
        branches={
            "Node": (Column("l", "Tree"), Column("r", "Tree")),
            "Leaf": (Column("x", "number"),),
            "Empty": (),
            "At": (Column("at", "instant"), Column("id", "uuid"), Column("data", "bytes")),
        }
    ),
}
SIGNS = 'ab\0 ,;"\\[]()$\n\té\x1f\xa0\u2028\U0001f600'
EDGES = [0, 1, -1, 255, 256, -256, -257, 2**31, 2**53, 2**63 - 1, -(2**63)]


def text(rng: random.Random) -> str:
    return "".join(rng.choices(SIGNS, k=rng.choice([0, 1, 1, 2, 12])))


def number(rng: random.Random) -> int:
    return rng.choice([rng.choice(EDGES), rng.randrange(-300, 300), rng.randrange(-(2**63), 2**63)])


def float_(rng: random.Random) -> float:
    return rng.choice(
        [
            rng.choice([0.0, 0.1, 1.0, math.nan, math.inf, -math.inf, 1e15, 1e16, 1e17, 1e-4, 1e-5, 5e-324]),
            rng.uniform(-1, 1) * 10.0 ** rng.randrange(-300, 300),
            # Few bits, many digits: some are halfway between two numbers of 16 or 17 digits.
            rng.randrange(-1000, 1000) * 2.0 ** rng.randrange(-70, 70),
        ]
    )


def instant(rng: random.Random) -> datetime.datetime:
    whole = datetime.datetime(rng.randrange(1, 10_000), 12, 31, rng.randrange(24), tzinfo=datetime.UTC)
    return whole.replace(microsecond=rng.choice([0, 1, 999_999, rng.randrange(1_000_000)]))


def pair(rng: random.Random) -> Any:
    return rng.choice([None, (float_(rng), text(rng))])


def items(rng: random.Random) -> Any:
    made = None
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        made = (pair(rng), made)
    return made


def tree(rng: random.Random, depth: int = 3) -> Branch:
    match rng.choice(["Node", "Leaf", "Empty", "At"] if depth else ["Empty"]):
        case "Node":
            return Branch("Node", (tree(rng, depth - 1), tree(rng, depth - 1)))
        case "Leaf":
            return Branch("Leaf", (number(rng),))
        case "At":
            return Branch("At", (instant(rng), uuid.UUID(int=rng.getrandbits(128)), rng.randbytes(3)))
    return Branch("Empty")


VALUES: dict[str, Callable[[random.Random], Any]] = {
    "number": number,
    "unsigned": lambda rng: number(rng) % 2**64,
    "float": float_,
    "symbol": text,
    "bool": lambda rng: rng.random() < 0.5,
    "instant": instant,
    "uuid": lambda rng: uuid.UUID(int=rng.getrandbits(rng.choice([3, 128]))),
    "bytes": lambda rng: bytes(rng.choices([0, 1, 255, 97], k=rng.randrange(5))),
    "Pair": pair,
    "List": items,
    "Tree": tree,
}


def spelled(columns: Sequence[Column], rows: Sequence[Row], delimiter: str, quoted: bool) -> str:
    """Rows in their order as Python writes them."""

    def field(column: Column, value: Any) -> str:
        text = long_text(value, quoted)
        if quoted and (column.type == "symbol" or column.type in TYPES):
            return '"' + text.replace('"', '""') + '"'
        # What else there is needs quotes where the delimiter is a digit or the line would be empty.
        return csv_field(text, delimiter, len(columns)) if quoted else text

    lines = (
        delimiter.join(field(column, value) for column, value in zip(columns, row, strict=True))
        for row in in_order(columns, rows)
    )
    return "".join(f"{line}\n" for line in lines)


def long_text(value: Any, quoted: bool, within: bool = False) -> str:
    """As `value_text`, with 17 digits of floats and, if ``quoted``, all texts in records in quotes."""
    match value:
        case float():
            return f"{value:.17g}"
        case str() if within and quoted:
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'
        case str() if within:
            return value_text((value,))[1:-1]
        case tuple():
            return f"[{', '.join(long_text(each, quoted, True) for each in value)}]"
        case Branch(name, values) if values:
            return f"${name}({', '.join(long_text(each, quoted, True) for each in values)})"
        case _:
            return value_text(value)


def csv_field(text: str, delimiter: str, width: int) -> str:
    target = io.StringIO()
    csv.writer(target, delimiter=delimiter, lineterminator="").writerow([text] if width == 1 else [text, "x"])
    return target.getvalue() if width == 1 else target.getvalue().removesuffix(f"{delimiter}x")


def text_of(table: Any, delimiter: str, quoted: bool) -> str:
    return b"".join(iter(lambda: table.lines(delimiter, quoted), b"")).decode()


def undecoded(rows: Sequence[Row]) -> bytes:
    message = encode_message(Changes(1, 5, [(row, 1) for row in rows]), Encoding.MESSAGEPACK)
    changes = decode_message(message, Encoding.MESSAGEPACK, {1})
    assert isinstance(changes, Undecoded)
    return changes.changes


@pytest.mark.parametrize("quoted", [False, True], ids=["plain", "quoted"])
def test_random_rows_are_sorted_and_written_as_in_python(rng: random.Random, quoted: bool) -> None:
    for _ in range(150):
        kinds = rng.choices(list(VALUES), k=rng.choice([1, 1, 2, 3, 4]))
        columns = [
            Column(f"c{place}", kind, TYPES if kind in TYPES else None) for place, kind in enumerate(kinds)
        ]
        # Of NaN Python has many, a server one; a row stands in a snapshot once.
        rows = {
            tuple(map(repr, row)): row
            for row in (tuple(VALUES[kind](rng) for kind in kinds) for _ in range(30))
        }
        parts = [list(rows.values())[start : start + 7] for start in range(0, len(rows), 7)]
        table = new_table(columns)
        for part in parts:
            table.add(undecoded(part))
        assert len(table) == len(rows)
        delimiter = rng.choice([",", "\t", ";", "1", "é"])
        assert text_of(table, delimiter, quoted) == spelled(
            columns, list(rows.values()), delimiter, quoted
        ), kinds


def test_what_is_no_table_is_refused_in_words() -> None:
    table = new_table([Column("x", "number")])
    with pytest.raises(ValueError, match="cannot read the changes of a relation: invalid type: string"):
        table.add(undecoded([("seven",)]))
    with pytest.raises(ValueError, match="cannot read the changes of a relation: the message ends inside"):
        table.add(undecoded([(7,)])[:-1])
    assert len(table) == 0
    with pytest.raises(ValueError, match='cannot read the columns of a table: unknown type "Tree"'):
        new_table([Column("x", "Tree")])

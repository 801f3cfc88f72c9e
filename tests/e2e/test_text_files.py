"""Rows of files are what each line means, or the error names where there is none."""

import gzip
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_serve.client import FileSource, _text_files
from dataflow_serve.client._load import batches
from dataflow_serve.client._text_files import ROWS_AT_ONCE
from dataflow_serve.errors import IncorrectError, LocalProtocolError
from dataflow_serve.protocol import Column
from dataflow_serve.values import Branch, value_text
from tests.columns import ID, MOMENT, NESTED, PERSON, STAMPED, TYPES
from tests.oracle.text_files import Misfit, rows_of_text

ALL = tuple(Column(kind[0], kind) for kind in ("symbol", "number", "unsigned", "float", "bool"))


def rows_of(path: Path, columns: tuple[Column, ...], **options: Any) -> list[Any]:
    settings = {"delimiter": ",", "quoted": True, "header": None, **options}
    return list(FileSource(path, columns, **settings))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "people.csv"


def test_a_header_is_found_and_its_order_followed(file: Path) -> None:
    file.write_text("age,name\n7,ann\n8,bob\n")
    assert rows_of(file, PERSON) == [("ann", 7), ("bob", 8)]


def test_without_a_header_the_first_line_is_a_row(file: Path) -> None:
    file.write_text('ann,7\r\n"bob, the ""builder""\nof Bree",8\n\n')
    assert rows_of(file, PERSON) == [("ann", 7), ('bob, the "builder"\nof Bree', 8)]


def test_a_header_that_is_a_row_too_can_be_one(file: Path) -> None:
    file.write_text("x\nx\n")
    columns = (Column("x", "symbol"),)
    assert rows_of(file, columns) == [("x",)]
    assert rows_of(file, columns, header=False) == [("x",), ("x",)]


def test_a_header_with_other_names_can_be_skipped(file: Path) -> None:
    file.write_text("Name,Age\nann,7\n")
    assert rows_of(file, PERSON, header=True) == [("ann", 7)]


def test_all_types_are_read_from_text(file: Path) -> None:
    file.write_text("é,-9223372036854775808,18446744073709551615,1e3,true\nx,0x10,0b11,-inf,0\n")
    assert rows_of(file, ALL) == [
        ("é", -(2**63), 2**64 - 1, 1000.0, True),
        ("x", 16, 3, float("-inf"), False),
    ]


def test_plain_fields_are_taken_as_they_are(file: Path) -> None:
    file.write_bytes(b'"ann\t7\r\nb\rob\t8\n')
    assert rows_of(file, PERSON, delimiter="\t", quoted=False, header=False) == [('"ann', 7), ("b\rob", 8)]


def test_a_plain_delimiter_may_be_longer(file: Path) -> None:
    file.write_text("ann::7\n")
    assert rows_of(file, PERSON, delimiter="::", quoted=False) == [("ann", 7)]
    with pytest.raises(LocalProtocolError, match="one character"):
        rows_of(file, PERSON, delimiter="::")


@pytest.mark.parametrize("end", ["", "\n"])
def test_rows_before_one_that_does_not_fit_come_first(file: Path, end: str) -> None:
    count = 2 * ROWS_AT_ONCE + 1
    file.write_text("\n".join(f"{n}\tname {n}\t{n / 4}" for n in range(count)) + end)
    columns = (Column("n", "number"), Column("s", "symbol"), Column("f", "float"))
    found = rows_of(file, columns, delimiter="\t", quoted=False, header=False)
    assert found == [(n, f"name {n}", n / 4) for n in range(count)]
    rows_before: list[Any] = []
    with file.open("a") as more:
        more.write("\n7\tx\t1\n8\tx\n")
    with pytest.raises(IncorrectError, match=rf", line {count + 2 + len(end)}: 2 fields, expected 3$"):
        rows_before.extend(FileSource(file, columns, delimiter="\t", quoted=False, header=False))
    assert rows_before == found[: 2 * ROWS_AT_ONCE]


def test_empty_lines_are_the_empty_symbol_where_that_is_all_there_is(file: Path) -> None:
    file.write_text("a\n\nb\n")
    for quoted in (True, False):
        assert rows_of(file, (Column("x", "symbol"),), quoted=quoted) == [("a",), ("",), ("b",)]
    file.write_text("YQ==\n\n")
    for quoted in (True, False):
        assert rows_of(file, (Column("x", "bytes"),), quoted=quoted) == [(b"a",), (b"",)]
    file.write_text("1\n\n2\n")
    assert rows_of(file, PERSON[1:], quoted=False) == [(1,), (2,)]


def test_instants_uuids_and_bytes_are_read_from_text(file: Path) -> None:
    file.write_text(f"2026-11-23T22:00:00.5+01:00,{ID},/wA=\n2026-11-23T21:00:00.5Z,{str(ID).upper()},\n")
    assert rows_of(file, STAMPED) == [(MOMENT, ID, b"\xff\x00"), (MOMENT, ID, b"")]
    for text, message in [
        (f"2026-11-23,{ID},", "column 'at': '2026-11-23' is not an instant with its offset"),
        (f"2026-11-23T21:00:00.1234567Z,{ID},", "column 'at': .* is not an instant"),
        ("2026-11-23T21:00:00Z,0011,", "column 'id': '0011' is not a uuid"),
        (f"2026-11-23T21:00:00Z,{ID},a", r"column 'data': 'a' is not bytes \(in text: base64\)"),
    ]:
        file.write_text(text + "\n")
        with pytest.raises(IncorrectError, match=message):
            rows_of(file, STAMPED)


def test_records_are_read_as_souffle_writes_them(file: Path) -> None:
    leaf = Branch("Leaf", (-1, MOMENT))
    file.write_text(
        "nil\t$Empty\n"
        "[a, nil]\t$Empty()\n"
        '[ a b , ["a, \\"b\\" ]", nil]]\t$Node( $Leaf(-1, 2026-11-23T21:00:00.5Z), $Empty )\n'
    )
    rows = rows_of(file, NESTED, delimiter="\t", quoted=False, header=False)
    assert rows == [
        (None, Branch("Empty")),
        (("a", None), Branch("Empty")),
        (("a b", ('a, "b" ]', None)), Branch("Node", (leaf, Branch("Empty")))),
    ]
    for row in rows:
        file.write_text("\t".join(map(value_text, row)) + "\n")
        assert rows_of(file, NESTED, delimiter="\t", quoted=False, header=False) == [row]


@pytest.mark.parametrize("delimiter", [",", ", ", " , ", "]"])
def test_a_delimiter_in_a_record_is_part_of_it(file: Path, delimiter: str) -> None:
    columns = (Column("a", "List", TYPES), Column("s", "symbol"), Column("b", "Tree", TYPES))
    node = "$Node($Empty, $Leaf(1, 2026-11-23T21:00:00.5Z))"
    lines = [("[x, [y, nil]]", "[z", "$Empty"), ('["a,]", nil]', "(", node), ('[a"b, nil]', '"', node)]
    expected = [
        (("x", ("y", None)), "[z", Branch("Empty")),
        (("a,]", None), "(", Branch("Node", (Branch("Empty"), Branch("Leaf", (1, MOMENT))))),
        (('a"b', None), '"', Branch("Node", (Branch("Empty"), Branch("Leaf", (1, MOMENT))))),
    ]
    options: Any = {"delimiter": delimiter, "quoted": False}
    file.write_text("".join(f"{delimiter.join(line)}\n" for line in lines))
    for header in (False, None):
        assert rows_of(file, columns, header=header, **options) == expected
    file.write_text(
        "".join(f"{delimiter.join((s, b, a))}\n" for a, s, b in [("a", "s", "b"), *lines]),
    )
    assert rows_of(file, columns, header=None, **options) == expected
    file.write_text(f"[x, nil]{delimiter}s\n")
    with pytest.raises(IncorrectError, match="line 1: 2 fields, expected 3"):
        rows_of(file, columns, header=False, **options)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("[a]\t$Empty", "'list': '[a]' is not a List"),
        ("[a, nil, nil]\t$Empty", "'list': '[a, nil, nil]' is not a List"),
        ("[a, nil\t$Empty", "'list': '[a, nil' is not a List"),
        ("[a, nil]]\t$Empty", "'list': '[a, nil]]' is not a List"),
        ("nil\tnil", "'tree': 'nil' is not a Tree"),
        ("nil\t$Twig", r"'tree': '$Twig' is not a Tree"),
        ("nil\t$Leaf(1)", r"'tree': '$Leaf(1)' is not a Tree"),
        ("nil\t$Leaf(x, 2026-11-23T21:00:00Z)", "is not a Tree"),
        ("[" * 200 + "\t$Empty", "is not a List"),
        ("[a, " * 150 + "nil" + "]" * 150 + "\t$Empty", "is not a List"),
    ],
)
def test_a_bad_record_names_its_column(file: Path, text: str, column: str) -> None:
    file.write_text(text + "\n")
    with pytest.raises(IncorrectError, match=re.escape(column)):
        rows_of(file, NESTED, delimiter="\t", quoted=False, header=False)


def test_the_row_without_columns(file: Path) -> None:
    file.write_text("()\n\n")
    assert rows_of(file, ()) == [(), ()]
    file.write_text("")
    assert rows_of(file, ()) == []
    file.write_text("(\n")
    with pytest.raises(IncorrectError, match=r"line 1: expected \(\)"):
        rows_of(file, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ann,7\nbob,x\n", r"people.csv, line 2, column 'age': 'x' is not a number \(64 bits, signed\)"),
        ("ann,9223372036854775808\n", "line 1, column 'age': '9223372036854775808' is not a number"),
        ("ann,1_000\n", "'1_000' is not a number"),
        ("ann,\n", "'' is not a number"),
        ("ann\n", "line 1: 1 field, expected 2"),
        ('"a\nb",7\nann,7,8\n', "line 3: 3 fields, expected 2"),
        ('ann,7\n"bob,8\n', "line 2: unexpected end of data"),
        ('ann,7\n"bob"x,8\n', "line 2: "),
    ],
)
def test_a_bad_row_names_file_line_and_column(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(IncorrectError, match=message):
        rows_of(file, PERSON)


def test_a_file_that_is_not_utf8_names_the_line(file: Path) -> None:
    file.write_bytes(b"ann,7\n" * 3000 + b"b\xffb,8\n")
    with pytest.raises(IncorrectError, match=r"people\.csv, line 3001: not UTF-8"):
        rows_of(file, PERSON)


def test_a_compressed_file_is_read_as_what_it_holds(file: Path) -> None:
    lines = "".join(f"{'ann' * 50},{age}\n" for age in range(20_000))
    file.write_bytes(gzip.compress(lines.encode()))
    for quoted in (True, False):
        assert rows_of(file, PERSON, quoted=quoted, header=False) == [
            ("ann" * 50, age) for age in range(20_000)
        ]
    file.write_bytes(gzip.compress(b"ann,1\nb\xffb,2\n"))
    with pytest.raises(IncorrectError, match=r"people.csv, line 2: not UTF-8"):
        rows_of(file, PERSON)
    file.write_bytes(gzip.compress(lines.encode())[:-20])
    with pytest.raises(IncorrectError, match=r"people.csv: not what gzip writes: compressed file ended"):
        rows_of(file, PERSON)


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(IncorrectError, match=r"cannot read .*people\.csv: no such file or directory"):
        rows_of(file, PERSON)


def test_progress_of_a_file_is_the_part_that_was_read(file: Path) -> None:
    file.write_text("".join(f"someone,{n}\n" for n in range(10_000)))
    source = FileSource(file, PERSON, delimiter=",", quoted=True, header=None)
    fractions = [batch.progress.fraction or 0 for batch in batches(source, 1000)]
    assert fractions == sorted(fractions)
    assert len(fractions) == 10
    assert 0 < fractions[0] < 0.5
    assert fractions[-1] == 1.0


def outcome(rows: Iterator[Any]) -> list[str]:
    """Rows as they are shown, which tells 1 from 1.0 and True, and what ended them."""
    found = []
    try:
        for row in rows:
            found.append(repr(row))
    except IncorrectError as error:
        found.append(error.message.partition(", ")[2])
    except Misfit as error:
        found.append(str(error))
    return found


VALUES = {
    "number": [
        "0",
        "-7",
        "+7",
        "007",
        "0x1F",
        "0b11",
        "0o17",
        "1_0",
        " 2 ",
        "٣",
        "-",
        "9" * 19,
        "-" + "9" * 18,
        str(2**63 - 1),
        str(2**63),
        str(-(2**63)),
        "0" * 30 + "1",
        "0" * 5000,
    ],
    "unsigned": ["0", "-0", "+7", "0xff", str(2**64 - 1), str(2**64), "\x1c7", "７"],
    "float": [
        "1",
        "1.",
        ".5",
        ".",
        "-1e3",
        "1e",
        "inf",
        "-Infinity",
        "nan",
        "+NaN",
        "1_0.0",
        " 1.5",
        "1e400",
        "٣.٥",
        "0.1",
        "2.2250738585072011e-308",
        "179769313486231580793728971405301e277",
        "infinit",
    ],
    "bool": ["true", "false", "1", "0", "True", "t"],
    "symbol": ["", "a", "é", "long enough for more than a word", "a b", "\x00", "\u2028", "﻿"],
    "instant": [
        "2026-11-23T21:00:00Z",
        "2026-11-23t21:00:00.5z",
        "2026-11-23 21:00:00Z",
        "0001-01-01T00:00:00Z",
        "0000-12-31T23:30:00-01:00",
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:30:00-01:00",
        "2026-11-23T21:00:00+23:59",
        "2026-11-23T21:00:00+24:00",
        "2026-11-23T21:00:00-10:60",
        "2026-11-23T21:00:60Z",
        "2026-02-29T00:00:00Z",
        "1969-12-31T23:59:59.000001Z",
        "2026-11-23T21:00:00.1234567Z",
        "2026-11-23T21:00:00",
        "2026-11-23T21:00:00.Z",
        "2026-11-23T24:00:00Z",
        "2100-01-01T00:00:00.000001+01:00",
    ],
    "uuid": [str(ID), str(ID).upper(), ID.hex, f"{{{ID}}}", f" {ID}", str(ID)[:-1] + "g", "é" * 18],
    "bytes": ["", "YQ==", "YQ", "YR==", "/wA=", "_wA=", "Y Q=", "é", "YQ==YQ=="],
    "List": [
        "nil",
        "[a, nil]",
        "[a, [b, nil]]",
        '["a,]", nil]',
        '["a',
        "[a, nil",
        "]",
        "[a\t, nil]",
        "[[, nil]",
    ],
    "Tree": ["$Empty", "$Empty()", "$Leaf(1, 2026-11-23T21:00:00Z)", "$Node($Empty, $Empty)", "$Leaf(x", "$"],
}
TEXTS = st.sampled_from(sorted({text for texts in VALUES.values() for text in texts})) | st.text(max_size=4)


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, tuple[Column, ...], dict[str, Any]]:
    """A file, most of which fits, and how it is to be read."""
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=3))
    columns = tuple(Column(f"c{n}", kind, TYPES if kind in TYPES else None) for n, kind in enumerate(kinds))
    quoted = draw(st.booleans())
    delimiter = draw(
        st.sampled_from(list(",\t; ]é") if quoted else [",", "\t", ", ", "::", "]", "é", " ", "\r"])
    )
    usual = [st.sampled_from(VALUES[kind]) for kind in kinds]
    rows = draw(st.lists(st.tuples(*usual) | st.lists(TEXTS, max_size=4).map(tuple), max_size=8))
    if draw(st.booleans()):
        names = draw(st.permutations([column.name for column in columns]))
        rows.insert(draw(st.integers(0, 1)), tuple(names))

    def spelled(field: str) -> str:
        bare = quoted and draw(st.booleans())
        return '"' + field.replace('"', '""') + '"' if bare else field

    ends = st.sampled_from(["\n", "\n", "\r\n", "\n\n", "\r"])
    text = "".join(delimiter.join(map(spelled, row)) + draw(ends) for row in rows)
    content = text.encode()
    if draw(st.integers(0, 3)) == 0 and content:
        place = draw(st.integers(0, len(content) - 1))
        content = (
            content[:place]
            + draw(st.sampled_from([b"\xff", b"\xc3", b'"', b"\r", b"", b"\x00"]))
            + content[place + 1 :]
        )
    content = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + content
    header = draw(st.sampled_from([None, False, True]))
    options = {
        "delimiter": delimiter,
        "quoted": quoted,
        "header": header,
        "skip_lines": draw(st.integers(0, 2)),
    }
    return content, columns, options


@given(files(), st.integers(1, 40), st.integers(1, 4))
@settings(max_examples=500)
def test_rows_are_what_each_line_means(
    described: tuple[bytes, tuple[Column, ...], dict[str, Any]], piece: int, size: int
) -> None:
    content, columns, options = described
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        # Rows and signs are cut anywhere.
        patch.setattr(_text_files, "PIECE_BYTES", piece)
        file = Path(directory) / "rows"
        file.write_bytes(content)
        found = outcome(row for rows in FileSource(file, columns, **options).batches(size) for row in rows)
    undecodable = first_undecodable(content)
    expected = outcome(rows_of_text(content[:undecodable], columns, **options))
    if undecodable is None:
        # Of a batch that doesn't become full the rows before a misfit aren't given.
        assert found[-1:] == expected[-1:]
        assert found == expected or found[:-1] == expected[: len(found) - 1]
        assert len(expected) - len(found) < size
    elif not found[-1].endswith("not UTF-8"):
        assert found[-1] in expected
    elif not (options["quoted"] and b"\r" in content):
        line = content[:undecodable].count(b"\n") + 1
        assert found[-1] == f"line {line}: not UTF-8"


def first_undecodable(content: bytes) -> int | None:
    """Where what isn't text begins, if anywhere."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None

"""Loading: rows from files and objects fit their columns, or the error names where they don't."""

import datetime
import gzip
import re
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_serve.client import FileSource, LoadProgress, _text_files
from dataflow_serve.client._load import BATCH_CHARACTERS, Batch, batches, open_source
from dataflow_serve.client._text_files import LINES_AT_ONCE
from dataflow_serve.errors import IncorrectError, LocalProtocolError
from dataflow_serve.protocol import Column, TypeInfo
from dataflow_serve.values import Branch, value_text

PERSON = (Column("name", "symbol"), Column("age", "number"))
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
def test_rows_of_many_lines_are_those_of_each(file: Path, end: str) -> None:
    count = 2 * LINES_AT_ONCE + 1
    file.write_text("\n".join(f"{n}\tname {n}\t{n / 4}" for n in range(count)) + end)
    columns = (Column("n", "number"), Column("s", "symbol"), Column("f", "float"))
    found = rows_of(file, columns, delimiter="\t", quoted=False, header=False)
    assert found == [(n, f"name {n}", n / 4) for n in range(count)]
    rows_before: list[Any] = []
    with file.open("a") as more:
        more.write("\n7\tx\t1\n8\tx\n")
    with pytest.raises(IncorrectError, match=rf", line {count + 2 + len(end)}: 2 fields, expected 3$"):
        rows_before.extend(FileSource(file, columns, delimiter="\t", quoted=False, header=False))
    assert rows_before[-1] == (7, "x", 1.0) and len(rows_before) == count + 1


@given(
    st.lists(
        st.lists(
            st.sampled_from(
                ["", "1", "-7", "0x1F", "1_0", " 2 ", "1e3", "9" * 19, "9" * 20, "nan", "é", "٣", "true"]
            ),
            min_size=1,
            max_size=3,
        ).map(",".join),
        max_size=12,
    ),
    st.lists(st.sampled_from(["number", "float", "symbol", "unsigned", "bool"]), min_size=1, max_size=2),
    st.sampled_from([None, False]),
    st.integers(min_value=0, max_value=2),
)
def test_lines_read_together_mean_what_each_means(
    lines: list[str], types: list[str], header: bool | None, skipped: int
) -> None:
    # What may be quoted is read line by line, and there is no quote in it.
    columns = tuple(Column(kind, kind) for kind in types)
    outcomes = []
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_text_files, "LINES_AT_ONCE", 3)
        file = Path(directory) / "rows"
        file.write_text("\n".join(lines), encoding="utf-8")
        for quoted in (True, False):
            rows: list[Any] = []
            try:
                options: Any = {"delimiter": ",", "header": header, "skip_lines": skipped}
                rows.extend(FileSource(file, columns, quoted=quoted, **options))
            except IncorrectError as error:
                rows.append(str(error))
            outcomes.append(repr(rows))
    assert outcomes[0] == outcomes[1]


def test_empty_lines_are_the_empty_symbol_where_that_is_all_there_is(file: Path) -> None:
    file.write_text("a\n\nb\n")
    for quoted in (True, False):
        assert rows_of(file, (Column("x", "symbol"),), quoted=quoted) == [("a",), ("",), ("b",)]
    file.write_text("YQ==\n\n")
    for quoted in (True, False):
        assert rows_of(file, (Column("x", "bytes"),), quoted=quoted) == [(b"a",), (b"",)]
    file.write_text("1\n\n2\n")
    assert rows_of(file, PERSON[1:], quoted=False) == [(1,), (2,)]


MOMENT = datetime.datetime(2026, 11, 23, 21, 0, 0, 500000, datetime.UTC)
ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
STAMPED = (Column("at", "instant"), Column("id", "uuid"), Column("data", "bytes"))


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


def test_instants_uuids_and_bytes_are_taken_from_objects() -> None:
    other = MOMENT.astimezone(datetime.timezone(datetime.timedelta(hours=-5)))
    rows = [(other, ID, bytearray(b"a")), ("2026-11-23T21:00:00.5Z", str(ID), b"a"), (MOMENT, ID.bytes, b"a")]
    found = list(open_source(rows, STAMPED, header=None, delimiter=","))
    assert found == [(MOMENT, ID, b"a")] * 3
    assert all(row[0].tzinfo is datetime.UTC for row in found)
    for row, message in [
        ((MOMENT.replace(tzinfo=None), ID, b""), "column 'at' has datetime.*which is not an instant"),
        ((MOMENT, 5, b""), "column 'id' has 5, which is not a uuid"),
        ((MOMENT, ID, "YQ=="), "column 'data' has 'YQ==', which is not bytes"),
    ]:
        with pytest.raises(IncorrectError, match=message):
            list(open_source([row], STAMPED, header=None, delimiter=","))


TYPES = {
    "List": TypeInfo(record=(Column("head", "symbol"), Column("tail", "List"))),
    "Tree": TypeInfo(
        branches={
            "Leaf": (Column("x", "number"), Column("at", "instant")),
            "Node": (Column("left", "Tree"), Column("right", "Tree")),
            "Empty": (),
        }
    ),
}
NESTED = (Column("list", "List", TYPES), Column("tree", "Tree", TYPES))


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


def test_records_of_objects_are_taken_as_they_are_and_read_from_text() -> None:
    rows = [(("a", None), Branch("Empty")), ("[a, nil]", "$Empty")]
    found = list(open_source(rows, NESTED, header=None, delimiter=","))
    assert found == [rows[0], rows[0]]


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


def test_objects_with_rows_are_checked_where_they_stand() -> None:
    assert list(open_source([("ann", 7)], PERSON, header=None, delimiter=",")) == [("ann", 7)]
    for rows, message in [
        ([("ann", 7), ("bob", "x")], r"row 1 is \('bob', 'x'\): column 'age' has 'x', which is not a number"),
        ([("ann", True)], "column 'age' has True"),
        ([("ann", 1.0)], "column 'age' has 1.0"),
        ([(None, 7)], "column 'name' has None, which is not a symbol"),
        ([("ann",)], "expected a tuple of 2"),
        (["an"], "row 0 is 'an': expected a tuple of 2"),
        ([7], "expected a tuple of 2"),
    ]:
        with pytest.raises(IncorrectError, match=message):
            list(open_source(rows, PERSON, header=None, delimiter=","))


@pytest.mark.parametrize("source", [7, None, b"people.csv", {"name": "ann"}])
def test_what_has_no_rows_is_refused(source: Any) -> None:
    with pytest.raises(LocalProtocolError, match="cannot load from a"):
        open_source(source, PERSON, header=None, delimiter=",")


def test_data_frames_are_matched_by_name() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": [7, 8], "name": ["ann", "bob"]})
    source = open_source(frame, PERSON, header=None, delimiter=",")
    assert list(source) == [("ann", 7), ("bob", 8)]
    assert source.fraction == 1.0
    with pytest.raises(IncorrectError, match="column 'name' has nan"):
        list(
            open_source(
                pandas.DataFrame({"name": [float("nan")], "age": [1]}), PERSON, header=None, delimiter=","
            )
        )
    with pytest.raises(
        IncorrectError, match=r"the table has 1 columns \(age\), the relation 2 \(name, age\)"
    ):
        open_source(frame[["age"]], PERSON, header=None, delimiter=",")


def test_arrow_streams_are_matched_by_name() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    polars = pytest.importorskip("polars")
    data = {"age": [7, 8], "name": ["ann", "bob"]}
    for table in (pyarrow.table(data), polars.DataFrame(data)):
        assert list(open_source(table, PERSON, header=None, delimiter=",")) == [("ann", 7), ("bob", 8)]


def test_arrow_streams_need_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            raise NotImplementedError

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LocalProtocolError, match="pyarrow is not installed"):
        open_source(Stream(), PERSON, header=None, delimiter=",")


@given(st.integers(0, 40), st.integers(1, 12))
def test_batches_hold_every_row_once(count: int, size: int) -> None:
    columns = (Column("n", "number"),)
    cut = list(batches(open_source([(n,) for n in range(count)], columns, header=None, delimiter=","), size))
    assert [row for batch in cut for row in batch.rows] == [(n,) for n in range(count)]
    assert [batch.last for batch in cut] == [False] * (len(cut) - 1) + [True]
    assert all(len(batch.rows) == size for batch in cut[:-1])
    assert cut[-1].progress.rows == count


def test_batches_of_long_records_are_smaller() -> None:
    row = (("x" * 1000, Branch("Leaf", ("y" * 1000,))),)
    source = open_source([row] * 3000, (Column("r", "R", {}),), header=None, delimiter=",")
    sizes = [len(batch.rows) for batch in batches(source, 10_000)]
    assert sum(sizes) == 3000
    assert max(sizes) * 2000 <= BATCH_CHARACTERS


def test_an_empty_source_is_one_empty_batch() -> None:
    source = open_source([], PERSON, header=None, delimiter=",")
    assert list(batches(source)) == [Batch([], LoadProgress(0, None), True)]

"""Loading: rows from files and objects fit their columns, or the error names where they don't."""

import datetime
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_serve.client import LoadProgress
from dataflow_serve.client._load import BATCH_CHARACTERS, Batch, batches, open_source
from dataflow_serve.errors import IncorrectError, LocalProtocolError
from dataflow_serve.protocol import Column
from dataflow_serve.values import Branch
from tests.columns import ID, MOMENT, NESTED, PERSON, STAMPED


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


def test_records_of_objects_are_taken_as_they_are_and_read_from_text() -> None:
    rows = [(("a", None), Branch("Empty")), ("[a, nil]", "$Empty")]
    found = list(open_source(rows, NESTED, header=None, delimiter=","))
    assert found == [rows[0], rows[0]]


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

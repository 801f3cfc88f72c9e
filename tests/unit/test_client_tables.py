"""Tables: what a notebook shows, and data frames with the columns' types."""

import datetime
import sys
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from dataflow_serve.client._load import open_source
from dataflow_serve.client._tables import html_table, in_order, text_table, to_arrow, to_pandas, to_polars
from dataflow_serve.errors import LocalProtocolError
from dataflow_serve.protocol import Column, Rows, TypeInfo

COLUMNS = (Column("name", "symbol"), Column("age", "number"), Column("here", "bool"))
ROWS = Rows(COLUMNS, [("ann", 7, True), ("bob <b>", -8, False)], 12)


def test_text_is_aligned_and_says_when_it_was_true() -> None:
    assert text_table("person", ROWS) == (
        "person(name: symbol, age: number, here: bool), 2 rows at time 12\n"
        "name     age  here\n"
        "ann      7    true\n"
        "bob <b>  -8   false"
    )


def test_ten_rows_are_shown() -> None:
    rows = Rows(COLUMNS[:1], [(str(n),) for n in range(11)], 3)
    shown = text_table("r", rows).splitlines()
    assert shown[0] == "r(name: symbol), first 10 rows at time 3"
    assert len(shown) == 12
    assert html_table("r", rows).count("<tr>") == 11


def test_html_is_escaped() -> None:
    shown = html_table("person", ROWS)
    assert "<td>bob &lt;b&gt;</td>" in shown
    assert "2 rows at time 12" in shown


def test_relations_without_columns_and_without_rows_can_be_shown() -> None:
    assert text_table("yes", Rows((), [()], 3)).startswith("yes(), 1 row at time 3")
    assert text_table("none", Rows(COLUMNS, [], 3)).endswith("\nname  age  here")


def test_long_values_are_cut() -> None:
    assert "…" in text_table("r", Rows(COLUMNS[:1], [("x" * 50,)], 1))


def test_pandas_frames_have_the_columns_types() -> None:
    pytest.importorskip("pandas")
    frame = to_pandas(ROWS)
    assert list(frame.columns) == ["name", "age", "here"]
    assert [str(frame[name].dtype) for name in ("age", "here")] == ["int64", "bool"]
    assert frame.attrs["time"] == 12
    assert str(to_pandas(Rows(COLUMNS, [], 1))["age"].dtype) == "int64"


def test_polars_frames_have_the_columns_types() -> None:
    polars = pytest.importorskip("polars")
    frame = to_polars(ROWS)
    assert frame.rows() == ROWS.rows
    for each in (frame, to_polars(Rows(COLUMNS, [], 1))):
        assert dict(each.schema) == {"name": polars.String, "age": polars.Int64, "here": polars.Boolean}


def test_arrow_tables_have_the_columns_types() -> None:
    pytest.importorskip("pyarrow")
    table = to_arrow(ROWS)
    assert [tuple(row.values()) for row in table.to_pylist()] == ROWS.rows
    for each in (table, to_arrow(Rows(COLUMNS, [], 1))):
        assert [(field.name, str(field.type)) for field in each.schema] == [
            ("name", "string"),
            ("age", "int64"),
            ("here", "bool"),
        ]


STAMPED = Rows(
    (Column("at", "instant"), Column("id", "uuid"), Column("data", "bytes")),
    [(datetime.datetime(2026, 11, 23, 21, tzinfo=datetime.UTC), uuid.UUID(int=10), b"\xff")],
    12,
)


def test_instants_uuids_and_bytes_are_shown_as_in_json() -> None:
    assert text_table("r", STAMPED).splitlines()[2] == (
        "2026-11-23T21:00:00.000000Z  00000000-0000-0000-0000-00000000000a  /w=="
    )


def test_frames_have_types_for_instants_and_bytes_and_text_for_uuids() -> None:
    pandas = pytest.importorskip("pandas")
    frame = to_pandas(STAMPED)
    assert str(frame["at"].dtype) == "datetime64[us, UTC]"
    assert frame["at"][0] == pandas.Timestamp("2026-11-23T21:00:00Z")
    assert (frame["id"][0], frame["data"][0]) == ("00000000-0000-0000-0000-00000000000a", b"\xff")
    source = open_source(frame, STAMPED.columns, header=None, delimiter=",")
    assert list(source) == STAMPED.rows


def test_records_are_shown_and_put_in_order_like_other_values() -> None:
    types = {"P": TypeInfo(record=(Column("x", "number"), Column("s", "symbol")))}
    columns = (Column("p", "P", types),)
    rows = [((2, "a"),), ((1, "b, c"),), (None,), ((1, "a"),)]
    assert in_order(columns, rows) == [(None,), ((1, "a"),), ((1, "b, c"),), ((2, "a"),)]
    shown = text_table("r", Rows(columns, rows[1:3], 1)).splitlines()
    assert shown[2:] == ['[1, "b, c"]', "nil"]


@pytest.mark.parametrize(("library", "convert"), [("polars", to_polars), ("pyarrow", to_arrow)])
def test_tables_of_other_libraries_come_back_as_they_were(
    library: str, convert: Callable[[Rows], Any]
) -> None:
    pytest.importorskip(library)
    assert list(open_source(convert(STAMPED), STAMPED.columns, header=None, delimiter=",")) == STAMPED.rows


@pytest.mark.parametrize("convert", [to_pandas, to_polars, to_arrow])
def test_a_missing_library_is_named(convert: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(convert)
    for library in ("pandas", "polars", "pyarrow"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(LocalProtocolError, match=r"(pandas|polars|pyarrow) is not installed"):
        convert(ROWS)

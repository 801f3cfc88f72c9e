"""Tables: what a notebook shows, and data frames with the columns' types."""

import sys

import pytest

from dataflow_serve.client._tables import html_table, text_table, to_arrow, to_pandas, to_polars
from dataflow_serve.errors import LocalProtocolError
from dataflow_serve.protocol import Column, Rows

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


@pytest.mark.parametrize("convert", [to_pandas, to_polars, to_arrow])
def test_a_missing_library_is_named(convert: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(convert)
    for library in ("pandas", "polars", "pyarrow"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(LocalProtocolError, match=r"(pandas|polars|pyarrow) is not installed"):
        convert(ROWS)

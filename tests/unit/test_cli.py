"""The command: what reaches the user, and with which exit code."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any
from xml.etree import ElementTree

import pytest

from dataflow_serve import cli, client
from dataflow_serve.client import Step, _terminal
from dataflow_serve.errors import IncorrectError, NotFoundError, UnavailableError
from dataflow_serve.protocol import Cancelled, Column, Rows

COLUMNS = (Column("name", "symbol"), Column("age", "number"), Column("here", "bool"))
ROWS = Rows(COLUMNS, [("bob", 8, False), ("[ann]", 7, True)], 12)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command as a shell does; its exit code."""
    monkeypatch.setattr(sys, "argv", ["dataflow", *arguments])
    try:
        cli.main()
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def failing(error: BaseException) -> Callable[..., Any]:
    def connect(*_: object, **__: object) -> Any:
        raise error

    return connect


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            IncorrectError("no rule", "Write one.", 1, 2),
            1,
            "dataflow: no rule (line 1, column 2); write one.",
        ),
        (NotFoundError("no relation\n  r"), 1, "dataflow: no relation r"),
        (UnavailableError("cannot reach a server"), 3, "dataflow: cannot reach a server"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr(client, "connect", failing(error))
    assert run(monkeypatch, "status") == code
    assert capsys.readouterr().err.strip() == message


@pytest.mark.parametrize(
    "arguments", [["fly"], ["read"], ["read", "r", "--format", "xml"], ["run", "-w", "0", "p"]]
)
def test_wrong_arguments_are_shown_and_exit_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert "Error:" in capsys.readouterr().err


def test_help_lists_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("run", "load", "watch", "read", "status", "register", "explain"))


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("csv", "name,age,here\n[ann],7,true\nbob,8,false\n"),
        ("tsv", "name\tage\there\n[ann]\t7\ttrue\nbob\t8\tfalse\n"),
        (
            "json",
            '{"time":12,"rows":[{"name":"[ann]","age":7,"here":true},{"name":"bob","age":8,"here":false}]}\n',
        ),
    ],
)
def test_rows_are_printed_sorted(layout: str, expected: str) -> None:
    target = io.StringIO()
    _terminal.print_rows(ROWS, layout, target)
    assert target.getvalue() == expected


def test_rows_in_an_order_are_printed_as_they_come() -> None:
    target = io.StringIO()
    _terminal.print_rows(ROWS, "csv", target, in_their_order=True)
    assert target.getvalue() == "name,age,here\nbob,8,false\n[ann],7,true\n"


@pytest.mark.parametrize("command", ["read", "watch"])
def test_order_and_limit_reach_the_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    asked: list[dict[str, Any]] = []

    class Database:
        def __enter__(self) -> "Database":
            return self

        def __exit__(self, *_: object) -> None: ...

        def __getitem__(self, relation: str) -> "Database":
            assert relation == "person"
            return self

        def contents(self, where: dict[str, Any], **how: Any) -> Rows:
            asked.append(how)
            return ROWS

        def subscribe(self, relation: str, *, where: dict[str, Any], **how: Any) -> Any:
            asked.append(how)
            return nullcontext(Live(Step(10, [(("bob",), 1)], snapshot=True)))

    monkeypatch.setattr(client, "connect", lambda *_, **__: Database())
    plain = ["--plain"] if command == "watch" else []
    assert run(monkeypatch, command, "person", "--order=-age,name", "--limit=2", *plain) == 0
    assert asked == [{"order": ["-age", "name"], "limit": 2}]
    assert "bob" in capsys.readouterr().out


def test_following_an_order_needs_a_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "watch", "person", "--order=age") == 2
    assert "--order needs --limit" in capsys.readouterr().err


def test_a_table_shows_values_as_they_are() -> None:
    target = io.StringIO()
    _terminal.print_rows(ROWS, "table", target)
    assert "[ann]" in target.getvalue()
    assert "2 rows at time 12" in target.getvalue()


class Live:
    """A subscription that has happened already."""

    columns = COLUMNS[:1]

    def __init__(self, *steps: Step) -> None:
        self._steps = iter(steps)

    def __iter__(self) -> Iterator[Step]:
        return self._steps


def test_watching_plainly_prints_a_line_for_each_change() -> None:
    target = io.StringIO()
    live: Any = Live(
        Step(10, [(("b",), 1), (("a",), 1)], snapshot=True),
        Step(12, [(("a",), -1), (("c",), 2)]),
        Step(3, [], snapshot=True, resync=True),
    )
    _terminal.watch_lines(live, target)
    assert target.getvalue() == "10\t+\ta\n10\t+\tb\n12\t-\ta\n12\t+\tc\n12\t+\tc\n3\t!\tresync\n"


class Schema:
    """A client that knows a relation's columns."""

    def read(self, relation: str, *, limit: int) -> Rows:
        return Rows(COLUMNS, [], 1)


def test_conditions_have_the_types_of_their_columns() -> None:
    db: Any = Schema()
    assert _terminal.restriction(db, "person", ["age=7", "name=a=b"]) == {"age": 7, "name": "a=b"}
    assert _terminal.restriction(db, "person", []) == {}
    with pytest.raises(IncorrectError, match="names no column of person"):
        _terminal.restriction(db, "person", ["size=7"])
    with pytest.raises(IncorrectError, match="column 'age': 'old' is not a number"):
        _terminal.restriction(db, "person", ["age=old"])


def test_plans_are_trees_of_operators() -> None:
    target = io.StringIO()
    get = {"op": "get", "detail": "knows", "inputs": []}
    _terminal.print_plan("reach", {"op": "join", "detail": "on [x]", "inputs": [get, get]}, target)
    assert target.getvalue() == "join on [x]\n├── get knows\n└── get knows\n"


def test_documents_of_any_shape_become_trees() -> None:
    target = io.StringIO()
    _terminal.print_plan(
        "reach", {"steps": [{"kind": "get"}, {"kind": "map", "over": {"kind": "get"}}]}, target
    )
    shown = target.getvalue()
    assert shown.startswith("reach")
    assert shown.count("get") == 2


@pytest.mark.parametrize(
    ("done", "line"),
    [
        (Cancelled("m", ("n", "m"), 12, 6, "path"), "cancelled at iteration 12 of path: n, m"),
        (Cancelled("m", ("m",), 0, 6), "cancelled: m"),
    ],
)
def test_cancel_says_what_was_ended_and_where_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], done: Cancelled, line: str
) -> None:
    class Database:
        def __enter__(self) -> "Database":
            return self

        def __exit__(self, *_: object) -> None: ...

        def cancel(self, name: str) -> Cancelled:
            assert name == "m"
            return done

    monkeypatch.setattr(client, "connect", lambda *_, **__: Database())
    assert run(monkeypatch, "cancel", "m") == 0
    assert capsys.readouterr().out.strip() == line


PLAN = {
    "op": "relation",
    "detail": "reach(a, b)",
    "stats": {"micros": 4000, "rows": 9, "bytes": 72},
    "notes": ["4.0 ms"],
    "inputs": [
        {
            "op": "join",
            "detail": "a < b",
            "inputs": [],
            "stats": {"micros": 1000, "rows": 0, "bytes": 0},
            "rules": [{"text": "reach(a, b) :- a < b.", "line": 3, "column": 1}],
        }
    ],
}


def test_a_plan_is_printed_as_a_tree_with_its_notes() -> None:
    target = io.StringIO()
    _terminal.print_plan("reach", PLAN, target)
    assert target.getvalue().splitlines() == ["relation reach(a, b)  4.0 ms", "└── join a < b  line 3"]


def test_a_plan_is_printed_as_json() -> None:
    target = io.StringIO()
    _terminal.print_plan("reach", PLAN, target, "json")
    assert json.loads(target.getvalue()) == PLAN


def test_a_plan_is_drawn_with_the_time_of_each_operator_and_its_rule() -> None:
    target = io.StringIO()
    _terminal.print_plan("reach", PLAN, target, "svg")
    drawing = ElementTree.fromstring(target.getvalue())
    names = {"svg": "http://www.w3.org/2000/svg"}
    texts = ["".join(text.itertext()) for text in drawing.findall(".//svg:text", names)]
    assert texts == ["relation reach(a, b)", "4.0 ms", "join a < b", "line 3"]
    bars = [float(bar.attrib["width"]) for bar in drawing.findall(".//svg:rect[@class='time']", names)]
    assert bars[0] == 4 * bars[1] > 0
    titles = [title.text for title in drawing.findall(".//svg:title", names)]
    assert titles == ["reach(a, b) :- a < b. (line 3, column 1)"]

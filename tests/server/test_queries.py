"""The planner's desk, with a cluster that only writes down what it is told."""

from __future__ import annotations

import gc
import json
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dataflow_serve.errors import ConflictError, DataflowError
from dataflow_serve.server import _queries
from dataflow_serve.server._cluster import Cluster
from dataflow_serve.server._queries import Queries

EDGES = ".decl edge(x: symbol, y: number) upsert(x)\n.input edge"
USES = ".decl twice(x: symbol)\ntwice(x) :- edge(x, 2)."


class Paper:
    """What would have gone to the workers, by ticket."""

    def __init__(self) -> None:
        self.plans: dict[int, dict[str, Any]] = {}
        self.trees: dict[int, dict[str, Any]] = {}
        self.errors: dict[int, DataflowError] = {}

    def respond(self, ticket: int, plan: str) -> None:
        self.plans[ticket] = json.loads(plan)

    def explain(self, ticket: int, tree: str) -> None:
        self.trees[ticket] = json.loads(tree)

    def reject(self, ticket: int, error: DataflowError) -> None:
        self.errors[ticket] = error


STATISTICS = '{"edge": {"rows": 7, "distinct": [3, 4], "keys": []}}'
"""What a worker says of what it knows."""


@pytest.fixture
def paper() -> Paper:
    return Paper()


@pytest.fixture
def queries(paper: Paper) -> Queries:
    return Queries(cast(Cluster, paper))


def asks(ticket: int, program: str, name: str | None = None) -> Any:
    return SimpleNamespace(ticket=ticket, program=program, name=name, statistics=STATISTICS)


def plan(queries: Queries, event: Any) -> None:
    """Plan a program, and hand the plan over."""
    queries.planned(event, queries.catalog)()


def grown(version: int, plan: dict[str, Any], first: int) -> Any:
    """The event that every process gets once `plan` is registered."""
    relations = [{"id": first + index, **relation} for index, relation in enumerate(plan["relations"])]
    module = {
        "name": plan["name"],
        "digest": plan["digest"],
        "types": plan["types"],
        "relations": relations,
    }
    return SimpleNamespace(version=version, module=json.dumps(module))


def test_programs_are_planned_against_what_was_registered(queries: Queries, paper: Paper) -> None:
    plan(queries, asks(1, EDGES, "edges"))
    queries.registered(grown(1, paper.plans[1], first=7))
    assert queries.catalog["edge"].mode == "upsert(x)"
    plan(queries, asks(2, USES))
    assert [each["relation"] for each in paper.plans[2]["imports"]] == [7]


def test_types_of_what_was_registered_are_known(queries: Queries, paper: Paper) -> None:
    plan(queries, asks(1, ".type P = [x: number, p: P] .decl r(p: P) .input r", "types"))
    queries.registered(grown(1, paper.plans[1], first=7))
    (column,) = queries.catalog["r"].columns
    assert str(column) == "p: P"
    plan(queries, asks(2, ".decl s(x: number) s(x) :- r([_, [x, nil]])."))
    assert paper.plans[2]["imports"][0]["types"] == [each["id"] for each in paper.plans[1]["types"]]


def test_what_has_left_the_catalog_is_unknown(queries: Queries, paper: Paper) -> None:
    plan(queries, asks(1, EDGES, "edges"))
    queries.registered(grown(1, paper.plans[1], first=7))
    queries.unregistered(cast(Any, SimpleNamespace(version=2, modules=["edges"], relations=[7])))
    assert (len(queries.catalog), dict(queries.catalog.modules)) == (0, {})
    plan(queries, asks(2, USES))
    error = paper.errors[2]
    assert (error.code, error.line) == ("incorrect", 2)


def test_a_name_belongs_to_one_program(queries: Queries, paper: Paper) -> None:
    plan(queries, asks(1, EDGES, "edges"))
    queries.registered(grown(1, paper.plans[1], first=7))
    plan(queries, asks(2, ".decl other(x: number)\n.input other", "edges"))
    assert paper.errors[2].code == "conflict"
    plan(queries, asks(3, EDGES))
    assert paper.plans[3] == paper.plans[1], "the identical program is the same module"


def test_a_fault_of_the_planner_is_the_servers(
    queries: Queries, paper: Paper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_queries, "compile_program", lambda *_: 1 // 0)
    plan(queries, asks(1, EDGES))
    error = paper.errors[1]
    assert error.code == "fault" and "reference" in error.message
    reference = error.message.split("reference ")[1].rstrip(")")
    assert reference in caplog.text and "ZeroDivisionError" in caplog.text


def test_the_collector_waits_while_programs_are_planned(
    queries: Queries, paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    enabled: list[bool] = []
    together = threading.Barrier(2)

    def compile_it(*_: object) -> None:
        enabled.append(gc.isenabled())
        together.wait()
        raise ConflictError("both are under way")

    monkeypatch.setattr("dataflow_serve.server._queries.compile_program", compile_it)
    planning = [threading.Thread(target=plan, args=(queries, asks(ticket, EDGES))) for ticket in (1, 2)]
    for thread in planning:
        thread.start()
    for thread in planning:
        thread.join()
    assert enabled == [False, False]
    assert gc.isenabled()
    assert set(paper.errors) == {1, 2}


def test_plans_are_explained(queries: Queries, paper: Paper) -> None:
    plan(queries, asks(1, f"{EDGES}\n{USES}"))
    planned = json.dumps(paper.plans[1])
    asked = cast(Any, SimpleNamespace(ticket=2, relation="twice", plan=planned, analysis=None))
    queries.explained(asked)()
    assert paper.trees[2]


def test_a_plan_that_is_too_deep_to_be_shown_is_no_fault(queries: Queries, paper: Paper) -> None:
    rule = f"twice(x) :- edge(x, 2), {', '.join(f'!edge(x, {value})' for value in range(60))}."
    plan(queries, asks(1, f"{EDGES}\n.decl twice(x: symbol)\n{rule}"))
    deep = json.dumps(paper.plans[1])
    event = cast(Any, SimpleNamespace(ticket=2, relation="twice", plan=deep, analysis=None))
    queries.explained(event)()
    assert paper.errors[2].code == "too-large"

"""Conditions on `now`: which become windows, and that they mean what the comparison means."""

from __future__ import annotations

import datetime
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_serve.errors import ConflictError, IncorrectError
from dataflow_serve.language import Catalog, CatalogRelation
from dataflow_serve.language._types import Column, Type
from dataflow_serve.planner import CompiledProgram, compile_program, explain
from tests.oracle import evaluate, interpret

DECLARATIONS = """
.decl e(id: number, t: instant, d: number)
.input e
.decl other(id: number)
.input other
.decl r(id: number)
.decl rt(id: number, t: instant)
.decl n(count: number)
.decl reach(x: number, y: number)
"""
FIRST = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)
LAST = datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, datetime.UTC)
NOON = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
MICRO = datetime.timedelta(microseconds=1)
MOMENTS = (
    FIRST,
    FIRST + 5 * MICRO,
    NOON - 7 * MICRO,
    NOON,
    NOON + MICRO,
    NOON + 7 * MICRO,
    LAST - MICRO,
    LAST,
)
YEARS = (LAST - FIRST) // MICRO
NUMBERS = (0, 1, -1, 5, -7, 7, YEARS, -YEARS, YEARS + 1, (1 << 63) - 1, -(1 << 63), 1 << 59, -(1 << 59) - 1)


def same(compiled: CompiledProgram, inputs: dict[str, Any]) -> None:
    """Hold the plan against the program."""
    expected = evaluate(compiled.checked, inputs)
    del expected["now"]
    assert interpret(compiled.plan, inputs) == expected


def plan(rules: str) -> dict[str, Any]:
    return compile_program(DECLARATIONS + rules, Catalog()).plan


def ops(rules: str) -> Counter[str]:
    return Counter(node["op"] for node in plan(rules)["nodes"])


WINDOWS = [
    "n < t",
    "n <= t",
    "t < n",
    "t >= n",
    "n - d < t",
    "t > n - d",
    "n + 5 >= t",
    "t - d < n",
    "t + d > n",
    "n - t < d",
    "t - n <= 5",
    "n - t > -7",
    "n - 5 - d + 1 < t",
    "to_number(n) > d",
    "d <= to_number(n - 5)",
    "(n - 5) - t < d + 1",
    't <= n, n < to_instant("2026-11-25T12:00:00.000005Z"), n - t < 100',
]
JOINS = [
    "n = t",
    "n != t",
    "n - d = t",
    "to_number(n) % 2 = 0",
    "n + to_number(n) > t",
    "n - t + 1 < d",
    "n < n + d",
]


@pytest.mark.parametrize("condition", WINDOWS)
def test_comparisons_that_can_be_turned_to_now_are_windows(condition: str) -> None:
    found = ops(f"r(i) :- e(i, t, d), now(n), {condition}.")
    assert (found["window"], found["join"]) == (1, 0), found


@pytest.mark.parametrize("condition", JOINS)
def test_others_are_joined_with_now(condition: str) -> None:
    found = ops(f"r(i) :- e(i, t, d), now(n), {condition}.")
    assert (found["window"], found["join"]) == (0, 1), found


@settings(max_examples=150, deadline=None)
@given(
    condition=st.sampled_from([*WINDOWS, *JOINS]),
    rows=st.sets(
        st.tuples(st.integers(0, 3), st.sampled_from(MOMENTS), st.sampled_from(NUMBERS)), max_size=8
    ),
    now=st.none() | st.sampled_from(MOMENTS),
)
def test_a_window_means_what_its_comparison_means(
    condition: str, rows: set[tuple[Any, ...]], now: datetime.datetime | None
) -> None:
    compiled = compile_program(DECLARATIONS + f"r(i) :- e(i, t, d), now(n), {condition}.", Catalog())
    inputs = {"e": list(rows), "now": [] if now is None else [(now,)]}
    same(compiled, inputs)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.sets(
        st.tuples(st.integers(0, 3), st.sampled_from(MOMENTS), st.sampled_from((0, 5, 7))), max_size=8
    ),
    others=st.sets(st.tuples(st.integers(0, 3)), max_size=3),
    now=st.sampled_from(MOMENTS),
)
def test_windows_stand_wherever_now_does(
    rows: set[tuple[Any, ...]], others: set[tuple[int]], now: datetime.datetime
) -> None:
    rules = """
        r(i) :- e(i, t, d), now(n), n - d < t, other(i).
        rt(i, t) :- e(i, t, _), other(i), now(n), n < t; e(i, t, _), !other(i), now(n), t <= n.
        n(c) :- c = count : { e(_, t, _), now(n), t <= n }.
        n(i + 100) :- other(i), c = count : { e(_, t, d), d < i, now(n), t <= n }, c > 0.
        reach(x, y) :- e(x, t, _), e(y, t, _), now(n), n >= t.
        reach(x, z) :- reach(x, y), e(y, t, z), now(n), t < n.
        reach(x, z) :- reach(x, z), e(_, t, _), now(n), n - t < x.
    """
    compiled = compile_program(DECLARATIONS + rules, Catalog())
    inputs = {"e": list(rows), "other": list(others), "now": [(now,)]}
    same(compiled, inputs)


def test_a_window_stands_before_joins() -> None:
    nodes = plan("r(i) :- e(i, t, _), other(i), now(n), t < n.")["nodes"]
    (join,) = [node for node in nodes if node["op"] == "join"]
    sides = [nodes[join[side]] for side in ("left", "right")]
    assert "window" in {nodes[side["input"]]["op"] if side["op"] == "map" else side["op"] for side in sides}


def test_where_now_serves_for_more_it_is_joined() -> None:
    assert ops("rt(i, n) :- e(i, t, _), now(n), t < n.")["window"] == 0
    assert ops("r(i) :- e(i, t, _), now(n), t < n, e(_, n, _).")["window"] == 0
    assert ops("r(i) :- e(i, _, _), now(_).")["window"] == 0


def test_what_a_recursion_changes_is_joined() -> None:
    rules = "rt(i, t) :- e(i, t, _). rt(i, t + 1) :- rt(i, t), now(n), t < n."
    assert ops(rules)["window"] == 0
    rules = "reach(x, y) :- e(x, _, y). reach(x, z) :- reach(x, y), e(y, t, z), now(n), t < n."
    assert ops(rules)["window"] == 1


def test_a_relation_of_that_name_is_just_a_relation() -> None:
    own = compile_program(".decl now(t: instant) .input now .decl r() r() :- now(n), n < n + 1.", Catalog())
    assert own.plan["imports"] == []
    column = Column("x", Type.NUMBER)
    known = Catalog([CatalogRelation(3, "now", (column,), True, "set", "other")])
    other = compile_program(".decl r(x: number) r(x) :- now(x), x > 3.", known)
    assert [relation["relation"] for relation in other.plan["imports"]] == [3]
    assert all(node["op"] != "window" for node in other.plan["nodes"])
    with pytest.raises(ConflictError):
        compile_program(".decl now(t: instant) .input now", known)


def test_nobody_else_says_what_time_it_is() -> None:
    with pytest.raises(IncorrectError, match="which the cluster keeps"):
        compile_program('now(to_instant("2026-11-25T12:00:00Z")).', Catalog())


def test_a_window_is_explained() -> None:
    text = explain(plan("r(i) :- e(i, t, d), now(n), n - 60 < t, t <= n."), "r")["text"]
    assert "window since" in text and "until" in text, text

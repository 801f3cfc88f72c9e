"""What is said of a plan: its tree, the rules that its operators are for, and what they have done."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow_serve.errors import NotFoundError, TooLargeError
from dataflow_serve.planner import explain
from dataflow_serve.planner._explain import MAX_DEPTH
from tests.unit.planned import PRELUDE, plan_of


def test_a_relation_of_another_plan_cannot_be_explained() -> None:
    with pytest.raises(NotFoundError) as caught:
        explain(plan_of("p(x) :- e(x, _)."), "pp")
    assert str(caught.value).endswith('; did you mean "p2"?') or str(caught.value).endswith(
        '; did you mean "p"?'
    )


def test_a_shared_operator_is_drawn_once() -> None:
    nested = "e(x, _)"
    for _ in range(8):
        nested = f"e(x, _), x < count : {{ {nested} }}"
    text: str = explain(plan_of(f"p(x) :- {nested}."), "p")["text"]
    assert len(text.split("\n")) < 200


def shares(*workers: dict[str, Any]) -> list[dict[str, Any]]:
    """An analysis in which each worker's operators are those given: part, rows, changes, microseconds."""
    return [
        {
            "operators": [
                {
                    "part": {kind: place},
                    "rows": rows,
                    "bytes": 8 * rows,
                    "changes": out,
                    "runs": 2,
                    "micros": us,
                }
                for (kind, place), (rows, out, us) in operators.items()
            ],
            "arrangements": [
                {"relation": "e", "key": key, "rows": 10, "keys": 4, "bytes": 160, "micros": 5}
                for key in (None, [1])
            ],
        }
        for operators in workers
    ]


def test_operators_know_the_rules_that_they_are_for() -> None:
    tree = explain(plan_of("p2(x, y) :- e(x, y), x < y. p2(y, x) :- e(x, y), x < y, s(_, x)."), "p2")
    union = tree["inputs"][0]
    line = PRELUDE.count("\n") + 1
    first = {"text": "p2(x, y) :- e(x, y), x < y.", "line": line, "column": 1}
    second = {"text": "p2(y, x) :- e(x, y), x < y, s(_, x).", "line": line, "column": 29}
    assert "rules" not in union or union["rules"] == []
    assert [each["rules"] for each in union["inputs"]] == [[first, second], [second]]


def test_figures_are_the_sum_of_what_workers_say() -> None:
    plan = plan_of("p2(x, z) :- e(x, y), e(y, z).")
    ops = [node["op"] for node in plan["nodes"]]
    join, relation = ops.index("join"), [each["name"] for each in plan["relations"]].index("p2")
    one = {("node", join): (3, 7, 2500), ("relation", relation): (20, 6, 100)}
    two = {("node", join): (4, 1, 500), ("relation", relation): (1, 1, 0)}
    tree = explain(plan, "p2", shares(one, two))
    joined = tree["inputs"][0]
    assert joined["stats"] == {
        "out": 8,
        "rows": 7,
        "bytes": 56,
        "runs": 4,
        "micros": 3000,
        "worker_micros": [2500, 500],
    }
    assert tree["stats"]["in"] == 8 and tree["stats"]["out"] == 7
    read = joined["inputs"][0]
    assert read["arrangements"] == [
        {"by": None, "rows": 20, "keys": 8, "bytes": 320, "micros": 10},
        {"by": ["y"], "rows": 20, "keys": 8, "bytes": 320, "micros": 10},
    ]
    line = PRELUDE.count("\n") + 1
    assert joined["notes"] == ["3.0 ms", "holds 7 rows, 0 KiB", "8 out", f"line {line}"]
    assert "[3.0 ms; holds 7 rows, 0 KiB; 8 out; line" in tree["text"]


def test_what_an_antijoin_gives_is_counted_from_its_left_input() -> None:
    plan = plan_of("p2(x, y) :- big(x, y, _), !e(x, y).")
    ops = [node["op"] for node in plan["nodes"]]
    figures = {("node", ops.index("map")): (0, 9, 1), ("node", ops.index("antijoin")): (0, 4, 1)}
    antijoin = explain(plan, "p2", shares(figures))["inputs"][0]
    assert (antijoin["op"], antijoin["stats"]["out"]) == ("antijoin", 13)


def test_a_plan_without_figures_says_nothing_of_them() -> None:
    assert "stats" not in str(explain(plan_of("p(x) :- e(x, _)."), "p"))


def test_more_operators_in_a_row_than_readers_take_are_an_error() -> None:
    def chain(atoms: int) -> dict[str, Any]:
        return plan_of(f"p(x) :- e(x, _), {', '.join(f'!e(x, {value})' for value in range(atoms))}.")

    tree, depth = explain(chain(MAX_DEPTH - 2), "p"), 0
    while tree["inputs"]:
        tree, depth = tree["inputs"][0], depth + 1
    assert depth == MAX_DEPTH
    with pytest.raises(TooLargeError) as caught:
        explain(chain(MAX_DEPTH - 1), "p")
    assert caught.value.message == '"p" is worked out by 57 operators in a row; 56 can be shown'
    assert caught.value.hint == "Divide a long rule among several relations."

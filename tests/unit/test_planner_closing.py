"""Equivalences, choice domains, subsumption, ranges, least texts: plans mean what the language says."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from dataflow_serve.errors import UnsupportedError
from dataflow_serve.language import Catalog
from dataflow_serve.planner import compile_program
from tests.oracle import evaluate, interpret
from tests.oracle.values import Row

PRELUDE = """
.decl e(x: number, y: number)
.input e
.decl s(x: symbol, y: number)
.input s
"""
E: list[Row] = [(1, 2), (3, 2), (4, 5), (6, 6)]
S: list[Row] = [("b", 2), ("a longer text, one", 2), ("a longer text, two", 1)]


def rows_of(program: str, relation: str, e: list[Row] = E, s: list[Row] = S) -> set[Row]:
    """The rows of a relation, on which evaluator and interpreter of the plan must agree, as on all others."""
    compiled = compile_program(PRELUDE + program, Catalog())
    inputs = {"e": e, "s": s}
    expected = evaluate(compiled.checked, inputs)
    assert interpret(compiled.plan, inputs) == expected
    assert all(count == 1 for count in expected[relation].values())
    return set(expected[relation])


PROGRAMS = {
    "equivalence": (".decl q(x: number, y: number) eqrel\nq(x, y) :- e(x, y).", "q"),
    "recursive equivalence": (
        ".decl q(x: number, y: number) eqrel\nq(x, y) :- e(x, y), x < y.\n"
        "q(x, y) :- q(a, b), e(x, a), e(y, b).",
        "q",
    ),
    "equivalence of an input": (
        ".decl q(x: number, y: number) eqrel\n.input q\nq(x, y) :- e(x, y), x > 3.",
        "q",
    ),
    "choice": (".decl q(x: number, y: number) choice-domain x\nq(y, x) :- e(x, y).", "q"),
    "choice of several columns": (
        ".decl q(x: number, y: number, z: symbol) choice-domain (x, y)\nq(y, y % 2, t) :- e(_, y), s(t, _).",
        "q",
    ),
    "choice of the first text": (
        ".decl q(y: number, x: symbol, z: number) choice-domain y\nq(y, x, z) :- s(x, y), e(z, y).",
        "q",
    ),
    "subsumption": (
        ".decl q(x: number, y: number)\nq(x, y) :- e(x, y).\nq(x, a) <= q(x, b) :- a < b.",
        "q",
    ),
    "subsumption of equals": (
        ".decl q(x: symbol, y: number)\nq(x, y) :- s(x, y).\nq(_, a) <= q(_, b) :- a <= b.",
        "q",
    ),
    "several subsumptions": (
        ".decl q(x: number, y: number)\nq(x, y) :- e(x, y).\n"
        "q(x, a) <= q(x, b) :- a <= b.\nq(a, y) <= q(b, y) :- a >= b.",
        "q",
    ),
    "subsumption by what another relation says": (
        ".decl q(x: number, y: number)\nq(x, y) :- e(x, y).\nq(x, a) <= q(x, b) :- e(a, b).",
        "q",
    ),
    "shortest paths": (
        ".decl q(x: number, y: number, d: number)\nq(x, y, 1) :- e(x, y).\n"
        "q(x, z, d + 1) :- q(x, y, d), e(y, z).\nq(x, y, d) <= q(x, y, c) :- c < d.",
        "q",
    ),
    "shortest path of all, kept whole": (
        ".decl q(x: number, y: number, d: number)\nq(0, y, y) :- e(0, y).\n"
        "q(y, z, d + z % 2) :- q(_, y, d), e(y, z).\nq(x, y, d) <= q(z, y, c) :- (c < d ; c = d, z <= x).",
        "q",
    ),
    "range": (".decl q(x: number, y: number)\nq(x, y) :- e(x, z), y = range(x - 2, z, 2).", "q"),
    "range in places": (
        ".decl q(x: number, y: number)\nq(range(0, x), n) :- e(x, _), n = sum range(0, y) : { e(x, y) }.\n"
        "q(x, 0) :- e(x, range(x, x + 3)).\nq(range(7, 9), range(0, 2)).",
        "q",
    ),
    "least and greatest texts": (
        ".decl q(y: number, a: symbol, b: symbol, c: symbol)\nq(y, a, b, max(a, b, \"c\")) :- "
        "s(_, y), a = min x : { s(x, y) }, b = max x + \"!\" : { s(x, _) }.",
        "q",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_plans_mean_what_programs_mean(name: str, rng: random.Random) -> None:
    program, relation = PROGRAMS[name]
    rows_of(program, relation)
    for size in (0, 1, 4, 8, 12):
        e: list[Row] = [(rng.randrange(6), rng.randrange(6)) for _ in range(size)]
        s: list[Row] = [(rng.choice(["", "a", "b", "longer than one word"]), rng.randrange(4)) for _ in e]
        rows_of(program, relation, list(Counter(e)), list(Counter(s)))


def test_an_equivalence_holds_all_that_follows_from_its_pairs() -> None:
    three, two = (1, 2, 3), (4, 5)
    expected = {(x, y) for group in (three, two, (6,)) for x in group for y in group}
    assert rows_of(*PROGRAMS["equivalence"]) == expected


def test_an_equivalence_is_not_made_from_all_triples() -> None:
    compiled = compile_program(PRELUDE + PROGRAMS["equivalence"][0], Catalog())
    iterated = [node for node in compiled.plan["nodes"] if node["op"] == "join"]
    (join,) = iterated
    recursive = {"op": "get", "relation": {"local": list(compiled.checked.relations).index("q")}}
    sides = [compiled.plan["nodes"][join[side]] for side in ("left", "right")]
    assert sides[0] == recursive and sides[1]["op"] == "distinct"


def test_a_choice_takes_the_first_row_in_the_order_of_the_columns() -> None:
    assert rows_of(*PROGRAMS["choice"]) == {(2, 1), (5, 4), (6, 6)}
    one = "a longer text, one"
    assert rows_of(*PROGRAMS["choice of the first text"]) == {(2, one, 1)}
    assert rows_of(*PROGRAMS["choice of several columns"]) == {(2, 0, one), (5, 1, one), (6, 0, one)}


def test_a_domain_is_a_set_of_columns_and_all_of_them_choose_nothing() -> None:
    for domain in ("x, x", "(x, x)", "x, (x, y)", "(y, x), x"):
        program = f".decl q(x: number, y: number) choice-domain {domain}\nq(y, x) :- e(x, y)."
        assert rows_of(program, "q") == {(2, 1), (5, 4), (6, 6)}
    program = ".decl q(x: number, y: number) choice-domain (x, y)\nq(y, x) :- e(x, y)."
    assert rows_of(program, "q") == {(2, 1), (2, 3), (5, 4), (6, 6)}


def test_dominated_rows_give_way_and_of_equals_the_first_stays() -> None:
    e: list[Row] = [(1, 2), (1, 3), (1, 1), (2, 2)]
    assert rows_of(*PROGRAMS["subsumption"], e) == {(1, 3), (2, 2)}
    assert rows_of(*PROGRAMS["subsumption of equals"]) == {("a longer text, one", 2)}


@pytest.mark.parametrize(
    ("condition", "op"),
    [("a < b", "reduce"), ("b >= a", "reduce"), ("a > b", "reduce"), ("a < b, x > 1", "antijoin")],
)
def test_a_least_or_greatest_value_is_an_aggregate(condition: str, op: str) -> None:
    program = f".decl q(x: number, y: number)\nq(x, y) :- e(x, y).\nq(x, a) <= q(x, b) :- {condition}."
    nodes = compile_program(PRELUDE + program, Catalog()).plan["nodes"]
    assert {"reduce", "antijoin"} & {node["op"] for node in nodes} == {op}
    e: list[Row] = [(1, 2), (1, 3), (1, 1), (2, 2), (2, 0)]
    least = {(1, 1), (2, 0)}
    greatest = {(1, 3), (2, 2)} if op == "reduce" else {(1, 1), (1, 2), (1, 3), (2, 2)}
    assert rows_of(program, "q", e) == (least if condition == "a > b" else greatest)


def test_a_row_gives_way_to_rows_that_are_dominated_themselves() -> None:
    program = ".decl q(x: number, y: number)\nq(x, y) :- e(x, y).\nq(a, 0) <= q(b, 0) :- b = a + 1."
    assert rows_of(program, "q", [(1, 0), (2, 0), (3, 0), (5, 0)]) == {(3, 0), (5, 0)}


def test_shortest_paths_leave_out_what_is_longer_and_end_in_spite_of_cycles() -> None:
    e: list[Row] = [(1, 2), (2, 3), (3, 1), (1, 3)]
    assert rows_of(*PROGRAMS["shortest paths"], e) == {
        (1, 2, 1), (1, 3, 1), (1, 1, 2), (2, 3, 1), (2, 1, 2), (2, 2, 3), (3, 1, 1), (3, 2, 2), (3, 3, 2),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bounds", "values"),
    [
        ("1, 4", [1, 2, 3]),
        ("4, 1", [4, 3, 2]),
        ("0, 7, 3", [0, 3, 6]),
        ("7, 0, -3", [7, 4, 1]),
        ("9, 0, 1", []),
        ("3, 3", []),
        ("3, 3, 0", []),
        ("1, 5, 0", [1]),
        ("-9223372036854775807, 9223372036854775807, 9223372036854775807", [-(2**63) + 1, 0]),
        ("0, 1048577", []),
    ],
)
def test_a_range_runs_up_to_its_end_without_it(bounds: str, values: list[int]) -> None:
    rows = rows_of(f".decl q(x: number)\nq(x) :- x = range({bounds}).", "q")
    assert rows == {(value,) for value in values}


def test_ranges_of_floats_add_up_their_steps() -> None:
    rows = rows_of(".decl q(x: float)\nq(x) :- x = range(-1, 0, 0.25). q(x) :- x = range(1.5, -1).", "q")
    assert rows == {(-1.0,), (-0.75,), (-0.5,), (-0.25,), (1.5,), (0.5,)}


def test_a_range_of_a_variable_that_is_bound_is_a_condition() -> None:
    assert rows_of(".decl q(x: number)\nq(x) :- e(x, y), x = range(2, y + 1).", "q") == {(4,), (6,)}
    assert rows_of(".decl q(x: number)\nq(x) :- e(x, _), range(1, 4) = x.", "q") == {(1,), (3,)}


@pytest.mark.parametrize(
    ("rules", "rows"),
    [
        ("q(x, y) :- e(x, y), less(x, y).", {(1, 2), (4, 5)}),
        ("q(x, y) :- e(x, y), !less(x, y).", {(3, 2), (6, 6)}),
        ("q(x, y) :- e(x, y), (less(y, x) ; near(x, y)).", {(1, 2), (3, 2), (4, 5)}),
        ("q(x, n) :- e(x, _), n = count : { e(y, _), less(y, x) }.", {(1, 0), (3, 1), (4, 2), (6, 3)}),
        ("q(x, z) :- e(x, _), total(x, 10, z).", {(1, 11), (3, 13), (4, 14), (6, 16)}),
        ("q(x, y) :- e(x, y), same(x, y).", {(6, 6)}),
        ("q(x, y) :- e(x, y), special(x, 7).", {(1, 2), (6, 6)}),
        ("q(x, y) :- e(x, y), held(y, _).", {(3, 2), (1, 2)}),
        ("q(x, y) :- e(x, y). q(x, y) <= q(z, w) :- less(y, w).", {(6, 6)}),
    ],
)
def test_an_inline_relation_may_stand_for_a_condition(rules: str, rows: set[Row]) -> None:
    declarations = """
        .decl q(x: number, y: number)
        .decl less(x: number, y: number) inline
        less(x, y) :- x < y.
        .decl near(x: number, y: number) inline
        near(x, y) :- less(x, y), z = y - x, z < 2.
        .decl total(x: number, y: number, z: number) inline
        total(x, y, x + y).
        .decl same(x: number, y: number) inline
        same(x, x).
        .decl special(x: number, y: number) inline
        special(1, _). special(x, y) :- y = x + 1.
        .decl held(x: number, y: number) inline
        held(x, y) :- e(y, x), y < x + 2, less(x - 4, y), s(_, x).
    """
    assert rows_of(declarations + rules, "q") == rows


def test_inline_relations_that_stand_for_one_another_in_a_long_row_are_refused() -> None:
    program = ".decl q(x: number)\n.decl m0(x: number) inline\nm0(x) :- x > 0.\n"
    for n in range(1, 3000):
        program += f".decl m{n}(x: number) inline\nm{n}(x) :- m{n - 1}(x).\n"
    with pytest.raises(UnsupportedError, match="more than 64 in a row"):
        compile_program(PRELUDE + program + "q(x) :- e(x, _), m2999(x).", Catalog())
    reversed_program = "\n".join(reversed(program.splitlines()))
    with pytest.raises(UnsupportedError, match="more than 64 in a row"):
        compile_program(PRELUDE + reversed_program + "q(x) :- e(x, _), m2999(x).", Catalog())


def test_an_inline_relation_with_rows_is_a_relation() -> None:
    program = ".decl q(x: number, y: number) inline\nq(x, y) :- e(x, y), x < y.\n.output q"
    assert rows_of(program, "q") == {(1, 2), (4, 5)}

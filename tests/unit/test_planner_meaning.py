"""Plans mean what programs mean: fixed cases with their rows, and random ones against the evaluator."""

from __future__ import annotations

import datetime
import random
from collections import Counter
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow_serve.errors import ConflictError
from dataflow_serve.language import Catalog, Type
from dataflow_serve.planner import compile_program
from dataflow_serve.values import Branch
from tests.oracle import (
    apply_transaction,
    evaluate,
    evaluate_texts,
    generate,
    interpret,
)
from tests.oracle.values import NAN, Failed, Row, aggregate, apply

PRELUDE = """
.decl e(x: number, y: number)
.input e
.decl bag(x: number, y: number) raw
.input bag
.decl s(name: symbol, n: number)
.input s
.decl f(x: float)
.input f
.decl u(x: unsigned)
.input u
.decl none(x: number)
.input none
.decl r(x: number)
.decl r2(x: number, y: number)
.decl r3(x: number, y: number, z: number)
.decl t(name: symbol, n: number)
.decl rf(x: float)
.decl ru(x: unsigned)
.decl rs(x: symbol)
.decl yes()
.decl also(x: number)
"""
INPUTS: dict[str, list[Row]] = {
    "e": [(1, 2), (2, 3), (3, 1), (3, 4), (0, 0)],
    "bag": [(1, 5), (1, 5), (1, 6), (2, 5)],
    "s": [("ann", 3), ("bob", 5), ("cat", 5), ("7", 0), ("x7", 1)],
    "f": [(0.5,), (0.0,), (-2.0,)],
    "u": [(0,), (3,)],
}


def both(program: str, inputs: Mapping[str, Iterable[Row]]) -> dict[str, Counter[Row]]:
    """The contents of the program's relations, on which evaluator and interpreter of the plan must agree."""
    compiled = compile_program(program, Catalog())
    rows = {name: list(found) for name, found in inputs.items()}
    expected = evaluate(compiled.checked, rows)
    assert interpret(compiled.plan, rows) == expected
    return expected


@pytest.mark.parametrize(
    ("rules", "relation", "rows"),
    [
        # Parts of a body that are conditions for the others.
        ("r(x) :- e(x, _), s(_, n), n > 4.", "r", {(0,), (1,), (2,), (3,)}),
        ("r(x) :- e(x, _), s(_, n), n > 5.", "r", set()),
        ("r(x) :- e(x, _), s(_, n), m = n / (n - 5), m > 5.", "r", set()),
        ("r(x) :- e(x, _), c = count : { e(_, y) }, s(_, c).", "r", {(0,), (1,), (2,), (3,)}),
        ("r(1) :- s(_, 5), bag(_, 6), none(_).", "r", set()),
        ("r(1) :- s(_, 5), bag(_, 6), !none(_).", "r", {(1,)}),
        ("r(0). r(x + 1) :- r(x), x < 3, s(_, n), n > 4, r(y), y > 0. r(1).", "r", {(0,), (1,), (2,), (3,)}),
        # Recursion: linear, non-linear, mutual.
        (
            "r2(x, y) :- e(x, y). r2(x, z) :- r2(x, y), e(y, z).",
            "r2",
            {(x, y) for x in (1, 2, 3) for y in (1, 2, 3, 4)} | {(0, 0)},
        ),
        (
            "r2(x, y) :- e(x, y). r2(x, z) :- r2(x, y), r2(y, z).",
            "r2",
            {(x, y) for x in (1, 2, 3) for y in (1, 2, 3, 4)} | {(0, 0)},
        ),
        ("r(4). r(x) :- also(y), e(x, y). also(x) :- r(x).", "r", {(4,), (3,), (2,), (1,)}),
        ("r(x) :- none(x). r(x + 1) :- r(x), x < 3. r(0).", "r", {(0,), (1,), (2,), (3,)}),
        # Joins, constants, computed keys, cross products.
        ("r(x) :- e(x, y), e(y, x).", "r", {(0,)}),
        ("r(x) :- e(x, x + 1).", "r", {(1,), (2,), (3,)}),
        ("r2(x, n) :- e(x, _), s(_, n), n = x + 2.", "r2", {(1, 3), (3, 5)}),
        ("r2(x, n) :- s(_, n), e(x, _), x < n, n < 3.", "r2", {(0, 1)}),
        ('r(x) :- e(x, _), s("ann", 3).', "r", {(0,), (1,), (2,), (3,)}),
        ('r(x) :- e(x, _), s("ann", 4).', "r", set()),
        ("r(x) :- x = y, e(y, z), z = 3.", "r", {(2,)}),
        ("r(x) :- e(x, _), x = 1, x = 2.", "r", set()),
        # Heads, facts, relations without columns.
        ("r(x), r2(y, x), yes() :- e(x, y), x > 2.", "r2", {(1, 3), (4, 3)}),
        ("yes() :- e(_, _), !none(_).", "yes", {()}),
        ("r(x) :- e(x, _), !yes().", "r", {(0,), (1,), (2,), (3,)}),
        ("r(1 + 2 * 3). r(-7 / 2). r(-7 % 2). r(2 ^ 10). r(1 / 0).", "r", {(7,), (-3,), (-1,), (1024,)}),
        # Negation.
        ("r(y) :- e(_, y), !e(y, _).", "r", {(4,)}),
        ("r(x) :- e(x, y), !e(y, x + 3).", "r", {(0,), (1,), (2,), (3,)}),
        ("r(x) :- e(x, _), !e(x, 10 / x).", "r", {(1,), (2,), (3,)}),  # the term fails for 0
        ("r(x) :- e(x, y), !(x < y ; x = 0).", "r", {(3,)}),
        # Wrapping and failing.
        ("r(9223372036854775807 + x) :- e(x, _), x = 1.", "r", {(-(1 << 63),)}),
        ("ru(x - 1) :- u(x).", "ru", {((1 << 64) - 1,), (2,)}),
        ("ru(x) :- x = sum y : { u(_), y = 18446744073709551615u }.", "ru", {((1 << 64) - 2,)}),
        ("r(10 / x) :- e(x, _).", "r", {(10,), (5,), (3,)}),
        ("r(x) :- e(x, _), y = 10 / x.", "r", {(1,), (2,), (3,)}),  # fails although nobody needs y
        ("r(x) :- e(x, _), 10 % x >= 0.", "r", {(1,), (2,), (3,)}),
        # Groups: the aggregates' own rows, where one may fail, or the rule has rows besides.
        (
            "r3(x, n, m) :- e(x, _), n = count : { e(x, _) }, m = sum y : { e(x, y) }.",
            "r3",
            {(0, 1, 0), (1, 1, 2), (2, 1, 3), (3, 2, 5)},
        ),
        ("r2(x, n) :- bag(x, _), n = sum y : { bag(x, y) }.", "r2", {(1, 16), (2, 5)}),
        (
            "r2(x, n) :- e(x, y), y < 4, n = count : { e(x, z), z < 4 }.",
            "r2",
            {(0, 1), (1, 1), (2, 1), (3, 1)},
        ),
        (
            "r2(x, n) :- e(x, y), y < 4, n = count : { e(x, z), z > 3 }.",
            "r2",
            {(0, 0), (1, 0), (2, 0), (3, 1)},
        ),
        ("r2(x, n) :- e(x, _), n = sum 6 / y : { e(x, y) }.", "r2", {(0, 0), (1, 3), (2, 2), (3, 7)}),
        (
            "r3(x, n, m) :- e(x, _), n = sum 6 / y : { e(x, y) }, m = count : { e(x, _) }.",
            "r3",
            {(0, 0, 1), (1, 3, 1), (2, 2, 1), (3, 7, 2)},
        ),
        ("r(n) :- n = sum m : { e(x, _), m = count : { e(x, _) } }.", "r", {(1 + 1 + 1 + 2 + 2,)}),
        ("r(n) :- n = sum 6 / x : { e(x, _) }.", "r", {(6 + 3 + 2 + 2,)}),
        ("r(to_number(name)) :- s(name, _).", "r", {(7,)}),
        ("r(x) :- s(name, x), to_number(name) = to_number(name).", "r", {(0,)}),
        ("rf(x / 0.0) :- f(x).", "rf", {(float("inf"),), (NAN,), (float("-inf"),)}),
        ("rf(y) :- f(x), y = x / 0.0, y = 0.0 / x.", "rf", {(NAN,)}),
        # Texts.
        ('rs(cat(a, "-", b)) :- s(a, 3), s(b, 5).', "rs", {("ann-bob",), ("ann-cat",)}),
        ('rs(substr(a, 0, 1)) :- s(a, _), contains("a", a).', "rs", {("a",), ("c",)}),
        (
            'rs(a) :- s(a, _), s(b, _), ord(b) >= ord(a), !ord(a) != ord(b), a > "b".',
            "rs",
            {("bob",), ("cat",), ("x7",)},
        ),
        ("r2(x, y) :- e(x, y), ord(x + y) < ord((2)).", "r2", {(0, 0)}),
        ("rs(substr(a, 2, 5)) :- s(a, _).", "rs", {("n",), ("b",), ("t",), ("",)}),
        ('r(strlen(a)) :- s(a, _), match(".*7", a).', "r", {(1,), (2,)}),
        ('rs(a) :- s(a, _), a < "b".', "rs", {("ann",), ("7",)}),
        ("rs(to_string(x * 0.5)) :- f(x).", "rs", {("0.25",), ("0",), ("-1",)}),
        # Aggregates of nothing.
        ("r(n) :- n = count : { none(_) }.", "r", {(0,)}),
        ("r(n) :- n = sum x : { none(x) }.", "r", {(0,)}),
        ("rf(n) :- n = sum x : { f(x), x > 5 }.", "rf", {(0.0,)}),
        ("r(n) :- n = max x : { none(x) }.", "r", set()),
        ("rf(n) :- n = mean x : { none(x) }.", "rf", set()),
        # Aggregates with and without outer variables.
        ("r2(x, n) :- e(x, _), n = count : { e(_, x) }.", "r2", {(0, 1), (1, 1), (2, 1), (3, 1)}),
        ("r2(x, n) :- e(_, x), n = count : { e(x, _) }.", "r2", {(0, 1), (1, 1), (2, 1), (3, 2), (4, 0)}),
        ("r2(x, n) :- e(x, _), n = sum y : { e(y, _), y < x }.", "r2", {(0, 0), (1, 0), (2, 1), (3, 3)}),
        ("r2(x, n) :- e(x, _), n = min y : { e(y, _), y > x }.", "r2", {(0, 1), (1, 2), (2, 3)}),
        ("r2(x, n) :- e(x, _), n = max y * 2 : { e(x, y) }.", "r2", {(0, 0), (1, 4), (2, 6), (3, 8)}),
        ("rf(m) :- m = mean y : { e(_, y) }.", "rf", {(2.0,)}),
        ("r(x) :- e(x, _), count : { e(x, _) } > 1.", "r", {(3,)}),
        ("r(x) :- e(x, _), x != count : { e(_, _) } - 2.", "r", {(0,), (1,), (2,)}),
        ("r(x) :- e(x, _), 2 = count : { e(x, _) }.", "r", {(3,)}),
        ("r(x) :- e(_, x), 0 = count : { e(x, _) }.", "r", {(4,)}),
        ("r2(a, b) :- a = min x : { e(x, _) }, b = max x : { e(x, _) }.", "r2", {(0, 3)}),
        (
            "r3(x, a, b) :- e(x, 2), a = count : { e(y, _), y > x }, b = count : { e(y, _), y > a }.",
            "r3",
            {(1, 3, 0)},
        ),
        ("r(count : { e(_, _) }).", "r", {(5,)}),
        # Copies of raw rows count, each `_` is a variable, alternatives count each value once.
        ("r(n) :- n = count : { bag(1, _) }.", "r", {(3,)}),
        ("r(n) :- n = sum y : { bag(_, y) }.", "r", {(21,)}),
        ("r2(x, n) :- bag(x, _), n = count : { bag(x, y), bag(_, y) }.", "r2", {(1, 7), (2, 3)}),
        ("r(n) :- n = count : { e(_, _), u(_) }.", "r", {(10,)}),
        ("r(n) :- n = count : { e(x, _) ; e(_, x) }.", "r", {(5,)}),
        ("r(n) :- n = sum x : { e(x, _) ; bag(_, x) }.", "r", {(0 + 1 + 2 + 3 + 5 + 6,)}),
        # Nested, and witnesses.
        (
            "r2(c, w) :- c = count : { e(x, _), x > min y : { e(y, w), y > 0 } }.",
            "r2",
            {(3, 2)},
        ),
        (
            "r2(x + w, c) :- s(_, x), c = sum z : { e(z, _), z > min y : { s(_, y), e(y, w), w > x } }.",
            "r2",
            {(3, 8), (7, 0), (2, 8)},
        ),
        (
            "r2(x, n) :- e(x, _), n = count : { e(y, _), y < sum z : { e(x, z) } }.",
            "r2",
            {(0, 0), (1, 2), (2, 3), (3, 5)},
        ),
        ("t(name, n) :- n = max m : { s(name, m) }.", "t", {("bob", 5), ("cat", 5)}),
        ("r3(x, y, n) :- n = min x + y : { e(x, y), x > 0 }.", "r3", {(1, 2, 3)}),
        ("r(x) :- _ = max x : { e(x, _) }.", "r", {(3,)}),
    ],
)
def test_rows_of_a_program(rules: str, relation: str, rows: set[Row]) -> None:
    assert set(both(PRELUDE + rules, INPUTS)[relation]) == rows


def test_an_input_is_united_with_its_facts_and_rules() -> None:
    program = ".decl a(x: number)\n.input a\na(1). a(x + 1) :- a(x), x < 3."
    assert set(both(program, {"a": [(7,), (0,)]})["a"]) == {(7,), (0,), (1,), (2,), (3,)}


def test_a_raw_relation_keeps_its_copies_and_what_is_derived_from_it_has_none() -> None:
    program = ".decl a(x: number) raw\n.input a\n.decl b(x: number)\nb(x) :- a(x)."
    found = both(program, {"a": [(1,), (1,), (2,)]})
    assert found == {"a": Counter({(1,): 2, (2,): 1}), "b": Counter({(1,): 1, (2,): 1})}


def test_later_programs_read_what_earlier_ones_derived() -> None:
    found = evaluate_texts(
        [
            ".decl a(x: number)\n.input a\n.decl b(x: number)\nb(x * 2) :- a(x).",
            ".decl c(x: number)\nc(x + 1) :- b(x), !a(x).",
        ],
        {"a": [(1,), (2,)]},
    )
    assert {name: set(rows) for name, rows in found.items()} == {
        "a": {(1,), (2,)},
        "b": {(2,), (4,)},
        "c": {(5,)},
    }


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
)
@given(seed=st.integers(0, (1 << 63) - 1))
def test_random_programs_mean_the_same_planned_or_not(seed: int) -> None:
    case = generate(random.Random(seed), transactions=3, rows=4)
    state: dict[str, Counter[Row]] = {name: Counter() for name in case.inputs}
    for transaction in case.transactions:
        apply_transaction(case.inputs, state, transaction)
        both(case.program, {name: list(rows.elements()) for name, rows in state.items()})


def test_several_choice_domains_leave_rows_in_their_order(rng: random.Random) -> None:
    for _ in range(30):
        rows = {tuple(rng.randrange(4) for _ in range(3)) for _ in range(rng.randrange(20))}
        found = both(
            ".decl e(x: number, y: number, z: number) .input e "
            ".decl c(x: number, y: number, z: number) choice-domain (x, y), z, (x, z) "
            "c(x, y, z) :- e(x, y, z).",
            {"e": rows},
        )
        left: list[Row] = []
        for row in sorted(rows):
            if not any(row[:2] == other[:2] or row[2] == other[2] for other in left):
                left.append(row)
        assert set(found["c"]) == set(left)


@pytest.mark.parametrize(
    ("rules", "rows"),
    [
        # Of the rows of one round the first by the order; those of later rounds come too late.
        ("c(9, 9). c(x, y) :- c(_, x), e(x, y).", {(9, 9), (9, 5), (2, 1), (1, 0), (9, 2), (2, 3)}),
        (
            "c(9, 9). c(x, y) :- c(_, x), e(x, y), !(x = 9, y = 2).",
            {(9, 9), (9, 5), (5, 1), (1, 0), (1, 2), (2, 3)},
        ),
        # No row holds itself: nothing leads to 7 but 8, and nothing to 8 but 7.
        ("c(9, 9). c(x, y) :- c(_, x), e(x, y), x != 9. ", {(9, 9)}),
    ],
)
def test_what_is_chosen_in_a_recursion_came_first(rules: str, rows: set[Row]) -> None:
    edges = [(9, 5), (9, 2), (5, 1), (1, 2), (1, 0), (0, 1), (0, 5), (2, 3), (2, 1), (7, 8), (8, 7)]
    declarations = ".decl e(x: number, y: number) .input e .decl c(x: number, y: number) choice-domain y "
    assert set(both(declarations + rules, {"e": edges})["c"]) == rows


# The oracle's own values


@pytest.mark.parametrize(
    ("func", "over", "args", "value"),
    [
        ("add", Type.NUMBER, ((1 << 63) - 1, 1), -(1 << 63)),
        ("neg", Type.NUMBER, (-(1 << 63),), -(1 << 63)),
        ("div", Type.NUMBER, (-(1 << 63), -1), -(1 << 63)),
        ("div", Type.NUMBER, (-7, 2), -3),
        ("mod", Type.NUMBER, (-7, 2), -1),
        ("mod", Type.NUMBER, (7, -2), 1),
        ("div", Type.NUMBER, (1, 0), None),
        ("mod", Type.UNSIGNED, (1, 0), None),
        ("pow", Type.NUMBER, (3, 4), 81),
        ("pow", Type.NUMBER, (-3, 3), -27),
        ("pow", Type.NUMBER, (2, 64), 0),
        ("pow", Type.NUMBER, (2, -1), None),
        ("pow", Type.FLOAT, (2.0, -1.0), 0.5),
        ("pow", Type.FLOAT, (-1.0, 0.5), NAN),
        ("bshl", Type.NUMBER, (1, 65), 2),
        ("bshr", Type.NUMBER, (-16, 2), -4),
        ("bshru", Type.NUMBER, (-1, 60), 15),
        ("bnot", Type.UNSIGNED, (0,), (1 << 64) - 1),
        ("lxor", Type.NUMBER, (5, 0), 1),
        ("div", Type.FLOAT, (0.0, 0.0), NAN),
        ("mul", Type.FLOAT, (-1.0, 0.0), 0.0),
        ("eq", Type.FLOAT, (NAN, NAN), True),
        ("lt", Type.FLOAT, (float("inf"), NAN), True),
        ("max", Type.FLOAT, (1.0, NAN, 2.0), NAN),
        ("lt", Type.SYMBOL, ("Z", "a"), True),
        ("lt", Type.SYMBOL, ("é", "🙂"), True),
        ("strlen", Type.SYMBOL, ("é",), 2),
        ("substr", Type.SYMBOL, ("flight", 4, 30), "ht"),
        ("substr", Type.SYMBOL, ("flight", 6, 1), ""),
        ("substr", Type.SYMBOL, ("flight", 7, 1), None),
        ("substr", Type.SYMBOL, ("é", 0, 1), None),
        ("substr", Type.SYMBOL, ("abc", -1, 1), None),
        ("match", Type.SYMBOL, ("(", "x"), None),
        ("to_number", Type.SYMBOL, (" -12 ",), -12),
        ("to_number", Type.SYMBOL, ("12x",), None),
        ("to_number", Type.SYMBOL, ("9223372036854775808",), None),
        ("to_number", Type.SYMBOL, ("-0xCafe",), -0xCAFE),
        ("to_number", Type.SYMBOL, ("0b101",), 5),
        ("to_number", Type.SYMBOL, ("0x",), None),
        ("to_number", Type.SYMBOL, ("0x-1",), None),
        ("to_number", Type.SYMBOL, ("0b2",), None),
        ("to_number", Type.SYMBOL, ("-0x8000000000000000",), -(1 << 63)),
        ("to_unsigned", Type.SYMBOL, ("-1",), None),
        ("to_unsigned", Type.SYMBOL, ("0xffffffffffffffff",), (1 << 64) - 1),
        ("to_number", Type.FLOAT, (-2.9,), -2),
        ("to_number", Type.FLOAT, (NAN,), None),
        ("to_unsigned", Type.NUMBER, (-1,), (1 << 64) - 1),
        ("to_number", Type.UNSIGNED, ((1 << 64) - 1,), -1),
        ("to_symbol", Type.FLOAT, (1e21,), "1000000000000000000000"),
        ("to_symbol", Type.FLOAT, (2.0,), "2"),
        ("to_symbol", Type.FLOAT, (NAN,), "NaN"),
    ],
)
def test_functions_on_values(func: str, over: Type, args: tuple[int, ...], value: object) -> None:
    if value is None:
        with pytest.raises(Failed):
            apply(func, over, args)
    else:
        found = apply(func, over, args)
        assert found == value or (found is NAN and value is NAN)


def test_aggregates_on_values() -> None:
    assert aggregate("sum", Type.NUMBER, [(1 << 63) - 1, 1]) == -(1 << 63)
    assert aggregate("sum", Type.UNSIGNED, [(1 << 64) - 1, 2]) == 1
    assert aggregate("mean", Type.NUMBER, [(1 << 63) - 1, (1 << 63) - 1]) == float((1 << 63) - 1)
    assert aggregate("max", Type.FLOAT, [1.0, NAN]) is NAN
    for func in ("min", "max", "mean"):
        with pytest.raises(Failed):
            aggregate(func, Type.NUMBER, [])


RECORDS = """
.type Pair = [x: number, y: symbol]
.type List = [head: number, tail: List]
.type Tree = Leaf { x: number } | Node { left: Tree, right: Tree } | Empty {}
.decl n(x: number)
.input n
.decl pairs(p: Pair)
.input pairs
.decl trees(t: Tree)
.input trees
.decl r(x: number)
.decl p(x: Pair)
.decl l(x: List)
.decl t(x: Tree)
"""
LEAF, TWO, EMPTY = Branch("Leaf", (1,)), Branch("Leaf", (2,)), Branch("Empty")
NODE = Branch("Node", (LEAF, EMPTY))
RECORD_INPUTS: dict[str, list[Row]] = {
    "n": [(1,), (2,)],
    "pairs": [((1, "a"),), ((1, "a text of some length"),), ((2, "b"),), (None,)],
    "trees": [(NODE,), (LEAF,)],
}


@pytest.mark.parametrize(
    ("rules", "relation", "rows"),
    [
        ("r(x) :- pairs([x, _]).", "r", {(1,), (2,)}),
        ('r(x) :- pairs([x, "b"]).', "r", {(2,)}),
        ("r(x) :- pairs(p), p = [x, y], strlen(y) > 1.", "r", {(1,)}),
        ("r(x) :- n(x), pairs([x + 1, _]).", "r", {(1,)}),
        ("r(1) :- pairs(nil).", "r", {(1,)}),
        ("r(1) :- pairs(p), p = nil.", "r", {(1,)}),
        ('r(x) :- n(x), !pairs([x, "b"]).', "r", {(1,)}),
        ('p([x, "new"]) :- n(x).', "p", {((1, "new"),), ((2, "new"),)}),
        ('p([3, "c"]). p(nil).', "p", {((3, "c"),), (None,)}),
        ('p(q) :- pairs(q), q != nil, q != [2, "b"].', "p", {((1, "a"),), ((1, "a text of some length"),)}),
        ("p(q) :- pairs([x, y]), q = [x + 1, y], pairs(q).", "p", set()),
        ("l(nil). l([x, t]) :- n(x), l(t), t = nil.", "l", {(None,), ((1, None),), ((2, None),)}),
        (
            "l([1, [2, nil]]). l(t) :- l([_, t]).",
            "l",
            {((1, (2, None)),), ((2, None),), (None,)},
        ),
        ("r(x) :- l([_, [x, _]]). l([1, [2, nil]]).", "r", {(2,)}),
        (
            "t(x) :- trees(x). t(x), t(y) :- t($Node(x, y)).",
            "t",
            {(Branch("Node", (LEAF, EMPTY)),), (LEAF,), (EMPTY,)},
        ),
        ("r(x) :- trees($Node($Leaf(x), $Empty)).", "r", {(1,)}),
        (
            "t($Node(x, $Leaf(n))) :- trees(x), x = $Leaf(_), n(n), n > 1.",
            "t",
            {(Branch("Node", (LEAF, Branch("Leaf", (2,)))),)},
        ),
        ("r(c) :- c = count : { pairs([_, _]) }.", "r", {(3,)}),
        ("r(c) :- n(x), c = count : { pairs([x, _]) }.", "r", {(2,), (1,)}),
        ("r(m) :- m = max x : { pairs([x, y]), strlen(y) < 2 }.", "r", {(2,)}),
        ('r(x) :- pairs([x, y]), [x, y] = [1, z], z = "a".', "r", {(1,)}),
        ('r(x) :- n(x), v = [x, "b"], w = [x, "b"], v = w, pairs(v).', "r", {(2,)}),
        # Records whose type nothing says are of one of their own.
        ("r(x) :- [x] = [1].", "r", {(1,)}),
        ('r(x) :- v = [2, ["t", x]], w = v, w = [y, c], y = 2, c = ["t", 3].', "r", {(3,)}),
        ("r(x) :- n(x), [[x, 1.5]] != [[1, 1.5]], [x] = [x], nil != [x].", "r", {(2,)}),
        ("r(x) :- n(x), v = [x, [x]], v = [2, [y]], [$Leaf(y)] = [$Leaf(2)].", "r", {(2,)}),
        # Of what isn't named only a value is asked.
        ("r(x) :- n(x), _ = [x], _ = 1 / (x - 1).", "r", {(2,)}),
    ],
)
def test_records_and_branches(rules: str, relation: str, rows: set[Row]) -> None:
    assert set(both(RECORDS + rules, RECORD_INPUTS)[relation]) == rows


def test_a_sum_is_of_what_the_columns_around_it_say() -> None:
    program = """
        .decl s(x: symbol)
        .input s
        .decl at(t: instant)
        .input at
        .decl texts(x: symbol)
        texts(x + y) :- s(x), s(y).
        .decl later(t: instant)
        later(t + 1) :- at(t).
        .decl between(n: number)
        between(t - u) :- at(t), at(u), d = t - u, d > 0.
        .decl plain(n: number)
        plain(n) :- n = m + 1, m = 2.
    """
    moment = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
    second = datetime.timedelta(seconds=1)
    micro = datetime.timedelta(microseconds=1)
    found = both(program, {"s": [("a",), ("b",)], "at": [(moment,), (moment + second,)]})
    assert set(found["texts"]) == {("aa",), ("ab",), ("ba",), ("bb",)}
    assert set(found["later"]) == {(moment + micro,), (moment + second + micro,)}
    assert set(found["between"]) == {(1_000_000,)}
    assert set(found["plain"]) == {(3,)}


def test_a_program_may_repeat_the_types_of_another_or_leave_them_out() -> None:
    first = ".type P = [x: number] .decl r(p: P) .input r"
    rows = {"r": [((1,),), ((2,),)]}
    for second in [
        ".decl s(x: number) s(x) :- r([x]).",
        ".type P = [x: number] .decl r(p: P) .decl s(x: number) .decl q(p: P) "
        "q([1]). s(x) :- r([x]), q([x]).",
    ]:
        found = evaluate_texts([first, second], rows)["s"]
        assert set(found) == ({(1,), (2,)} if "q" not in second else {(1,)})
    with pytest.raises(ConflictError, match="declared otherwise"):
        evaluate_texts([first, ".type P = [y: number] .decl r(p: P)"], rows)


def test_cyclic_bodies_mean_what_their_atoms_say(rng: random.Random) -> None:
    """Random bodies over few variables, on random rows, copies among them, until some were cyclic."""
    multijoins = 0
    for round_ in range(600):
        if round_ >= 60 and multijoins:
            break
        names = "xyzw"[: rng.randint(3, 4)]
        atoms: list[str] = []
        used: set[str] = set()
        for _ in range(rng.randint(3, 5)):
            relation, width = rng.choice([("e", 2), ("e", 2), ("bag", 2), ("wide", 3), ("none", 1)])
            arguments = [rng.choice([*names, *names, "_"]) for _ in range(width)]
            used.update(arguments)
            atoms.append(f"{relation}({', '.join(arguments)})")
        body, bound = ", ".join(atoms), sorted(used - {"_"})
        if len(bound) < 2:
            continue
        rules = f"r2({bound[0]}, {bound[-1]}) :- {body}. r(n) :- n = count : {{ {body} }}."
        inputs: dict[str, list[Row]] = {
            "e": [(rng.randint(0, 3), rng.randint(0, 3)) for _ in range(8)],
            "bag": [(rng.randint(0, 3), rng.randint(0, 3)) for _ in range(8)],
            "wide": [tuple(rng.randint(0, 2) for _ in range(3)) for _ in range(10)],
            "none": [(0,), (1,), (2,)],
        }
        program = PRELUDE + ".decl wide(x: number, y: number, z: number)\n.input wide\n" + rules
        both(program, inputs)
        plan = compile_program(program, Catalog()).plan
        multijoins += any(node["op"] == "multijoin" for node in plan["nodes"])
    assert multijoins > 0

"""Statistics decide the order of joins and nothing else: bad bodies are ordered well, and mean the same."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from dataflow_serve.language import Catalog, CatalogRelation, Column, Type
from dataflow_serve.planner import RelationStatistics, Statistics, compile_program, explain
from tests.oracle import evaluate, interpret
from tests.oracle.values import Row

NAMES = {"customer": 2, "order": 3, "item": 3, "nation": 2, "edge": 2, "flag": 2}


def relation(number: int, name: str, width: int) -> CatalogRelation:
    columns = tuple(Column(f"c{place}", Type.NUMBER) for place in range(width))
    return CatalogRelation(number, name, columns, True, "set", "base")


CATALOG = Catalog([relation(number, name, width) for number, (name, width) in enumerate(NAMES.items(), 1)])

KNOWN = Statistics(
    {
        "customer": RelationStatistics(150_000, (150_000, 25), {}),
        "order": RelationStatistics(1_500_000, (1_500_000, 100_000, 2_400), {}),
        "item": RelationStatistics(6_000_000, (1_500_000, 10_000, 50), {}),
        "nation": RelationStatistics(25, (25, 25), {}),
        "flag": RelationStatistics(1_000_000, (1_000_000, 2), {frozenset([0, 1]): 1_000_000}),
    }
)


def order_of(body: str, known: Statistics | None) -> list[str]:
    """The relations of a body in the order in which they are joined."""
    plan = compile_program(f".decl p(x: number)\np(x) :- {body}.", CATALOG, None, known).plan

    def leaves(tree: dict[str, Any]) -> list[str]:
        if tree["op"] == "get":
            return [tree["detail"]]
        return [name for each in tree["inputs"] for name in leaves(each)]

    return leaves(explain(plan, "p"))


@pytest.mark.parametrize(
    ("body", "order"),
    [
        # Written from the largest to the smallest.
        (
            "item(o, x, _), order(o, c, _), customer(c, n), nation(n, 3)",
            ["nation", "customer", "order", "item"],
        ),
        # A constant in a column of few values is worth less than a small relation.
        ("flag(x, 1), nation(x, _)", ["nation", "flag"]),
        # One in a key is worth more.
        ("nation(n, _), customer(x, n), order(17, x, _)", ["order", "customer", "nation"]),
        # What shares nothing with the rest comes when the rest is done, however small it is.
        ("item(o, x, _), nation(_, _), order(o, 5, _)", ["order", "item", "nation"]),
    ],
)
def test_a_badly_written_body_is_ordered_well(body: str, order: list[str]) -> None:
    assert order_of(body, KNOWN) == order


def test_without_statistics_the_order_is_that_of_the_text() -> None:
    body = "item(o, x, _), order(o, c, _), customer(c, n)"
    assert order_of(body, None) == order_of(body, Statistics()) == ["item", "order", "customer"]


def test_an_empty_relation_counts_as_unknown() -> None:
    known = Statistics({"item": RelationStatistics(0, (0, 0, 0), {})})
    assert order_of("item(o, x, _), order(o, _, _)", known) == ["item", "order"]


def test_a_relation_of_which_nothing_is_known_is_taken_for_a_large_one() -> None:
    assert order_of("edge(n, x), item(_, _, n), nation(n, _)", KNOWN)[0] == "nation"


def test_an_arrangement_says_how_many_values_columns_have_together() -> None:
    known = RelationStatistics(1000, (100, 100), {frozenset([0, 1]): 300})
    assert known.values([0, 1]) == 300
    assert known.values([0]) == 100
    assert RelationStatistics(1000, (100, 100), {}).values([0, 1]) == 1000


CYCLE = "item(o, s, _), order(o, c, _), customer(c, n), supplier(s, n)"


@pytest.mark.parametrize(
    ("body", "changed", "at_once"),
    [
        # Each is found by a key of it, beginning with the items.
        (CYCLE, {}, False),
        # An order has many rows.
        (CYCLE, {"order": RelationStatistics(1_500_000, (1_000, 100_000, 2_400), {})}, True),
        # That columns are a key together only an arrangement by them tells.
        (CYCLE.replace("(c, n)", "(c, n), deal(c, s, _)"), {}, True),
        (
            CYCLE.replace("(c, n)", "(c, n), deal(c, s, _)"),
            {"deal": RelationStatistics(1_000, (100, 100, 10), {frozenset([0, 1]): 1_000})},
            False,
        ),
        # Nothing is known of it.
        (CYCLE, {"supplier": RelationStatistics(0, (0, 0), {})}, True),
        # The edges of a graph, found by one of two columns.
        ("edge(x, y), edge(y, z), edge(x, z)", {}, True),
    ],
)
def test_a_cycle_is_taken_at_once_unless_each_atom_is_found_by_a_key(
    body: str, changed: dict[str, RelationStatistics], at_once: bool
) -> None:
    widths = {**NAMES, "supplier": 2, "deal": 3}
    catalog = Catalog(
        [relation(number, name, width) for number, (name, width) in enumerate(widths.items(), 1)]
    )
    known = {
        "item": RelationStatistics(6_000_000, (1_500_000, 10_000, 50), {}),
        "order": RelationStatistics(1_500_000, (1_500_000, 100_000, 2_400), {}),
        "customer": RelationStatistics(150_000, (150_000, 25), {}),
        "supplier": RelationStatistics(10_000, (10_000, 25), {}),
        "deal": RelationStatistics(1_000, (100, 100, 10), {}),
        "edge": RelationStatistics(1_000, (400, 400), {}),
        **changed,
    }
    variable = body[body.index("(") + 1]
    program = f".decl p(x: number)\np({variable}) :- {body}."
    nodes = compile_program(program, catalog, None, Statistics(known)).plan["nodes"]
    assert any(node["op"] == "multijoin" for node in nodes) == at_once


def variables_found(body: str, known: Statistics | None) -> list[list[str]]:
    """For each atom of a cycle, the relations that its changes meet, in their order."""
    plan = compile_program(f".decl p(x: number)\np(x) :- {body}.", CATALOG, None, known).plan
    (node,) = [node for node in plan["nodes"] if node["op"] == "multijoin"]
    reads = [plan["nodes"][each]["relation"]["import"] for each in node["inputs"]]
    inputs = [plan["imports"][each]["name"] for each in reads]
    return [[inputs[place] for group in path for place in group] for path in node["paths"]]


def test_a_cycle_goes_on_where_fewest_values_are() -> None:
    body = "customer(x, y), edge(y, z), flag(z, w), nation(w, x)"
    many, one = RelationStatistics(10_000, (10, 10), {}), RelationStatistics(10_000, (10_000, 10_000), {})
    for known in (Statistics({"edge": many, "nation": one}), Statistics({"edge": one, "nation": many})):
        few = "nation" if known.get("nation") is one else "edge"
        from_customer, _, from_flag, _ = variables_found(body, known)
        assert (from_customer[0], from_flag[0]) == (few, few)
    # Columns that are arranged together are known together.
    wide = "order(x, y, z), item(x, y, w), edge(z, v), nation(v, w)"
    spread = RelationStatistics(1_000, (30, 30, 500), {frozenset([0, 1]): 1_000})
    lumped = RelationStatistics(1_000, (30, 30, 500), {frozenset([0, 1]): 2})
    found = {
        name: variables_found(
            wide, Statistics({"item": of_item, "edge": RelationStatistics(900, (9, 9), {})})
        )
        for name, of_item in [("spread", spread), ("lumped", lumped)]
    }
    assert found["spread"][0][0] == "item"
    assert found["lumped"][0][0] == "edge"


def test_without_statistics_the_shape_of_a_cycle_decides() -> None:
    body = "customer(x, y), edge(y, z), flag(z, w), nation(w, x)"
    empty = Statistics({name: RelationStatistics(0, (0, 0), {}) for name in NAMES})
    assert variables_found(body, None) == variables_found(body, empty)
    assert variables_found(body, None)[0][0] == "edge"


def test_what_workers_say_is_read() -> None:
    said = {"edge": {"rows": 9, "distinct": [3, 4], "keys": [[[1, 0], 8]]}}
    known = Statistics.from_json(said).get("edge")
    assert known == RelationStatistics(9, (3, 4), {frozenset([0, 1]): 8})
    assert Statistics.from_json(said).get("item") is None


def test_bodies_mean_the_same_whatever_is_known(rng: Random) -> None:
    declared = "\n".join(
        f".decl {name}({', '.join(f'c{place}: number' for place in range(width))})\n.input {name}"
        for name, width in NAMES.items()
    )
    orders: Counter[bool] = Counter()
    for _ in range(40):
        atoms: list[str] = []
        for _ in range(rng.randint(2, 5)):
            name, width = rng.choice(list(NAMES.items()))
            atoms.append(f"{name}({', '.join(rng.choice([*'xyzw', '_', '1']) for _ in range(width))})")
        conditions = rng.choice([[], ["x != 2"], ["y = x + 1"], ["!nation(x, _)"]])
        rules = f"p(x) :- edge(x, _), {', '.join([*atoms, *conditions])}."
        if "y = " in rules or "y" not in "".join(atoms):
            rules = rules.replace("edge(x, _)", "edge(x, y)")
        program = f"{declared}\n.decl p(x: number)\n{rules}"
        known = Statistics(
            {
                name: RelationStatistics(size, tuple(rng.randint(1, size) for _ in range(width)), {})
                for name, width in NAMES.items()
                if (size := 10 ** rng.randint(0, 6)) > 1
            }
        )
        inputs: dict[str, list[Row]] = {
            name: [tuple(rng.randint(0, 3) for _ in range(width)) for _ in range(12)]
            for name, width in NAMES.items()
        }
        with_it = compile_program(program, Catalog(), None, known)
        without = compile_program(program, Catalog())
        assert with_it.digest == without.digest
        expected = evaluate(with_it.checked, inputs)
        assert interpret(with_it.plan, inputs) == expected
        orders[with_it.plan["nodes"] == without.plan["nodes"]] += 1
    assert orders[False] > 0

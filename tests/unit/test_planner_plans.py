"""The shape of plans: what is pushed down, fused, shared, and in which order things are joined."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataflow_serve.errors import (
    ConflictError,
    IncorrectError,
)
from dataflow_serve.planner import (
    Catalog,
    CatalogRelation,
    Column,
    Type,
    compile_program,
    explain,
)
from tests.unit.planned import drawn, plan_of


@pytest.mark.parametrize(
    ("rule", "relation", "tree"),
    [
        # A copy is no operator at all.
        ("p2(x, y) :- e(x, y).", "p2", ["get e"]),
        ("p2(y, x) :- e(x, y).", "p2", ["map to (e.y, e.x)", "  get e"]),
        # Constants, repeated variables and conditions are checked where rows are read.
        (
            'p(n) :- s("ann", n), n > 3.',
            "p",
            ['map where s.name = "ann", s.n > 3; to (s.n)', "  get s"],
        ),
        ("p(x) :- e(x, x).", "p", ["map where e.x = e.y; to (e.x)", "  get e"]),
        ("p(x) :- e(x, y), y = x + 1.", "p", ["map where e.y = (e.x + 1); to (e.x)", "  get e"]),
        ("p(x) :- e(x, y), y = 7.", "p", ["map where e.y = 7; to (e.x)", "  get e"]),
        # Columns that nobody needs are dropped before the join; the head's projection is the join's.
        (
            "p(x) :- e(x, y), big(y, _, _).",
            "p",
            ["join e.y = big.a; to (e.x)", "  get e", "  map to (big.a)", "    get big"],
        ),
        # Conditions on both sides stand in the join.
        (
            "p(x + z) :- e(x, y), e(y, z), x < z.",
            "p",
            ["join e.y = e.x; where e.x < e.y; to (e.x + e.y)", "  get e", "  get e"],
        ),
        # A term as an argument is a key that is computed.
        (
            "p(x) :- e(x, _), s(_, x + 1).",
            "p",
            [
                "join e.x + 1 = s.n; to (e.x)",
                "  map to (e.x, e.x + 1)",
                "    get e",
                "  map to (s.n)",
                "    get s",
            ],
        ),
        # An equation joins whichever side comes first.
        (
            "p2(x, n) :- s(_, n), e(x, _), n = x * 2.",
            "p2",
            [
                "join s.n = e.x * 2; to (e.x, s.n)",
                "  map to (s.n)",
                "    get s",
                "  map to (e.x, e.x * 2)",
                "    get e",
            ],
        ),
        # What has a constant comes first, then what is connected, so that there is no cross product.
        (
            'p(z) :- e(x, y), e(y, z), s("ann", x).',
            "p",
            [
                "join e.y = e.x; to (e.y)",
                "  join s.n = e.x; to (e.y)",
                '    map where s.name = "ann"; to (s.n)',
                "      get s",
                "    get e",
                "  get e",
            ],
        ),
        # A cross product is there only where the rule has one, and can be seen.
        (
            "p2(x, n) :- e(x, _), s(_, n).",
            "p2",
            [
                "cross product every pair of rows",
                "  map to (e.x)",
                "    get e",
                "  map to (s.n)",
                "    get s",
            ],
        ),
        # A condition without variables of its own only has to have some row.
        (
            'p(x) :- e(x, _), s("ann", 3).',
            "p",
            [
                "join if there is a row",
                '  map where s.name = "ann", s.n = 3; to ()',
                "    get s",
                "  map to (e.x)",
                "    get e",
            ],
        ),
        # What shares no variable, and of which nothing is asked, is a condition.
        (
            "p(x) :- s(_, n), n > 3, e(x, _), e(z, w), e(w, z).",
            "p",
            [
                "join if there is a row",
                "  join if there is a row",
                "    map to (e.x)",
                "      get e",
                "    distinct",
                "      map where s.n > 3; to ()",
                "        get s",
                "  distinct",
                "    join e.x = e.y, e.y = e.x; to ()",
                "      get e",
                "      get e",
            ],
        ),
        (
            "p(1) :- s(_, n), n > 3.",
            "p",
            ["map where s.n > 3; to (1)", "  get s"],
        ),
        (
            "p(x) :- e(x, y), !e(y, _), !s(_, 3).",
            "p",
            [
                "antijoin if there is no row",
                "  map to (e.x)",
                "    antijoin e.y = e.x",
                "      get e",
                "      map to (e.x)",
                "        get e",
                "  map where s.n = 3; to ()",
                "    get s",
            ],
        ),
    ],
)
def test_operators_of_a_rule(rule: str, relation: str, tree: list[str]) -> None:
    assert drawn(rule, relation) == tree


@pytest.mark.parametrize(
    ("rule", "relation", "tree"),
    [
        # The body alone knows the outer variable: it is reduced by it, whatever else the rule says.
        (
            "p2(x, n) :- e(x, 1), n = count : { big(x, _, _) }, n > 0.",
            "p2",
            [
                "map where (count) > 0",
                "  union",
                "    join e.x = big.a; to (e.x, (count))",
                "      map [5] where e.y = 1; to (e.x)",
                "        get e",
                "      reduce [4] count for each big.a",
                "        map to (big.a)",
                "          get big",
                "    map to (e.x, 0)",
                "      antijoin e.x = big.a",
                "        map as [5] above",
                "        reduce as [4] above",
            ],
        ),
        # It doesn't: the values it is asked for come from outside, each once.
        (
            "p2(x, n) :- e(x, _), n = max y : { s(_, y), y < x }.",
            "p2",
            [
                "join e.x = e.x; to (e.x, (max s.n))",
                "  map [2] to (e.x)",
                "    get e",
                "  reduce max s.n for each e.x",
                "    cross product every pair of rows; where s.n < e.x",
                "      distinct",
                "        map as [2] above",
                "      map to (s.n)",
                "        get s",
            ],
        ),
        # Of the rows from which the rule has the outer variables: the groups are all there is, whatever the
        # order and the names. Running totals are kept together, others are not.
        (
            "p2(x, n) :- e(x, _), n = count : { e(x, _) }.",
            "p2",
            [
                "reduce count for each e.x",
                "  map to (e.x)",
                "    get e",
            ],
        ),
        (
            "p2(n + m, b) :- big(_, b, c), c > 3, n = sum x + d : { big(x, b, d), d > 3 }, "
            "m = count : { big(_, b, d), d > 3 }.",
            "p2",
            [
                "map to ((sum big.a + big.c) + (count), big.b)",
                "  reduce sum big.a + big.c, count for each big.b",
                "    map where big.c > 3; to (big.b, big.a + big.c)",
                "      get big",
            ],
        ),
        (
            "p2(n, m) :- e(x, _), n = count : { e(x, _) }, m = max y : { e(x, y) }.",
            "p2",
            [
                "map to ((count), (max e.y))",
                "  join e.x = e.x; to (e.x, (count), (max e.y))",
                "    reduce count for each e.x",
                "      map to (e.x)",
                "        get e",
                "    reduce max e.y for each e.x",
                "      get e",
            ],
        ),
        # Without outer variables a max needs nothing beside it, a sum has a zero.
        ("p(n) :- n = max y : { e(_, y) }.", "p", ["reduce max e.y", "  map to (e.y)", "    get e"]),
        (
            "p(n) :- n = sum y : { e(_, y) }.",
            "p",
            [
                "union",
                "  join if there is a row",
                "    rows 1 constant row",
                "    reduce [3] sum e.y",
                "      map to (e.y)",
                "        get e",
                "  map to (0)",
                "    antijoin if there is no row",
                "      rows 1 constant row",
                "      reduce as [3] above",
            ],
        ),
        # A witness is joined by the value.
        (
            "t(name, n) :- n = max m : { s(name, m) }.",
            "t",
            [
                "join s.n = (max s.n); to (s.name, s.n)",
                "  get s",
                "  reduce max s.n",
                "    map to (s.n)",
                "      get s",
            ],
        ),
        # Alternatives count each value once.
        (
            "p(n) :- n = max x : { e(x, _) ; e(_, x) }.",
            "p",
            [
                "reduce max e.x",
                "  distinct",
                "    union",
                "      map to (e.x)",
                "        get e",
                "      map to (e.y)",
                "        get e",
            ],
        ),
    ],
)
def test_operators_of_an_aggregate(rule: str, relation: str, tree: list[str]) -> None:
    assert drawn(rule, relation)[: len(tree)] == tree


def test_in_a_recursion_what_does_not_change_is_negated_and_aggregated_outside_of_the_loop() -> None:
    rules = "path(x, y) :- e(x, y).path(x, z) :- path(x, y), e(y, z), !s(_, z), count : { big(z, _, _) } < 3."
    assert explain(plan_of(rules), "path")["detail"] == "path(x: number, y: number), recursive with path"
    plan = plan_of(rules)
    reads = [_reads(plan, place, {"path"}) for place in range(len(plan["nodes"]))]
    for node in plan["nodes"]:
        if node["op"] == "reduce":
            assert not reads[node["input"]]
        if node["op"] == "antijoin":
            assert not reads[node["right"]]
    assert any(node["op"] == "antijoin" and not reads[node["left"]] for node in plan["nodes"])


def _reads(plan: dict[str, Any], place: int, relations: set[str]) -> bool:
    node = plan["nodes"][place]
    if node["op"] == "get":
        local = node["relation"].get("local")
        return local is not None and plan["relations"][local]["name"] in relations
    inputs = [node[name] for name in ("input", "left", "right") if name in node] + node.get("inputs", [])
    return any(_reads(plan, source, relations) for source in inputs)


def test_an_aggregate_for_values_that_a_recursion_produces_is_taken_in_the_loop() -> None:
    plan = plan_of("path(x, y) :- e(x, y). path(x, z) :- path(x, y), z = count : { e(w, _), w < y }.")
    reduces = [node for node in plan["nodes"] if node["op"] == "reduce"]
    assert len(reduces) == 1
    assert _reads(plan, reduces[0]["input"], {"path"})


def test_an_aggregate_in_a_recursion_is_asked_for_what_the_rest_of_the_rule_allows() -> None:
    plan = plan_of(
        "path(x, y) :- e(x, y). path(x, z) :- path(x, y), e(y, z), z < count : { s(_, w), w < y }."
    )
    reduces = [node for node in plan["nodes"] if node["op"] == "reduce"]
    assert len(reduces) == 1
    assert not _reads(plan, reduces[0]["input"], {"path"})


def test_equal_operators_stand_once() -> None:
    rules = "p(x) :- e(x, y), big(y, 1, _). p2(x, y) :- e(x, y), big(y, 1, _)."
    once, twice = plan_of(rules.split(". ")[0] + "."), plan_of(rules)
    assert len(twice["nodes"]) == len(once["nodes"]) + 1  # the other projection of the join


def test_heads_of_one_rule_share_its_body() -> None:
    plan = plan_of("p(x), p2(x, y + 1) :- e(x, y), s(_, y).")
    assert sum(node["op"] == "join" for node in plan["nodes"]) == 1


def test_a_recursive_relation_is_read_anew_by_later_strata() -> None:
    plan = plan_of(
        "path(x, y) :- e(x, y). path(x, z) :- path(x, y), e(y, z).p(x) :- path(x, x). p2(x, y) :- path(x, y)."
    )
    path = {"local": 5}
    gets = [node for node in plan["nodes"] if node["op"] == "get" and node["relation"] == path]
    assert len(gets) == 2  # one inside of the loop, one of the result


def test_the_document_of_a_whole_program() -> None:
    text = """
    .decl known(id: unsigned, name: symbol, w: float) upsert(id)
    .input known
    .decl bag(x: number) raw
    .input bag
    .decl both(x: number, b: bool)
    .input both
    .output both
    both(1, true).
    both(x, false) :- bag(x), !closed(x), x < 2.
    .decl empty()
    """
    closed = CatalogRelation(12, "closed", (Column("x", Type.NUMBER),), True, "set", "base")
    compiled = compile_program(text, Catalog([closed]), "mine")
    assert json.loads(compiled.to_json()) == compiled.plan
    assert compiled.plan == {
        "version": 1,
        "name": "mine",
        "digest": compiled.digest,
        "imports": [{"relation": 12, "name": "closed", "types": ["number"]}],
        "relations": [
            {
                "name": "known",
                "columns": [
                    {"name": "id", "type": "unsigned"},
                    {"name": "name", "type": "symbol"},
                    {"name": "w", "type": "float"},
                ],
                "input": {"upsert": [0]},
                "output": False,
            },
            {"name": "bag", "columns": [{"name": "x", "type": "number"}], "input": "raw", "output": False},
            {
                "name": "both",
                "columns": [{"name": "x", "type": "number"}, {"name": "b", "type": "bool"}],
                "input": "set",
                "output": True,
            },
            {"name": "empty", "columns": [], "input": None, "output": False},
        ],
        "types": [],
        "nodes": [
            {"op": "rows", "types": ["number", "bool"], "rows": [[{"number": 1}, {"bool": True}]]},
            {"op": "get", "relation": {"local": 1}},
            {"op": "get", "relation": {"import": 0}},
            {
                "op": "map",
                "input": 1,
                "filter": [
                    {"call": {"func": "lt", "over": "number", "args": [{"col": 0}, {"const": {"number": 2}}]}}
                ],
                "project": [{"col": 0}],
            },
            {"op": "antijoin", "left": 3, "right": 2, "left_key": [0], "right_key": [0]},
            {"op": "map", "input": 4, "filter": [], "project": [{"col": 0}, {"const": {"bool": False}}]},
            {"op": "union", "inputs": [0, 5]},
            {"op": "rows", "types": [], "rows": []},
        ],
        "strata": [
            {"recursive": False, "relations": [{"relation": 2, "node": 6}]},
            {"recursive": False, "relations": [{"relation": 3, "node": 7}]},
        ],
        "rules": [{"text": "both(x, false) :- bag(x), !closed(x), x < 2.", "line": 10, "column": 5}],
        "causes": [[], [0], [0], [0], [0], [0], [], []],
        "frozen": False,
    }


def test_floats_go_by_their_bits() -> None:
    plan = plan_of(".decl f(x: float) f(1.5). f(-0.0). f(1e300).")
    (rows,) = (node["rows"] for node in plan["nodes"] if node["op"] == "rows" and node["types"] == ["float"])
    assert rows == [[{"float": 0x3FF8000000000000}], [{"float": 0}], [{"float": 0x7E37E43C8800759C}]]


def test_deep_terms_are_cut_into_columns() -> None:
    term = "x" + " + 1" * 100
    plan = plan_of(f"p(z) :- e(x, _), y = {term}, z = y * 2{' - x' * 40}, z != 5.")
    assert max(map(_depth, plan["nodes"])) < 100  # of what JSON readers take: 128


def _depth(json_value: Any) -> int:
    if isinstance(json_value, dict):
        return 1 + max(map(_depth, json_value.values()), default=0)
    if isinstance(json_value, list):
        return 1 + max(map(_depth, json_value), default=0)
    return 0


# Modules


def test_a_module_is_named_by_its_digest_unless_it_is_named() -> None:
    text = ".decl a(x: number)\n.input a"
    compiled = compile_program(text, Catalog())
    assert compiled.name == f"m{compiled.digest[:12]}"
    assert compile_program(text, Catalog(), "mine").name == "mine"
    with pytest.raises(IncorrectError, match="empty name of a module"):
        compile_program(text, Catalog(), "")


def test_an_identical_program_is_the_module_that_is_there() -> None:
    text = ".decl a(x: number)\n.input a\n.decl b(x: number)\nb(x) :- a(x)."
    first = compile_program(text, Catalog(), "mine")
    columns = (Column("x", Type.NUMBER),)
    catalog = Catalog(
        [
            CatalogRelation(1, "a", columns, True, "set", "mine"),
            CatalogRelation(2, "b", columns, False, "set", "mine"),
        ],
        {"mine": first.digest},
    )
    again = compile_program("b(x) :- a(x).  // again\n" + text.rsplit("\n", 1)[0], catalog, "other")
    assert again.name == "mine"
    besides = {"nodes": None, "rules": None}  # where rules stand doesn't matter
    assert {**again.plan, **besides} == {**first.plan, **besides}


def test_the_name_of_another_program_is_a_conflict() -> None:
    with pytest.raises(ConflictError) as caught:
        compile_program(".decl a(x: number)", Catalog((), {"mine": "a digest"}), "mine")
    assert caught.value.message == 'module "mine" is another program'
    assert caught.value.hint == "Unregister that one first, or choose another name."


def test_the_alternatives_of_a_rule_are_one_rule() -> None:
    plan = plan_of("p(x) :- e(x, _) ; e(_, x).")
    assert len(plan["rules"]) == 1
    assert all(causes in ([], [0]) for causes in plan["causes"])


def test_a_frozen_program_says_so_in_its_plan() -> None:
    catalog = Catalog([CatalogRelation(3, "edge", (Column("x", Type.NUMBER),), True, "set", "edges")])
    program = ".decl out(x: number) out(x) :- edge(x)."
    for text, frozen in ((program, False), (f'{program} .pragma "frozen"', True)):
        assert compile_program(text, catalog).plan["frozen"] is frozen

"""The shape of plans: what is pushed down, fused, shared, and in which order things are joined."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from dataflow_serve.errors import (
    ConflictError,
    IncorrectError,
    NotFoundError,
)
from dataflow_serve.planner import (
    Catalog,
    CatalogRelation,
    Column,
    Type,
    compile_program,
    explain,
)
from dataflow_serve.planner._cycles import cyclic_core, paths

PRELUDE = """
.decl e(x: number, y: number)
.input e
.decl big(a: number, b: number, c: number)
.input big
.decl s(name: symbol, n: number)
.input s
.decl p(x: number)
.decl p2(x: number, y: number)
.decl path(x: number, y: number)
.decl t(name: symbol, n: number)
"""


def plan_of(text: str, catalog: Catalog | None = None) -> dict[str, Any]:
    """The plan document of a program that follows the prelude."""
    return compile_program(PRELUDE + text, catalog or Catalog()).plan


def drawn(text: str, relation: str) -> list[str]:
    """The operators that compute a relation, one a line, without the relation's own."""
    drawing: str = explain(plan_of(text), relation)["text"]
    return [line[2:] for line in drawing.split("\n")[1:]]


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


def test_the_alternatives_of_a_rule_are_one_rule() -> None:
    plan = plan_of("p(x) :- e(x, _) ; e(_, x).")
    assert len(plan["rules"]) == 1
    assert all(causes in ([], [0]) for causes in plan["causes"])


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


@pytest.mark.parametrize(
    ("rule", "relation", "tree"),
    [
        # Each edge of a triangle has the corner that the others find, and nothing is kept on the way.
        (
            "p(x) :- e(x, y), e(y, z), e(x, z).",
            "p",
            [
                "multijoin e.y = e.x, e.x = e.x, e.y = e.y; "
                "all at once, because they close a cycle; to (e.x)",
                "  get e",
                "  get e",
                "  get e",
            ],
        ),
        # What isn't part of the cycle is joined to it; what is about its variables alone is part of it.
        (
            "p2(x, w) :- e(z, w), e(x, y), e(y, z), e(z, x), big(x, z, _), x < y, x < w.",
            "p2",
            [
                "join e.y = e.x; where e.x < e.y; to (e.x, e.y)",
                "  multijoin e.y = e.x, e.y = e.x, e.x = e.y, e.x = big.a, e.y = big.b; "
                "all at once, because they close a cycle; to (e.x, e.y)",
                "    map where e.x < e.y",
                "      get e",
                "    get e",
                "    get e",
                "    map to (big.a, big.b)",
                "      get big",
                "  get e",
            ],
        ),
    ],
)
def test_atoms_that_close_a_cycle_are_taken_at_once(rule: str, relation: str, tree: list[str]) -> None:
    assert drawn(rule, relation) == tree


@pytest.mark.parametrize(
    "rule",
    [
        "p(x) :- e(x, y), e(y, z), e(z, w).",
        "p(x) :- e(x, y), e(y, x).",
        "p(x) :- e(x, y), e(x, z), e(x, w).",
        # One atom has all variables of the others.
        "p(x) :- e(x, y), e(y, z), e(x, z), big(x, y, z).",
        # A constant in place of a corner.
        "p(x) :- e(x, y), e(y, 3), e(3, x).",
        # Part of a recursion.
        "path(x, y) :- e(x, y). path(x, z) :- path(x, y), path(y, z), path(x, z).",
    ],
)
def test_other_bodies_are_joined_two_at_a_time(rule: str) -> None:
    assert all(node["op"] != "multijoin" for node in plan_of(rule)["nodes"])


def random_atoms(random: Random) -> list[frozenset[str]]:
    """So many atoms, each with a few of a few variables."""
    names = "abcde"[: random.randint(3, 5)]
    count = random.randint(3, 6)
    return [frozenset(random.sample(names, random.randint(1, 3))) for _ in range(count)]


def test_paths_meet_every_atom_once_in_groups_that_lack_the_same(rng: Random) -> None:
    for _ in range(500):
        atoms = random_atoms(rng)
        for start, path in enumerate(paths(atoms)):
            assert sorted([start, *(place for group in path for place in group)]) == list(range(len(atoms)))
            known = atoms[start]
            for group in path:
                (lacking,) = {atoms[place] - known for place in group}
                known |= lacking


def is_cyclic(atoms: list[frozenset[str]]) -> bool:
    """Whether there is no order in which each atom meets those before it within one of them."""

    def grows(order: list[frozenset[str]], left: list[frozenset[str]]) -> bool:
        if not left:
            return True
        before = frozenset().union(*order)
        return any(
            (not order or any(atom & before <= one for one in order))
            and grows([*order, atom], left[:place] + left[place + 1 :])
            for place, atom in enumerate(left)
        )

    return not grows([], atoms)


def test_a_core_is_there_for_cyclic_bodies_alone(rng: Random) -> None:
    cyclic = 0
    for _ in range(500):
        atoms = random_atoms(rng)
        core = cyclic_core(atoms)
        assert bool(core) == is_cyclic(atoms)
        assert not core or is_cyclic([atoms[place] for place in core])
        cyclic += bool(core)
    assert 0 < cyclic < 500


def test_a_frozen_program_says_so_in_its_plan() -> None:
    catalog = Catalog([CatalogRelation(3, "edge", (Column("x", Type.NUMBER),), True, "set", "edges")])
    program = ".decl out(x: number) out(x) :- edge(x)."
    for text, frozen in ((program, False), (f'{program} .pragma "frozen"', True)):
        assert compile_program(text, catalog).plan["frozen"] is frozen

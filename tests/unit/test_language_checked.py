"""What programs mean once they are checked: types, scopes, strata, digests."""

from __future__ import annotations

import pytest

from dataflow_serve.language import (
    Catalog,
    CatalogRelation,
    Column,
    Type,
    check,
    checked,
    digest_of,
    parse,
)

PRELUDE = """
.decl e(x: number, y: number)
.input e
.decl f(x: float)
.input f
.decl u(x: unsigned)
.input u
.decl s(name: symbol, n: number)
.input s
.decl out(x: number)
.decl out2(x: number, y: number)
.decl fout(x: float)
.decl uout(x: unsigned)
.decl sout(x: symbol)
.decl bout(x: bool)
"""


def rules_of(text: str) -> tuple[checked.Rule, ...]:
    """The checked rules of a program that follows the prelude."""
    return check(parse(PRELUDE + text)).rules


def shown(item: object) -> str:
    """A checked literal or term, short enough for a table."""
    match item:
        case checked.Var(name):
            return name
        case checked.Const(value, kind):
            return f"{value!r}:{kind.value}"
        case checked.Any():
            return "_"
        case checked.Call(func, over, args):
            return f"{func}.{over.value}({', '.join(map(shown, args))})"
        case checked.AtomLiteral(relation, args, negated):
            return f"{'!' if negated else ''}{relation}({', '.join(map(shown, args))})"
        case checked.Filter(condition):
            return shown(condition)
        case checked.AggregateLiteral(result, func, target, alternatives, outer):
            bodies = " ; ".join(", ".join(map(shown, body)) for body in alternatives)
            of = "" if target is None else f" {shown(target)}"
            given = f" for {', '.join(map(shown, outer))}" if outer else ""
            return f"{result.name} := {func}{of} {{{bodies}}}{given}"
        case _:
            raise AssertionError(item)


@pytest.mark.parametrize(
    ("rule", "body"),
    [
        ("fout(x + 1) :- f(x), x > 2.", ["f(x)", "gt.float(x, 2.0:float)"]),
        (
            "uout(x) :- u(x), x != 0 band 7.",
            ["u(x)", "ne.unsigned(x, band.unsigned(0:unsigned, 7:unsigned))"],
        ),
        ("out(x) :- x = 1 + 2.", ["eq.number(x, add.number(1:number, 2:number))"]),
        ("out(strlen(t)) :- s(t, n), n = -1.", ["s(t, n)", "eq.number(n, -1:number)"]),
        ("bout(b) :- e(_, _), b = true.", ["e(_, _)", "eq.bool(b, True:bool)"]),
        (
            'out(x) :- e(x, _), match("a.*", to_string(x)).',
            ["e(x, _)", "match.symbol('a.*':symbol, to_symbol.number(x))"],
        ),
        ('out(x) :- s(t, x), !contains("a", t).', ["s(t, x)", "not.bool(contains.symbol('a':symbol, t))"]),
        ("fout(x) :- f(y), x = min(y, 0, 2.5).", ["f(y)", "eq.float(x, min.float(y, 0.0:float, 2.5:float))"]),
        (
            "out(to_number(x)) :- e(x, _), to_float(x) > 1.",
            ["e(x, _)", "gt.float(to_float.number(x), 1.0:float)"],
        ),
        ("fout(m) :- m = mean x : { e(x, _) }.", ["mean'=1 := mean x'1 {e(x'1, _)}", "eq.float(m, mean'=1)"]),
        ("out(as(x, int32)) :- e(x, 1).", ["e(x, 1:number)"]),
    ],
)
def test_types_follow_from_columns_functors_and_literals(rule: str, body: list[str]) -> None:
    (found,) = rules_of(rule)
    assert [shown(literal) for literal in found.body] == body


def test_a_conversion_to_the_type_it_has_disappears() -> None:
    (rule,) = rules_of("out(to_number(x)) :- e(x, _).")
    assert shown(rule.heads[0].args[0]) == "x"


@pytest.mark.parametrize(
    ("rule", "bodies"),
    [
        ("out(x) :- e(x, _) ; e(_, x).", [["e(x, _)"], ["e(_, x)"]]),
        (
            "out(x) :- e(x, _), (e(x, 1) ; x > 2).",
            [["e(x, _)", "e(x, 1:number)"], ["e(x, _)", "gt.number(x, 2:number)"]],
        ),
        (
            "out(x) :- e(x, _), !(e(x, 1) ; x > 2).",
            [["e(x, _)", "!e(x, 1:number)", "le.number(x, 2:number)"]],
        ),
        (
            "out(x) :- e(x, _), !(e(x, 1), x = 2).",
            [["e(x, _)", "!e(x, 1:number)"], ["e(x, _)", "ne.number(x, 2:number)"]],
        ),
        ("out(x) :- e(x, _), !!e(x, 1), !true.", [["e(x, _)", "e(x, 1:number)", "False:bool"]]),
    ],
)
def test_disjunctions_spread_out_and_negations_move_inwards(rule: str, bodies: list[list[str]]) -> None:
    assert [[shown(literal) for literal in found.body] for found in rules_of(rule)] == bodies


@pytest.mark.parametrize(
    ("rule", "body"),
    [
        # Bound outside: the outer variable.
        (
            "out2(x, n) :- e(x, _), n = count : { e(x, _) }.",
            ["e(x, _)", "count'=1 := count {e(x, _)} for x", "eq.number(n, count'=1)"],
        ),
        # In the target: always the aggregate's own.
        (
            "out2(x, n) :- e(x, _), n = sum x : { e(x, _) }.",
            ["e(x, _)", "sum'=1 := sum x'1 {e(x'1, _)}", "eq.number(n, sum'=1)"],
        ),
        # Bound outside by the aggregate only: the aggregate's own.
        ("out(n) :- n = count : { e(n, _) }.", ["count'=1 := count {e(n'1, _)}", "eq.number(n, count'=1)"]),
        # Each aggregate has its own.
        (
            "out2(a, b) :- a = count : { e(x, _) }, b = count : { e(_, x) }.",
            [
                "count'=1 := count {e(x'1, _)}",
                "eq.number(a, count'=1)",
                "count'=2 := count {e(_, x'2)}",
                "eq.number(b, count'=2)",
            ],
        ),
        # Through two levels.
        (
            "out(z) :- e(z, _), 1 < count : { e(a, _), a = sum q : { e(q, z), q < a } }.",
            [
                "e(z, _)",
                "count'=2 := count {e(a'1, _), "
                "sum'=1 := sum q'2 {e(q'2, z), lt.number(q'2, a'1)} for a'1, z, "
                "eq.number(a'1, sum'=1)} for z",
                "lt.number(1:number, count'=2)",
            ],
        ),
    ],
)
def test_scopes_of_aggregates(rule: str, body: list[str]) -> None:
    (found,) = rules_of(rule)
    assert [shown(literal) for literal in found.body] == body


def test_a_witness_is_bound_beside_its_aggregate() -> None:
    (rule,) = rules_of("sout(name) :- _ = max n : { s(name, n) }.")
    assert [shown(literal) for literal in rule.body] == [
        "max'=1 := max n'4 {s(name'5, n'4)}",
        "eq.number(max'3, max'=1)",
        "s(name, n'2)",
        "eq.number(n'2, max'3)",
    ]


def test_facts_are_rows_once_each_unless_they_compute() -> None:
    program = check(parse(PRELUDE + "f(1). f(2.5). f(1.0). f(-0.0). u(7). out(1 + 1). bout(true)."))
    assert program.facts == {"f": ((1.0,), (2.5,), (0.0,)), "u": ((7,),), "bout": ((True,),)}
    assert [rule.heads[0].relation for rule in program.rules] == ["out"]


def test_strata_follow_dependencies() -> None:
    program = check(
        parse(
            """
            .decl e(x: number, y: number)
            .input e
            .decl lonely(x: number)
            .decl odd, even(x: number, y: number)
            .decl neither(x: number)
            neither(x) :- e(x, _), !odd(x, x), !even(x, x).
            odd(x, y) :- e(x, y).
            odd(x, z) :- even(x, y), e(y, z).
            even(x, z) :- odd(x, y), e(y, z).
            lonely(x) :- e(x, _), n = count : { neither(_) }, n > x.
            """
        )
    )
    assert [(stratum.relations, stratum.recursive) for stratum in program.strata] == [
        (("e",), False),
        (("odd", "even"), True),
        (("neither",), False),
        (("lonely",), False),
    ]


def test_the_name_of_an_alias_may_be_declared_for_another_type() -> None:
    program = check(parse(".type string <: number .decl a(x: string, y: int8) a(1, 2)."))
    assert [column.type for column in program.relations["a"].columns] == [Type.NUMBER, Type.NUMBER]


def test_types_have_other_names() -> None:
    program = check(
        parse(
            ".type Person <: string\n.type Id = uint32\n.type Named = Person | symbol\n"
            ".type Old\n.number_type N\n"
            ".decl p(who: Person, id: Id, any: Named, old: Old, n: N, f: float32, b: bool)"
        )
    )
    kinds = [column.type.value for column in program.relations["p"].columns]
    assert kinds == ["symbol", "unsigned", "symbol", "symbol", "number", "float", "bool"]


CATALOG = Catalog(
    [
        CatalogRelation(1, "e", (Column("x", Type.NUMBER), Column("y", Type.NUMBER)), True, "set", "edges"),
        CatalogRelation(2, "r", (Column("k", Type.NUMBER),), True, "upsert(k)", "edges"),
    ]
)


@pytest.mark.parametrize(
    "declaration",
    [
        "",
        ".decl e(x: number, y: number)",
        ".decl e(x: int32, y: number) btree\n.input e\n.output e",
        ".decl r(k: number) upsert(k)\n.input r",
    ],
)
def test_relations_of_earlier_programs_may_be_declared_again_or_not(declaration: str) -> None:
    program = check(parse(declaration + "\n.decl p(x: number)\np(x) :- e(x, _), !r(x)."), CATALOG)
    assert list(program.relations) == ["p"]
    assert sorted(program.imports) == ["e", "r"]


BASE = ".decl e(x: number)\n.input e\n.decl p(x: number)\np(x) :- e(x), x > 10.\np(1)."


@pytest.mark.parametrize(
    "same",
    [
        "p(1).p(x):-e(x),x>10./* */.decl p(x:number) .decl e(x:number) // e\n.input e",
        ".decl e, p(x: int64)\n.input e(IO=file)\n.printsize p\np(x) :- e(x), x > 0xA.\np(1).\np(1).",
        '.pragma "x"\n.type T = number\n.decl e(x: T) btree\n.input e\n.decl p(x: T)\n'
        "p(x) :- e(x), (x > 10). p(1).",
    ],
)
def test_programs_that_say_the_same_have_one_digest(same: str) -> None:
    assert digest_of(parse(same)) == digest_of(parse(BASE)) == check(parse(BASE)).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x > 10", "x >= 10"),
        ("x > 10", "x > 10u"),
        ("x > 10", "!(x > 10)"),
        ("p(1).", "p(2)."),
        ("p(1).", ""),
        (".input e", ".input e\n.output p"),
        (".input e", ".input e\n.input p"),
        (".decl e(x: number)", ".decl e(x: float)"),
        (".decl e(x: number)", ".decl e(y: number)"),
        (".decl e(x: number)", ".decl e(x: number) raw"),
        (".decl e(x: number)", ".decl e(x: number) upsert(x)"),
        (".input e", '.input e .pragma "frozen"'),
    ],
)
def test_programs_that_say_something_else_have_another_digest(old: str, new: str) -> None:
    assert digest_of(parse(BASE.replace(old, new, 1))) != digest_of(parse(BASE))

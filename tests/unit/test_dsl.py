"""Rules made in Python: each is the same program as a text written by hand."""

from __future__ import annotations

import datetime
import uuid

import pytest

import dataflow_serve as ds
from dataflow_serve.dsl import Condition, Program, Term, term
from dataflow_serve.errors import IncorrectError
from dataflow_serve.language import Catalog, check, digest_of, parse

x, y, z, n = ds.vars("x y z n")
edge = ds.rel("edge", a=str, b=str)
path = ds.rel("path", a=str, b=str)
size = ds.rel("size", a=str, n=int)

DECLARED = """
    .decl edge(a: symbol, b: symbol)
    .input edge
    .decl size(a: symbol, n: number)
    .input size
    .decl out(a: symbol, n: number)
    .output out
"""


def same(program: Program, text: str) -> None:
    """Both say the same, and it means something."""
    assert digest_of(parse(str(program))) == digest_of(parse(text)), str(program)
    check(parse(str(program)), Catalog())


def rule_of(*body: Condition, value: object = n) -> Program:
    out = ds.rel("out", a=str, n=int)
    return ds.program(edge.input(), size.input(), ds.rule(out(x, value), *body))


def test_values_that_have_no_literal_are_read_from_their_text() -> None:
    seen = ds.rel("seen", at=datetime.datetime, by=uuid.UUID, what=bytes)
    moment = datetime.datetime(2026, 11, 23, 22, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    same(
        ds.program(seen.input(), ds.rule(ds.rel("out", n=int)(1), seen(moment, uuid.UUID(int=10), b"hi"))),
        """
        .decl seen(at: instant, by: uuid, what: bytes)
        .input seen
        .decl out(n: number)
        .output out
        out(1) :- seen(to_instant("2026-11-23T21:00:00.000000Z"),
            to_uuid("00000000-0000-0000-0000-00000000000a"), to_bytes("aGk=")).
        """,
    )
    with pytest.raises(ValueError, match="has no time zone"):
        term(moment.replace(tzinfo=None))


def test_a_recursion() -> None:
    same(
        ds.program(
            edge.input(), ds.rule(path(x, y), edge(x, y)), ds.rule(path(x, z), path(x, y), edge(y, z))
        ),
        """
        .decl edge(a: symbol, b: symbol)
        .input edge
        .decl path(a: symbol, b: symbol)
        .output path
        path(x, y) :- edge(x, y).
        path(x, z) :- path(x, y), edge(y, z).
        """,
    )


@pytest.mark.parametrize(
    ("program", "clause"),
    [
        (rule_of(edge(x, ds._), size(x, n)), "out(x, n) :- edge(x, _), size(x, n)."),
        (rule_of(edge(a=x), size(x, n)), "out(x, n) :- edge(x, _), size(x, n)."),
        (rule_of(size(x, n), ~edge(x, ds._)), "out(x, n) :- size(x, n), !edge(x, _)."),
        (rule_of(size(x, n), ~(n > 3)), "out(x, n) :- size(x, n), !(n > 3)."),
        (
            rule_of(size(x, n), edge(x, "a") | (edge("b", x) & (n != 0))),
            'out(x, n) :- size(x, n), (edge(x, "a") ; (edge("b", x), n != 0)).',
        ),
        (
            rule_of(size(x, n), ~(edge(x, ds._) | edge(ds._, x))),
            "out(x, n) :- size(x, n), !(edge(x, _) ; edge(_, x)).",
        ),
        (
            rule_of(edge(x, ds._), n == ds.count(edge(x, y), y != "a")),
            'out(x, n) :- edge(x, _), n = count : { edge(x, y), y != "a" }.',
        ),
        (
            rule_of(edge(x, ds._), value=ds.sum(n * 2, size(x, n)) + 1),
            "out(x, (sum (n * 2) : { size(x, n) }) + 1) :- edge(x, _).",
        ),
        (
            rule_of(edge(x, ds._), n == ds.min(z, size(x, z)), n < ds.max(y, size(ds._, y))),
            "out(x, n) :- edge(x, _), n = min z : { size(x, z) }, n < max y : { size(_, y) }.",
        ),
        (
            rule_of(size(x, n), value=-((1 - n) ** 2) % (7 / n)),
            "out(x, ((-((1 - n) ^ 2)) % (7 / n))) :- size(x, n).",
        ),
        (
            rule_of(size(x, y), n == ds.fn.strlen(ds.fn.cat(x, "!")), ds.fn.match("a.*", x)),
            'out(x, n) :- size(x, y), n = strlen(cat(x, "!")), match("a.*", x).',
        ),
        (
            rule_of(size(x, n), ~ds.fn.contains("a", x)),
            'out(x, n) :- size(x, n), !(contains("a", x)).',
        ),
    ],
)
def test_bodies(program: Program, clause: str) -> None:
    same(program, DECLARED + clause)


def test_values() -> None:
    row = ds.rel("row", a=str, b=int, c="unsigned", d=float, e=bool)
    text = 'say "hé"\\\n\t'
    program = ds.program(ds.rule(row(text, -5, 2**63, 1e300, True)))
    facts = check(parse(str(program)), Catalog()).facts
    assert list(facts["row"]) == [(text, -5, 2**63, 1e300, True)]
    assert repr(term(float("inf"))) == 'to_float("inf")'


def test_declarations() -> None:
    stock = ds.rel("stock", item=int, count=int).upsert("item")
    assert str(ds.program(stock, ds.rel("hits", page=str).raw(), ds.rel("done").nullary().input())) == (
        ".decl stock(item: number, count: number) upsert(item)\n"
        ".decl hits(page: symbol) raw\n"
        ".decl done()\n"
        ".input stock\n.input hits\n.input done\n"
    )


def test_relations_of_other_programs_are_not_declared_again() -> None:
    text = str(ds.program(ds.rule(path(x, y), ds.rel("edge")(x, y))))
    assert text == ".decl path(a: symbol, b: symbol)\n.output path\npath(x, y) :- edge(x, y).\n"
    with pytest.raises(IncorrectError, match='no relation "edge"'):
        check(parse(text), Catalog())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ds.vars("x 1y"), "'1y' is no name for a variable"),
        (lambda: ds.rel("a b"), "'a b' is no name for a relation or a column"),
        (lambda: ds.rel("r", x=complex), "column 'x' of r has no type"),
        (lambda: edge(x), "edge has 2 columns, not 1"),
        (lambda: edge(c=x), "edge has no column 'c'; it has a, b"),
        (lambda: ds.rel("edge")(a=x), "with its columns known"),
        (lambda: edge(x, object()), "is no value of a rule"),
        (lambda: ds.rule(x == y), "is no head of a rule"),  # type: ignore[arg-type]
        (lambda: ds.rule(path(x, y), "edge"), "'edge' is no condition"),  # type: ignore[arg-type]
        (lambda: bool(x < y), "use & | ~ in place of and, or, not"),
        (lambda: ds.rule(path(x, y), x < y < z), "use & | ~"),
        (lambda: ds.count(), "count needs a body"),
        (lambda: edge.upsert("c"), "edge has no column 'c'"),
        (lambda: str(ds.program(ds.rule(ds.rel("r")(1)))), "cannot declare r: its columns aren't known"),
        (lambda: str(ds.program(edge, edge.input())), "edge is declared in two ways"),
    ],
)
def test_mistakes_are_told_where_they_are_made(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(TypeError) as error:
        make()
    assert message in str(error.value)


def test_nothing_of_it_changes() -> None:
    with pytest.raises(AttributeError):
        edge.name = "other"  # type: ignore[misc]
    assert not edge.is_input and edge.input().is_input
    with pytest.raises(TypeError):
        hash(Term("x"))

"""What users are told about their mistakes, word for word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from dataflow_serve.errors import DataflowError, IncorrectError, UnsupportedError
from dataflow_serve.language import Catalog, CatalogRelation, Column, Type, check, parse
from dataflow_serve.planner import compile_program

PRELUDE = """\
.decl edge(x: symbol, y: symbol)
.input edge
.decl age(who: symbol, years: number)
.decl path(x: symbol, y: symbol)
.decl one(n: number)
"""
CATALOG = Catalog(
    [
        CatalogRelation(
            7, "person", (Column("name", Type.SYMBOL), Column("age", Type.NUMBER)), True, "set", "people"
        ),
        CatalogRelation(8, "adult", (Column("name", Type.SYMBOL),), False, "set", "people"),
        CatalogRelation(9, "stock", (Column("id", Type.NUMBER),), True, "upsert(id)", "shop"),
    ],
    {"people": "a digest", "shop": "another"},
)
GOLDEN = Path(__file__).parent.parent / "golden" / "language_errors.txt"


class Golden(NamedTuple):
    """A case of the golden file."""

    program: str
    error: str
    hint: str | None


def goldens() -> list[Golden]:
    cases: list[Golden] = []
    for block in GOLDEN.read_text().split("\n=== ")[1:]:
        lines = block.strip("\n").split("\n")
        hint = lines.pop().removeprefix("hint ") if lines[-1].startswith("hint ") else None
        error = lines.pop()
        cases.append(Golden("\n".join(lines), error, hint))
    return cases


@pytest.mark.parametrize("case", goldens(), ids=lambda case: case.program)
def test_the_error_says_what_where_and_what_to_do(case: Golden) -> None:
    with pytest.raises(DataflowError) as caught:
        compile_program(f"{PRELUDE}{case.program}\n", CATALOG)
    error = caught.value
    assert error.line is not None
    line = error.line - PRELUDE.count("\n")
    assert f"{error.code} {line}:{error.column} {error.message}" == case.error
    assert error.hint == case.hint
    assert not error.retry


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("one(x) :- odd(x).", 1, 11),
        ("// two lines\n  one(x) :- odd(x).", 2, 13),
        ("/* one\n   comment */ one(x) :- odd(x).", 2, 25),
        ("one(1).\t one(x) :- odd(x).", 1, 20),
        ('label("ünïcödé 🙂").  one(x) :- odd(x).', 1, 32),
        ("one(1).\r\none(x) :- odd(x).", 2, 11),
        ("one(x) :- one(x),\n\n      odd(x).", 3, 7),
    ],
)
def test_positions_count_lines_and_characters_from_one(text: str, line: int, column: int) -> None:
    declarations = " .decl one(n: number) .decl label(l: symbol)"
    with pytest.raises(IncorrectError) as caught:
        check(parse(text + declarations))
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    "text",
    [
        "one(" + "(" * 70 + "1" + ")" * 70 + ").",
        "one(" + "-" * 70 + "1).",
        "one(1) :- " + "!" * 70 + "one(2).",
        "one(1) :- " + "(" * 70 + "one(2)" + ")" * 70 + ".",
        "one(" + " + ".join(["1"] * 140) + ").",
        "one(n) :- " + "n = sum m : { " * 70 + "one(m)" + " }" * 70 + ".",
    ],
)
def test_a_term_that_is_too_deep_is_refused(text: str) -> None:
    with pytest.raises(UnsupportedError, match="more than 64 nested levels or 128 operators in a row"):
        parse(text)


def test_a_body_that_spreads_out_too_far_is_refused() -> None:
    text = "one(1) :- " + ", ".join(["(true ; false)"] * 10) + "."
    with pytest.raises(UnsupportedError, match="a body with more than 512 alternatives"):
        check(parse(PRELUDE + text))


def test_a_long_clause_is_quoted_in_part() -> None:
    text = "one(n) :- " + ", ".join(f"one(n{place})" for place in range(50)) + "."
    with pytest.raises(IncorrectError) as caught:
        check(parse(PRELUDE + text))
    assert caught.value.message.endswith("…`")
    assert len(caught.value.message) < 250


def test_half_of_a_surrogate_pair_is_refused_where_it_stands() -> None:
    with pytest.raises(IncorrectError) as caught:
        parse('one(1).\nlabel("\ud800").')
    assert (caught.value.line, caught.value.column) == (2, 8)


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        # What can't be read, in clauses and in declarations.
        (
            "one(1) :- .\none(2).\n.decl q(x number)\n.decl r()\none(3",
            1,
            "2 more errors are in lines 3 and 5.",
        ),
        ("one(1)) :- one(2).\none(3) :- one(4), .", 1, "Another error is in line 2."),
        (
            ".comp C { .decl r(x: number) r(. r(2). .decl s( }\n.init c =\none(",
            1,
            "2 more errors are in lines 1 and 3.",
        ),
        # Declarations, before any clause is looked at.
        (".decl q(x: nmber)\n.decl q2(y: symbl)\none(x) :- nothing(x).", 1, "Another error is in line 2."),
        (".output a\n.output b\n.input path", 1, "Another error is in line 2."),
        # Clauses.
        ("one(x) :- q(x).\none(1).\none(y) :- one(x).\none(x) :- edge(x, _).", 1, "lines 3 and 4."),
        ("one(x) :- q(x). one(y) :- one(x). one(z) :- one(y).", 1, "2 more errors are in line 1."),
        (".comp C { one(x) :- q(x). }\n.init a = C .init b = C", 1, 'such as ".decl q'),
        ("\n".join(f"one(x{n}) :- q(x{n})." for n in range(12)), 1, "3, 4, 5, 6, 7, 8, 9 and …."),
    ],
)
def test_all_errors_are_found_and_the_first_is_told(text: str, line: int, hint: str) -> None:
    with pytest.raises(DataflowError) as caught:
        compile_program(f"{PRELUDE}{text}", CATALOG)
    error = caught.value
    assert error.line is not None and error.hint is not None
    first = PRELUDE.count("\n")
    assert error.line - first == line
    moved = re.sub(r"(?<=lines ).*|(?<=in line )\d+", lambda found: _moved(found[0], first), error.hint)
    assert moved.endswith(hint) or (hint.startswith("such as") and "error" not in error.hint), moved


def _moved(numbers: str, first: int) -> str:
    return re.sub(r"\d+", lambda found: str(int(found[0]) - first), numbers)


def test_no_more_errors_are_looked_for_than_anybody_reads() -> None:
    with pytest.raises(IncorrectError, match="99 more errors are in lines"):
        compile_program(PRELUDE + "one(x) :- q(x).\n" * 500, CATALOG)


@pytest.mark.parametrize(
    "types",
    [
        "\n".join(f".type T{n} = [x: T{n + 1}]" for n in range(12)) + "\n.type T12 = [x: number]",
        "\n".join(f".type T{n} = [x: T{n + 1}, y: T{n + 1}]" for n in range(9)) + "\n.type T9 = [x: number]",
        f".type T0 = {' | '.join(f'B{n} {{}}' for n in range(24))}",
    ],
    ids=["deep", "broad", "branches"],
)
def test_records_of_a_large_type_are_not_ordered(types: str) -> None:
    with pytest.raises(UnsupportedError, match="records without an order"):
        compile_program(f"{types}\n.decl c(x: number, p: T0) choice-domain x", CATALOG)


def test_a_long_chain_of_types_is_not_taken_for_a_circle() -> None:
    chain = "\n".join(f".type T{n} <: T{n + 1}" for n in range(200)) + "\n.type T200 <: number"
    with pytest.raises(UnsupportedError, match="a chain of more than 100 types"):
        compile_program(chain, CATALOG)
    circle = chain.replace("<: number", "<: T190").split("\n")[150:]
    with pytest.raises(IncorrectError, match=r'"T190" is its own base: T190 -> .* -> T200 -> T190 '):
        compile_program("\n".join(circle), CATALOG)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('.pragma "frozen"\n.decl two(x: number) .input two', '2:7 input "two" of a frozen program'),
        ('.decl two(t: instant) two(t) :- now(t).\n.pragma "frozen"', '2:1 "now" in a frozen program'),
    ],
)
def test_what_is_frozen_can_have_nothing_that_changes(text: str, error: str) -> None:
    with pytest.raises(DataflowError) as caught:
        check(parse(text))
    assert f"{caught.value.line}:{caught.value.column} {caught.value.message}" == error

"""Magic sets: what isn't asked for isn't worked out, and what is asked for is the same."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from dataflow_serve.language import Catalog, check, parse
from dataflow_serve.planner import compile_program
from tests.oracle import Case, apply_transaction, evaluate, generate, interpret
from tests.oracle.generator import VALUES
from tests.oracle.values import Row

Contents = dict[str, list[Row]]

PRELUDE = """
.decl e(x: number, y: number)
.input e
.decl ask(x: number)
.input ask
.decl r(x: number, y: number)
.decl q(x: number, y: number)
.output q
"""
LEFT = "r(x, y) :- e(x, y).\nr(x, z) :- r(x, y), e(y, z).\n"
RIGHT = "r(x, y) :- e(x, y).\nr(x, z) :- e(x, y), r(y, z).\n"
TWICE = "r(x, y) :- e(x, y).\nr(x, z) :- r(x, y), r(y, z).\n"
SAME_GENERATION = "r(x, x) :- e(x, _).\nr(x, y) :- e(x, p), r(p, q), e(y, q).\n"

PROGRAMS = {
    "a constant, left-linear": LEFT + "q(1, y) :- r(1, y).",
    "a constant, right-linear": RIGHT + "q(1, y) :- r(1, y).",
    "a constant, non-linear": TWICE + "q(1, y) :- r(1, y).",
    "the other end": LEFT + "q(x, 5) :- r(x, 5).",
    "both ends": RIGHT + "q(1, 5) :- r(1, 5).",
    "rows that ask": RIGHT + "q(x, y) :- ask(x), r(x, y).",
    "rows that ask, named later": LEFT + "q(x, y) :- r(x, y), ask(x).",
    "a computed value": RIGHT + "q(x, y) :- ask(x), r(x + 1, y).",
    "an equality": RIGHT + "q(x, y) :- z = 2, r(z, y), x = z * 2.",
    "a range": RIGHT + "q(x, y) :- x = range(1, 3), r(x, y).",
    "answers that ask": LEFT + "q(x, z) :- ask(x), r(x, y), r(y + 1, z).",
    "two uses": LEFT + "q(x, y) :- ask(x), r(x, y).\nq(x, y) :- ask(y), r(x, y).",
    "same generation": SAME_GENERATION + "q(x, y) :- ask(x), r(x, y).",
    "a condition behind": RIGHT + "q(x, y) :- ask(x), r(x, y), !e(x, y), x < y.",
    "a chain": LEFT + ".decl t(x: number, y: number)\nt(x, y) :- r(x, y), e(y, _).\nq(1, y) :- t(1, y).",
    "several heads": "r(x, y), r(y, x) :- e(x, y).\nq(x, y) :- ask(x), r(x, y).",
    "an aggregate of others": RIGHT + "q(x, n) :- ask(x), r(x, y), n = count : { e(y, _) }.",
}
WHOLE = {
    "all of it": LEFT + "q(x, y) :- r(x, y).",
    "a constant and all of it": LEFT + "q(1, y) :- r(1, y).\nq(x, y) :- r(x, y), x < y.",
    "a negation": LEFT + "q(x, y) :- e(x, y), !r(y, x).",
    "an aggregate": LEFT + "q(x, n) :- ask(x), n = count : { r(x, _) }.",
    "a fact": "r(1, 2).\nr(x, y) :- e(x, y).\nq(x, y) :- ask(x), r(x, y).",
    "a subsumption": "r(x, y) :- e(x, y).\nr(x, a) <= r(x, b) :- a < b.\nq(1, y) :- r(1, y).",
    "the recursion of a choice": (
        ".decl c(x: number, y: number) choice-domain y\nc(x, y) :- ask(x), e(x, y).\n"
        "c(y, z) :- ask(x), r(x, y), e(y, z).\nr(x, y) :- c(x, y).\nr(x, z) :- e(x, y), r(y, z).\n"
        "q(x, y) :- ask(x), r(x, y)."
    ),
    "the recursion of a limit": RIGHT + ".limitsize r(n=9)\nq(x, y) :- ask(x), r(x, y).",
    "part of a recursion": "r(x, y) :- e(x, y).\nr(x, y) :- q(x, y), e(y, x).\nq(x, y) :- ask(x), r(x, y).",
}


def contents(rng: random.Random) -> Contents:
    edges = {(rng.randrange(7), rng.randrange(7)) for _ in range(rng.randrange(16))}
    return {"e": sorted(edges), "ask": [(x,) for x in range(7) if rng.random() < 0.3]}


def meaning(program: str, inputs: Contents) -> dict[str, Counter[Row]]:
    """What each relation holds by the program as it is written."""
    return evaluate(check(parse(program), Catalog()), inputs)


@pytest.mark.parametrize("name", [*PROGRAMS, *WHOLE])
@pytest.mark.parametrize("wanted", ["r, t", "*"])
def test_what_is_seen_is_as_it_would_be(name: str, wanted: str) -> None:
    rules = {**PROGRAMS, **WHOLE}[name]
    program = PRELUDE + rules + ("" if ".decl t(" in rules else "\n.decl t(x: number)")
    compiled = compile_program(f'{program}\n.pragma "magic-transform" "{wanted}"', Catalog())
    rng = random.Random(name)
    for _ in range(6):
        inputs = contents(rng)
        expected, found = meaning(program, inputs), interpret(compiled.plan, inputs)
        for relation in found.keys() & expected.keys():
            assert found[relation] == expected[relation], (relation, inputs)
        assert found["q"] == expected["q"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_not_asked_for_is_not_worked_out(name: str) -> None:
    plan = compile_program(f'{PRELUDE}{PROGRAMS[name]}\n.pragma "magic-transform" "r"', Catalog()).plan
    names = [relation["name"] for relation in plan["relations"]]
    assert "r" not in names
    rules = [(rule["line"], rule["column"], rule["text"]) for rule in plan["rules"]]
    assert len(set(rules)) == len(rules), "each is named once, whatever became of it"
    assert any(relation.startswith("r^") for relation in names), names


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_needed_as_a_whole_stays(name: str) -> None:
    program = PRELUDE + WHOLE[name]
    plan = compile_program(f'{program}\n.pragma "magic-transform" "*"', Catalog()).plan
    assert [each["name"] for each in plan["relations"] if each["name"] != "c"] == ["e", "ask", "r", "q"]


def test_what_no_other_relation_reads_is_there_to_be_seen() -> None:
    program = f'{PRELUDE}{LEFT}q(1, y) :- r(1, y).\n.pragma "magic-transform" "*"'.replace(".output q", "")
    names = [each["name"] for each in compile_program(program, Catalog()).plan["relations"]]
    assert names == ["e", "ask", "q", "r^bf asked", "r^bf"]


def test_no_relation_comes_to_depend_on_its_own_negation() -> None:
    program = f"""{PRELUDE}{RIGHT}
        .decl z(x: number)
        z(x) :- ask(x), r(x, _).
        .decl p(x: number)
        p(x) :- e(x, _), !z(x).
        q(x, y) :- p(x), r(x, y).
    """
    plan = compile_program(f'{program}\n.pragma "magic-transform" "r"', Catalog()).plan
    plain = compile_program(program, Catalog()).plan
    assert {**plan, "digest": "", "name": ""} == {**plain, "digest": "", "name": ""}


def test_answers_are_few_where_few_are_asked_for() -> None:
    program = f'{PRELUDE}{RIGHT}q(1, y) :- r(1, y).\n.pragma "magic-transform" "r"'
    chain: Contents = {"e": [(x, x + 1) for x in range(50)], "ask": []}
    found = interpret(compile_program(program, Catalog()).plan, chain)
    assert len(found["q"]) == 49
    # Right-linear, each node on the way asks for its own; from the other end only one does.
    assert len(found["r^bf asked"]) == 50
    assert len(found["r^bf"]) == 49 * 50 / 2
    program = f'{PRELUDE}{LEFT}q(1, y) :- r(1, y).\n.pragma "magic-transform" "r"'
    found = interpret(compile_program(program, Catalog()).plan, chain)
    assert (len(found["r^bf asked"]), len(found["r^bf"])) == (1, 49)


def test_without_the_pragma_nothing_changes_and_with_it_the_program_is_another() -> None:
    program = PRELUDE + LEFT + "q(1, y) :- r(1, y)."
    plain, other = (
        compile_program(f'{program}\n.pragma "{pragma}" "r"', Catalog())
        for pragma in ("legacy", "magic-transform")
    )
    assert plain.plan == compile_program(program, Catalog()).plan
    assert plain.digest != other.digest


@pytest.mark.parametrize("seed", range(100))
def test_random_programs(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    case = generate(rng)
    program, values = asking(case, rng)
    compiled = compile_program(f'{program}.pragma "magic-transform" "*"', Catalog())
    state: dict[str, Counter[Row]] = {name: Counter() for name in case.inputs}
    for transaction in case.transactions:
        apply_transaction(case.inputs, state, transaction)
        inputs = {name: list(rows.elements()) for name, rows in state.items()}
        inputs["ask"] = [(value,) for value in values if rng.random() < 0.5]
        expected, found = meaning(program, inputs), interpret(compiled.plan, inputs)
        for relation in found.keys() & expected.keys():
            assert found[relation] == expected[relation], (seed, relation)
        assert found["answer"] == expected["answer"]


def asking(case: Case, rng: random.Random) -> tuple[str, Sequence[object]]:
    """The program with nothing to see but rows of a relation that begin as asked; what may be asked."""
    relations = check(parse(case.program), Catalog()).relations
    columns = {name: relations[name].columns for name in case.derived if relations[name].columns}
    name = rng.choice(list(columns))
    args = [f"v{place}" for place, _ in enumerate(columns[name])]
    declared = ", ".join(f"{arg}: {column.type}" for arg, column in zip(args, columns[name], strict=True))
    lines = [line for line in case.program.splitlines() if not line.startswith(".output")]
    lines += [f".decl ask(v: {columns[name][0].type})", ".input ask"]
    lines += [f".decl answer({declared})", ".output answer"]
    lines += [f"answer({', '.join(args)}) :- ask(v0), {name}({', '.join(args)}).\n"]
    return "\n".join(lines), {str(kind): values for kind, values in VALUES.items()}[
        str(columns[name][0].type)
    ]

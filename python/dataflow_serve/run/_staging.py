"""Which inputs of a program have to be loaded, and which can be before its rules are there. No I/O.

Rules over relations that are still empty would be evaluated for nothing, and again with each batch of rows; a
recursion that the rows are to bound would not even end. So a run registers inputs first, as a program of
their own, and the rules when the rows are in.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from dataflow_serve.language import CLOCK, CheckedProgram, Type
from dataflow_serve.language.checked import AggregateLiteral, AtomLiteral, Literal

__all__ = ["Staging", "needed_for", "stage"]


def needed_for(program: CheckedProgram, results: Iterable[str]) -> set[str]:
    """The relations that these depend on, themselves included."""
    sources: dict[str, set[str]] = {name: set() for name in program.relations}
    for rule in program.rules:
        for head in rule.heads:
            _add_read(rule.body, sources[head.relation])
    for each in program.subsumptions:
        _add_read(each.body, sources[each.relation])
    needed: set[str] = set()
    pending = list(results)
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending += sources.get(name, ())
    return needed


def _add_read(body: Iterable[Literal], into: set[str]) -> None:
    for literal in body:
        if isinstance(literal, AtomLiteral):
            into.add(literal.relation)
        elif isinstance(literal, AggregateLiteral):
            for inner in literal.alternatives:
                _add_read(inner, into)


class Staging(Struct, frozen=True):
    """What comes before the rules."""

    inputs: str = ""
    """A program that declares inputs; empty if there are none to come before."""
    whole: bool = False
    """Whether all that the rules read is there when they come, so that nothing changes afterwards."""


def stage(program: CheckedProgram) -> Staging:
    """The inputs without facts and rules of their own come first.

    Inputs of an instance aren't among them, as no program can declare their names otherwise, nor are those
    whose declaration says more than what rows they may hold.
    """
    derived = {head.relation for rule in program.rules for head in rule.heads} | program.facts.keys()
    lines: list[str] = []
    whole = CLOCK not in program.imports.values()
    for relation in program.relations.values():
        if not relation.input:
            continue
        plain = all(isinstance(column.type, Type) for column in relation.columns)
        if relation.name in derived or relation.equivalence or "." in relation.name or not plain:
            whole = False
            continue
        columns = ", ".join(f"{column.name}: {column.type.value}" for column in relation.columns)
        key = ", ".join(relation.columns[place].name for place in relation.key)
        mode = {"set": "", "upsert": f" upsert({key})"}.get(relation.mode, f" {relation.mode}")
        lines += [f".decl {relation.name}({columns}){mode}", f".input {relation.name}"]
    return Staging("\n".join(lines), whole)

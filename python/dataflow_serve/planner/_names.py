"""Which variables a literal is about: what it needs, and what it can give a value."""

from __future__ import annotations

from collections.abc import Sequence

from dataflow_serve.language.checked import (
    AggregateLiteral,
    AtomLiteral,
    Call,
    Filter,
    Literal,
    RangeLiteral,
    Var,
    variables_of,
)

__all__ = ["binds_alone", "bound_by", "names_of", "names_of_range", "outer_names"]


def names_of(literal: Literal) -> set[str]:
    """All variables of a literal that others may have, too."""
    names: set[str] = set()
    match literal:
        case AtomLiteral(args=args):
            for arg in args:
                variables_of(arg, names)
        case Filter(condition=condition):
            variables_of(condition, names)
        case AggregateLiteral(result=result):
            names.update(outer_names(literal), [result.name])
        case _:
            names |= names_of_range(literal) | {literal.result.name}
    return names


def outer_names(aggregate: AggregateLiteral) -> list[str]:
    """The outer variables of an aggregate."""
    return [variable.name for variable in aggregate.outer]


def names_of_range(literal: RangeLiteral) -> set[str]:
    """The variables that a range depends on."""
    names: set[str] = set()
    for bound in literal.bounds:
        variables_of(bound, names)
    return names


def binds_alone(aggregate: AggregateLiteral) -> bool:
    """Whether the body has values for the outer variables without being told any."""
    outer = set(outer_names(aggregate))
    return all(outer <= bound_by(body) for body in aggregate.alternatives)


def bound_by(literals: Sequence[Literal]) -> set[str]:
    """The variables that a conjunction binds."""
    bound: set[str] = set()
    for literal in literals:
        if isinstance(literal, AtomLiteral) and not literal.negated:
            bound.update(arg.name for arg in literal.args if isinstance(arg, Var))
    changed = True
    while changed:
        changed = False
        for literal in literals:
            for name, needed in _definitions(literal):
                if name not in bound and needed <= bound:
                    bound.add(name)
                    changed = True
    return bound


def _definitions(literal: Literal) -> list[tuple[str, set[str]]]:
    """Variables that a literal can give a value, each with those that it needs for it."""
    if isinstance(literal, AggregateLiteral):
        return [(literal.result.name, set(outer_names(literal)))]
    if isinstance(literal, RangeLiteral):
        return [(literal.result.name, names_of_range(literal))]
    if isinstance(literal, Filter) and isinstance(literal.condition, Call) and literal.condition.func == "eq":
        left, right = literal.condition.args
        return [
            (one.name, variables_of(other))
            for one, other in ((left, right), (right, left))
            if isinstance(one, Var)
        ]
    return []

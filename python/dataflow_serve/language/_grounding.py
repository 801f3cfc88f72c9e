"""Whether every variable of a rule has a value when it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from dataflow_serve.errors import IncorrectError
from dataflow_serve.language import ast
from dataflow_serve.language._cursor import Where
from dataflow_serve.language._patterns import TakenApart, pattern_of, taken_apart
from dataflow_serve.language._scopes import (
    Flat,
    aggregates_in,
    alternatives,
    display_name,
    names_in,
    terms_of,
)

__all__ = ["check_grounded", "records_taken_apart"]


def check_grounded(heads: Sequence[ast.Atom], literals: Sequence[Flat], where: Where) -> None:
    """Make sure that atoms which aren't negated, and equalities, bind all variables of a resolved rule.

    Raises:
        IncorrectError: one isn't bound.
    """
    terms = [term for head in heads for term in head.args]
    _check_level(literals, set(), terms, where)


def _check_level(
    literals: Sequence[Flat], given: set[str], taken: Sequence[ast.Term], where: Where
) -> set[str]:
    """Check one conjunction and the aggregates in it; gives the variables that are bound in it.

    Args:
        literals: The conjunction.
        given: Variables bound outside.
        taken: Terms outside of the conjunction that need its variables.
        where: A quotation of the rule.
    """
    bound = _bound(literals, given)
    for literal in literals:
        for term in terms_of(literal):
            _check_term(term, bound, literals, where)
    for term in taken:
        _check_term(term, bound, literals, where)
    for literal in literals:
        for term in terms_of(literal):
            for aggregate in aggregates_in(term):
                target = () if aggregate.target is None else (aggregate.target,)
                for inner in alternatives(aggregate.body):
                    _check_level(inner, bound, target, where)
    return bound


def _check_term(term: ast.Term, bound: set[str], literals: Sequence[Flat], where: Where) -> None:
    for variable in _variables(term):
        if variable.name not in bound:
            name = display_name(variable.name)
            raise IncorrectError(
                f'ungrounded variable "{name}"{where}',
                _hint(name, literals),
                *variable.at,
            )


def _hint(name: str, literals: Sequence[Flat]) -> str:
    for literal in literals:
        for term in terms_of(literal):
            for aggregate in aggregates_in(term):
                inside: set[str] = set()
                names_in(aggregate, inside, inside=True)
                if aggregate.func not in ("min", "max") and name in map(display_name, inside):
                    return (
                        f'Bind "{name}" by an atom outside of the {aggregate.func}: '
                        f"a {aggregate.func} is of many rows and has no one row to take it from."
                    )
    return (
        f'Bind "{name}" by an atom of the body that isn\'t negated, or by an equality with bound variables.'
    )


def records_taken_apart(literals: Sequence[Flat], given: set[str]) -> set[int]:
    """The identities of the equalities that take a record apart; the others make one.

    Args:
        literals: A resolved conjunction.
        given: Variables bound outside of it.
    """
    return taken_apart(literals, lambda others: _bound(others, given))


def _bound(literals: Sequence[object], given: set[str]) -> set[str]:
    bound = set(given)
    level: set[str] = set(given)
    for literal in literals:
        for term in _terms_of(literal):
            names_in(term, level)
    equalities: list[tuple[str, set[str]]] = []
    for literal in literals:
        if isinstance(literal, ast.Atom):
            bound.update(arg.name for arg in literal.args if isinstance(arg, ast.Variable))
        elif isinstance(literal, ast.Compare) and literal.op == "=":
            for one, other in ((literal.left, literal.right), (literal.right, literal.left)):
                if isinstance(one, ast.Variable) and not _has_wildcard(other):
                    needed: set[str] = set()
                    names_in(other, needed, inside=True)
                    equalities.append((one.name, needed & level))
        apart = literal if isinstance(literal, TakenApart) else pattern_of(literal)
        if apart is not None:
            variable, record = apart
            fields = (arg.name for arg in record.args if isinstance(arg, ast.Variable))
            equalities.extend((name, {variable.name}) for name in fields)
    changed = True
    while changed:
        changed = False
        for name, needed in equalities:
            if name not in bound and needed <= bound:
                bound.add(name)
                changed = True
    return bound


def _terms_of(literal: object) -> tuple[ast.Term, ...]:
    if isinstance(literal, TakenApart):
        return literal.variable, literal.record
    return terms_of(cast(Flat, literal))


def _has_wildcard(term: ast.Term) -> bool:
    return isinstance(term, ast.Wildcard) or (
        isinstance(term, ast.Apply) and any(isinstance(arg, ast.Wildcard) for arg in term.args)
    )


def _variables(term: ast.Term) -> Iterator[ast.Variable]:
    match term:
        case ast.Variable():
            yield term
        case ast.Apply(args=args):
            for arg in args:
                yield from _variables(arg)
        case ast.Cast(inner):
            yield from _variables(inner)

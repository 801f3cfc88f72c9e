"""Records and branches in bodies: where one is taken apart, and where it is made.

``r([x, _])`` stands for ``r(v), v = [x, _]`` with a variable that occurs nowhere else; a record in another
one likewise. What remains are equalities of a variable with a record of terms. Where the variable has a value
from elsewhere, the equality takes it apart; else it makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from dataflow_serve.language import ast

__all__ = ["Flattening", "TakenApart", "is_construct", "pattern_of", "taken_apart"]


def is_construct(term: ast.Term) -> bool:
    """Whether the term is a record or a branch of an algebraic type; ``nil`` is a constant and isn't."""
    return isinstance(term, ast.Apply) and (term.functor == "[]" or term.functor.startswith("$"))


def pattern_of(literal: object) -> tuple[ast.Variable, ast.Apply] | None:
    """The variable and the record of an equality of such."""
    if isinstance(literal, ast.Compare) and literal.op == "=":
        for one, other in ((literal.left, literal.right), (literal.right, literal.left)):
            if isinstance(one, ast.Variable) and isinstance(other, ast.Apply) and is_construct(other):
                return one, other
    return None


def taken_apart(literals: Sequence[object], binds: Callable[[Sequence[object]], set[str]]) -> set[int]:
    """The identities of the equalities that take a record apart.

    Args:
        literals: A conjunction.
        binds: Says which variables a conjunction binds, in which some equalities are `TakenApart`.
    """
    apart: set[int] = set()
    for literal in literals:
        pattern = pattern_of(literal)
        if pattern is None:
            continue
        others = [
            _only_apart(other) if other is literal or id(other) in apart else other for other in literals
        ]
        if pattern[0].name in binds(others) or any(isinstance(arg, ast.Wildcard) for arg in pattern[1].args):
            apart.add(id(literal))
    return apart


class TakenApart(NamedTuple):
    """An equality of a variable with a record that can't give the variable its value."""

    variable: ast.Variable
    record: ast.Apply


def _only_apart(literal: object) -> object:
    pattern = pattern_of(literal)
    return TakenApart(*pattern) if pattern is not None else literal


class Flattening(Struct):
    """Rewrites bodies of one clause so that records stand in equalities with variables only."""

    count: int = 0

    def body(self, body: ast.Body) -> ast.Body:
        """The body; negated parts of it are left alone, as they bind nothing."""
        match body:
            case ast.Conjunction(parts):
                return ast.Conjunction(tuple(map(self.body, parts)))
            case ast.Disjunction(parts):
                return replace(body, parts=tuple(map(self.body, parts)))
            case ast.Negation(inner):
                return replace(body, body=self._aggregates_of(inner))
            case ast.Atom(args=args):
                taken: list[ast.Body] = []
                flat = replace(body, args=tuple(self._named(self.term(arg), taken) for arg in args))
                return _conjunction(flat, taken)
            case ast.Compare():
                return self._compare(body)
            case _:
                return body

    def term(self, term: ast.Term) -> ast.Term:
        """The term with flat bodies of the aggregates in it."""
        match term:
            case ast.Apply(args=args):
                return replace(term, args=tuple(map(self.term, args)))
            case ast.Cast(inner):
                return replace(term, term=self.term(inner))
            case ast.Aggregate(target=target, body=body):
                new = None if target is None else self.term(target)
                return replace(term, target=new, body=self.body(body))
            case _:
                return term

    def _compare(self, compare: ast.Compare) -> ast.Body:
        left, right = self.term(compare.left), self.term(compare.right)
        taken: list[ast.Body] = []
        if compare.op == "=" and not compare.negated:
            if is_construct(left) and is_construct(right):
                left = self._named(left, taken)
            left, right = (self._inner(side, taken) if is_construct(side) else side for side in (left, right))
        return _conjunction(replace(compare, left=left, right=right), taken)

    def _aggregates_of(self, body: ast.Body) -> ast.Body:
        """A body that is negated: only the aggregates in it have bodies that bind."""
        match body:
            case ast.Conjunction(parts):
                return ast.Conjunction(tuple(map(self._aggregates_of, parts)))
            case ast.Disjunction(parts):
                return replace(body, parts=tuple(map(self._aggregates_of, parts)))
            case ast.Negation(inner):
                return replace(body, body=self._aggregates_of(inner))
            case ast.Atom(args=args):
                return replace(body, args=tuple(map(self.term, args)))
            case ast.Compare(left=left, right=right):
                return replace(body, left=self.term(left), right=self.term(right))
            case _:
                return body

    def _named(self, term: ast.Term, into: list[ast.Body]) -> ast.Term:
        """A variable for a record, which an equality says what it is."""
        if not is_construct(term):
            return term
        self.count += 1
        variable = ast.Variable(f"[]'r{self.count}", term.at)
        into.append(ast.Compare("=", variable, self._inner(term, into), term.at))
        return variable

    def _inner(self, term: ast.Term, into: list[ast.Body]) -> ast.Term:
        """A record with variables for the records in it."""
        assert isinstance(term, ast.Apply)
        return replace(term, args=tuple(self._named(arg, into) for arg in term.args))


def _conjunction(body: ast.Body, more: list[ast.Body]) -> ast.Body:
    return ast.Conjunction((body, *more)) if more else body

"""Relations declared ``inline`` that can't have rows of their own, put into the clauses that use them.

``.decl less(x: number, y: number) inline`` with ``less(x, y) :- x < y.`` has no finite meaning as a relation;
it is a name for a condition. A relation is treated so if it is ``inline`` and a clause of it doesn't bind all
its variables. Others declared ``inline`` are relations like any other.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from dataflow_serve.errors import IncorrectError, UnsupportedError
from dataflow_serve.language import ast
from dataflow_serve.language._scopes import Flat, alternatives, bound_by, display_name, names_in, terms_of

__all__ = ["inline"]

MAX_DEPTH = 64
"""How long a chain of inline relations may be of which each stands for a condition with the next."""

MAX_INLINED = 1_000
"""Atoms of one clause that may be replaced by what they stand for."""


def inline(program: ast.Program) -> ast.Program:
    """The program without relations that only stand for conditions.

    Raises:
        IncorrectError: one of them depends on itself, or is an input or output.
        UnsupportedError: a clause grows too large.
    """
    named = [
        declaration.name
        for declaration in program.relations
        if any(qualifier.name == "inline" for qualifier in declaration.qualifiers)
    ]
    if not named:
        return program
    clauses: dict[str, list[ast.Clause]] = {name: [] for name in named}
    for clause in program.clauses:
        if len(clause.heads) == 1 and clause.heads[0].relation in clauses:
            clauses[clause.heads[0].relation].append(clause)
    conditions = _Conditions(clauses)
    inlining = {name: clauses[name] for name in named if conditions.is_one(name)}
    if not inlining:
        return program
    for directive in program.directives:
        if directive.relation in inlining:
            raise IncorrectError(
                f'.{directive.kind} for "{directive.relation}", which is inline and has no rows of its own',
                "Bind all variables in its clauses by atoms, or leave the directive out.",
                *directive.at,
            )
    return replace(
        program,
        relations=tuple(each for each in program.relations if each.name not in inlining),
        clauses=tuple(
            _Clause(inlining).clause(each)
            for each in program.clauses
            if each.heads[0].relation not in inlining
        ),
        subsumptions=tuple(
            replace(each, body=_Clause(inlining).body(each.body, ())) for each in program.subsumptions
        ),
    )


class _Conditions:
    """Finds out which relations don't bind the variables of their clauses."""

    def __init__(self, clauses: Mapping[str, Sequence[ast.Clause]]) -> None:
        self._clauses = clauses
        self._known: dict[str, bool] = {}

    def is_one(self, name: str, depth: int = 0) -> bool:
        if name not in self._known:
            if depth > MAX_DEPTH:
                raise _too_deep(self._clauses[name][0].heads[0])
            self._known[name] = False  # as long as nobody knows, in a cycle
            self._known[name] = any(self._is_loose(clause, depth) for clause in self._clauses[name])
        return self._known[name]

    def _is_loose(self, clause: ast.Clause, depth: int) -> bool:
        for literals in alternatives(clause.body):
            binding: list[Flat] = [
                literal
                for literal in literals
                if not (
                    isinstance(literal, ast.Atom)
                    and literal.relation in self._clauses
                    and self.is_one(literal.relation, depth + 1)
                )
            ]
            needed: set[str] = set()
            for each in (*clause.heads, *literals):
                for term in terms_of(each):
                    names_in(term, needed)
            if not needed <= bound_by(binding):
                return True
        return False


class _Clause:
    """Inlines into one clause."""

    def __init__(self, clauses: Mapping[str, Sequence[ast.Clause]]) -> None:
        self._clauses = clauses
        self._count = itertools.count(1)

    def clause(self, clause: ast.Clause) -> ast.Clause:
        heads = tuple(
            replace(head, args=tuple(self._term(arg, ()) for arg in head.args)) for head in clause.heads
        )
        return replace(clause, heads=heads, body=None if clause.body is None else self.body(clause.body, ()))

    def body(self, body: ast.Body, path: tuple[str, ...]) -> ast.Body:
        """The body with conditions in place of their names; ``path`` are those being replaced around it."""
        match body:
            case ast.Atom(name, args) if name in self._clauses:
                return self._condition(replace(body, args=tuple(self._term(arg, path) for arg in args)), path)
            case ast.Atom(args=args):
                return replace(body, args=tuple(self._term(arg, path) for arg in args))
            case ast.Compare(left=left, right=right):
                return replace(body, left=self._term(left, path), right=self._term(right, path))
            case ast.Negation(inner):
                return replace(body, body=self.body(inner, path))
            case ast.Conjunction(parts) | ast.Disjunction(parts):
                return replace(body, parts=tuple(self.body(part, path) for part in parts))
            case _:
                return body

    def _term(self, term: ast.Term, path: tuple[str, ...]) -> ast.Term:
        match term:
            case ast.Apply(args=args):
                return replace(term, args=tuple(self._term(arg, path) for arg in args))
            case ast.Cast(inner):
                return replace(term, term=self._term(inner, path))
            case ast.Aggregate(target=target, body=body):
                target = None if target is None else self._term(target, path)
                return replace(term, target=target, body=self.body(body, path))
            case _:
                return term

    def _condition(self, atom: ast.Atom, path: tuple[str, ...]) -> ast.Body:
        name = atom.relation
        if name in path:
            raise IncorrectError(
                f'"{name}" is inline, has no rows of its own and depends on itself: '
                + " -> ".join([*path[path.index(name) :], name]),
                "Bind all variables in its clauses by atoms, or break the cycle.",
                *atom.at,
            )
        if len(path) > MAX_DEPTH:
            raise _too_deep(atom)
        number = next(self._count)
        if number > MAX_INLINED:
            raise UnsupportedError(
                f"a clause with more than {MAX_INLINED} atoms of inline relations",
                "Derive a part of it in a relation of its own.",
                *atom.at,
            )
        parts: list[ast.Body] = []
        for clause in self._clauses[name]:
            head = clause.heads[0]
            if len(head.args) != len(atom.args):
                raise IncorrectError(
                    f'"{name}" is used with {len(atom.args)} terms and has a clause with {len(head.args)}',
                    None,
                    *atom.at,
                )
            parts.append(self._instance(clause, atom, number, (*path, name)))
        if not parts:
            return ast.Constant(False, atom.at)
        return parts[0] if len(parts) == 1 else ast.Disjunction(tuple(parts), atom.at)

    def _instance(self, clause: ast.Clause, atom: ast.Atom, number: int, path: tuple[str, ...]) -> ast.Body:
        """One clause's body, with the atom's terms in place of the head's variables."""
        values: dict[str, ast.Term] = {}
        equalities: list[ast.Body] = []
        fresh = _Substitution(values, number)
        for arg, given in zip(clause.heads[0].args, atom.args, strict=True):
            if isinstance(given, ast.Wildcard):
                continue
            if isinstance(arg, ast.Variable) and arg.name not in values:
                values[arg.name] = given
            elif not isinstance(arg, ast.Wildcard):
                equalities.append(ast.Compare("=", fresh.term(arg), given, atom.at))
        if clause.body is not None:
            equalities.append(self.body(fresh.body(clause.body), path))
        if not equalities:
            return ast.Constant(True, atom.at)
        return equalities[0] if len(equalities) == 1 else ast.Conjunction(tuple(equalities))


def _too_deep(atom: ast.Atom) -> UnsupportedError:
    return UnsupportedError(
        f"inline relations that stand for one another, more than {MAX_DEPTH} in a row",
        f'Bind all variables in the clauses of "{atom.relation}" by atoms.',
        *atom.at,
    )


class _Substitution:
    """Terms in place of variables; all other variables get names that occur nowhere else in the clause."""

    def __init__(self, values: Mapping[str, ast.Term], number: int) -> None:
        self._values = values
        self._number = number

    def term(self, term: ast.Term) -> ast.Term:
        match term:
            case ast.Variable(name, at):
                return self._values.get(name) or ast.Variable(f"{display_name(name)}'i{self._number}", at)
            case ast.Apply(args=args):
                return replace(term, args=tuple(map(self.term, args)))
            case ast.Cast(inner):
                return replace(term, term=self.term(inner))
            case ast.Aggregate(target=target, body=body):
                target = None if target is None else self.term(target)
                return replace(term, target=target, body=self.body(body))
            case _:
                return term

    def body(self, body: ast.Body) -> ast.Body:
        match body:
            case ast.Atom(args=args):
                return replace(body, args=tuple(map(self.term, args)))
            case ast.Compare(left=left, right=right):
                return replace(body, left=self.term(left), right=self.term(right))
            case ast.Negation(inner):
                return replace(body, body=self.body(inner))
            case ast.Conjunction(parts) | ast.Disjunction(parts):
                return replace(body, parts=tuple(map(self.body, parts)))
            case _:
                return body

"""A program after checking: names resolved, types inferred, disjunctions spread out.

A rule of the text becomes one `Rule` per alternative of its body, each a flat conjunction. Aggregates and
ranges stand as literals of their own that give a variable its value; variables local to an aggregate have
names that occur nowhere else in the rule. What reads this form needs to know nothing of scopes, overloading
or precedence.
"""

from __future__ import annotations

from msgspec import Struct

from dataflow_serve.language import ast
from dataflow_serve.language._catalog import CatalogRelation
from dataflow_serve.language._types import Column, Kind, Scalar

__all__ = [
    "AggregateLiteral",
    "Any",
    "Argument",
    "AtomLiteral",
    "Call",
    "CheckedProgram",
    "Const",
    "Filter",
    "Head",
    "Literal",
    "RangeLiteral",
    "Relation",
    "Rule",
    "Stratum",
    "Subsumption",
    "Term",
    "Var",
    "variables_of",
]


class Var(Struct, frozen=True):
    """A variable; its name is unique in its rule."""

    name: str
    type: Kind


class Const(Struct, frozen=True):
    """A constant of its type's range."""

    value: Scalar
    type: Kind


class Call(Struct, frozen=True):
    """A function of the plan over a type. Its evaluation may fail, which makes the derivation fail."""

    func: str
    over: Kind
    args: tuple[Term, ...]
    type: Kind
    fallible: bool


Term = Var | Const | Call


class Any(Struct, frozen=True):
    """``_`` as an argument."""

    type: Kind


Argument = Var | Const | Call | Any


class AtomLiteral(Struct, frozen=True):
    """Some row of the relation has these values; or none has, where negated."""

    relation: str
    args: tuple[Argument, ...]
    negated: bool
    at: ast.Position


class Filter(Struct, frozen=True):
    """A condition of type ``bool``; an equality with a variable that nothing else binds gives its value."""

    condition: Term
    at: ast.Position


class AggregateLiteral(Struct, frozen=True):
    """``result`` is the aggregate over the rows of the body, for each value of the outer variables.

    The body is a list of alternatives. A single one counts every assignment of its variables and of each
    ``_``, and every copy of a row of a raw relation; of several ones each distinct assignment of the
    variables that all of them bind counts once. ``count`` and ``sum`` of nothing are zero, the others of
    nothing have no value.
    """

    result: Var
    func: str
    target: Term | None
    alternatives: tuple[tuple[Literal, ...], ...]
    outer: tuple[Var, ...]
    """Variables bound outside that occur in the body, by name."""
    shared: tuple[Var, ...]
    """Of several alternatives, the variables that all bind, without the outer ones, by name."""
    at: ast.Position


class RangeLiteral(Struct, frozen=True):
    """``result`` is each of the values from ``start`` on, before ``stop``.

    ``step`` leads from value to value; one that leads away from ``stop`` gives none, one of 0 the first
    alone, and without one it is 1 or -1, whichever leads to ``stop``. The values of a float are those that
    adding up gives. More than 2^20 of them make the derivation fail.
    """

    result: Var
    start: Term
    stop: Term
    step: Term | None
    at: ast.Position

    @property
    def bounds(self) -> tuple[Term, ...]:
        """The terms whose values the range depends on."""
        return (self.start, self.stop) if self.step is None else (self.start, self.stop, self.step)


Literal = AtomLiteral | Filter | AggregateLiteral | RangeLiteral


class Head(Struct, frozen=True):
    """What a rule derives."""

    relation: str
    args: tuple[Term, ...]


class Rule(Struct, frozen=True):
    """One alternative of a clause."""

    heads: tuple[Head, ...]
    body: tuple[Literal, ...]
    clause: ast.Clause


class Subsumption(Struct, frozen=True):
    """Rows that match ``dominated`` aren't there beside others that match ``dominating``.

    Both are about all rows that the relation would have otherwise, also those that are dominated themselves;
    so is the body where it reads the relation. Of rows that dominate one another the first stays, in the
    order of the columns from left to right.
    """

    relation: str
    dominated: tuple[Argument, ...]
    dominating: tuple[Argument, ...]
    body: tuple[Literal, ...]
    clause: ast.Subsumption


class Relation(Struct, frozen=True):
    """A relation that the program declares."""

    name: str
    columns: tuple[Column, ...]
    input: bool
    output: bool
    mode: str
    """``set``, ``raw`` or ``upsert``."""
    key: tuple[int, ...]
    """Key columns of an ``upsert`` relation."""
    equivalence: bool = False
    """Whether it is the least equivalence that holds the rows it would have otherwise."""
    choices: tuple[tuple[int, ...], ...] = ()
    """Its choice domains: sets of columns of which no two of its rows have the same values.

    It grows in rounds. Of the rows that its facts and rules give, those that agree in a domain with a row
    that is there fall out, and of the others those stay that agree with none before them, in the order of the
    columns from left to right. In a recursion each round derives from all rows that the round before left.
    """
    limit: int | None = None
    """How many rows of it end the recursion that it belongs to: no further round begins."""


class Stratum(Struct, frozen=True):
    """Relations that depend on one another, or one relation alone."""

    relations: tuple[str, ...]
    recursive: bool


class CheckedProgram(Struct, frozen=True):
    """A program without errors."""

    relations: dict[str, Relation]
    """Declared here, in the order of the text."""
    imports: dict[str, CatalogRelation]
    """Used here and declared by earlier programs, by name."""
    facts: dict[str, tuple[tuple[Scalar, ...], ...]]
    """Rows given as constants, by relation."""
    rules: tuple[Rule, ...]
    subsumptions: tuple[Subsumption, ...]
    strata: tuple[Stratum, ...]
    """Every relation of the program, each after those it depends on."""
    directives: tuple[ast.Directive, ...]
    demanded: frozenset[str]
    """Relations declared here of which no more is wanted than what rules ask for."""
    frozen: bool
    """Whether all is worked out once, from what the imports hold when it is registered."""
    digest: str
    """Equal for programs that are equal but for layout, comments and the order of clauses."""

    def columns(self, relation: str) -> tuple[Column, ...]:
        """The columns of a relation that this program declares or uses."""
        known = self.relations.get(relation) or self.imports[relation]
        return known.columns


def variables_of(term: Argument, into: set[str] | None = None) -> set[str]:
    """The names of the variables in ``term``, added to ``into`` if given."""
    names = set() if into is None else into
    if isinstance(term, Var):
        names.add(term.name)
    elif isinstance(term, Call):
        for arg in term.args:
            variables_of(arg, names)
    return names

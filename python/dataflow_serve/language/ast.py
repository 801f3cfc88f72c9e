"""The syntax tree of a program: what was written, with positions, before anything is checked.

All nodes are frozen and compare by what they say, not by where they stand. A term or a body that a later
version adds (records, branches of algebraic types, counters) becomes one more class in `Term` or `Body`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "Aggregate",
    "Apply",
    "Atom",
    "Body",
    "BranchDeclaration",
    "Cast",
    "Clause",
    "ColumnDeclaration",
    "Compare",
    "Component",
    "ComponentUse",
    "Conjunction",
    "Constant",
    "Directive",
    "Disjunction",
    "FloatLiteral",
    "Instance",
    "Negation",
    "NumberLiteral",
    "Position",
    "Program",
    "Qualifier",
    "RelationDeclaration",
    "Subsumption",
    "Term",
    "TextLiteral",
    "TruthLiteral",
    "TypeDeclaration",
    "Variable",
    "Wildcard",
]


class Position(NamedTuple):
    """A place in the text; both count from 1, columns in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Variable:
    """A named variable."""

    name: str
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Wildcard:
    """``_``: any value, another one at each occurrence."""

    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class NumberLiteral:
    """An integer as written; it takes the type of its place unless it ends in ``u``."""

    value: int
    unsigned: bool
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class FloatLiteral:
    """A number with a fraction or an exponent."""

    value: float
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class TextLiteral:
    """A quoted text, escapes resolved."""

    value: str
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class TruthLiteral:
    """``true`` or ``false`` as a value."""

    value: bool
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Apply:
    """A functor applied to arguments; operators go by their sign, the unary minus by ``neg``.

    Records go by ``[]``, branches of algebraic types by ``$`` and their name, the empty record by ``nil``.
    """

    functor: str
    args: tuple[Term, ...]
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Cast:
    """``as(term, type)``."""

    term: Term
    type: str
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate over the rows of a body; ``count`` has no target."""

    func: str
    target: Term | None
    body: Body
    at: Position = field(compare=False)


Term = (
    Variable | Wildcard | NumberLiteral | FloatLiteral | TextLiteral | TruthLiteral | Apply | Cast | Aggregate
)


@dataclass(frozen=True, slots=True)
class Atom:
    """A relation applied to arguments."""

    relation: str
    args: tuple[Term, ...]
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Compare:
    """A comparison, ``match`` or ``contains`` of two terms; only the latter two are ever negated."""

    op: str
    left: Term
    right: Term
    at: Position = field(compare=False)
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Constant:
    """``true`` or ``false`` as a condition."""

    value: bool
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Negation:
    """The opposite of a body."""

    body: Body
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Conjunction:
    """All of several bodies."""

    parts: tuple[Body, ...]


@dataclass(frozen=True, slots=True)
class Disjunction:
    """Any of several bodies."""

    parts: tuple[Body, ...]
    at: Position = field(compare=False)


Body = Atom | Compare | Constant | Negation | Conjunction | Disjunction


@dataclass(frozen=True, slots=True)
class TypeDeclaration:
    """``.type``: another name for a type, a subtype or a union, which all have one base; or a definition."""

    name: str
    bases: tuple[tuple[str, Position], ...]
    at: Position = field(compare=False)
    branches: tuple[BranchDeclaration, ...] = ()
    """Of a record type, which has one without a name, or of an algebraic type; then there are no bases."""


@dataclass(frozen=True, slots=True)
class BranchDeclaration:
    """What a record holds, or a branch of an algebraic type."""

    name: str | None
    fields: tuple[ColumnDeclaration, ...]
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class ColumnDeclaration:
    """A column with its type's name as written."""

    name: str
    type: str
    at: Position = field(compare=False)
    type_at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Qualifier:
    """A word after a declaration, with columns for ``upsert``; ``choice-domain`` is one for each key."""

    name: str
    columns: tuple[tuple[str, Position], ...]
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class RelationDeclaration:
    """``.decl`` of one relation; a declaration of several names gives one of these for each."""

    name: str
    columns: tuple[ColumnDeclaration, ...]
    qualifiers: tuple[Qualifier, ...]
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Directive:
    """``.input``, ``.output``, ``.printsize`` or ``.limitsize`` of one relation.

    Parameters matter to batch runs, those of ``.limitsize`` everywhere.
    """

    kind: str
    relation: str
    parameters: tuple[tuple[str, str], ...]
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Clause:
    """A fact (no body) or a rule."""

    heads: tuple[Atom, ...]
    body: Body | None
    text: str = field(compare=False)
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Subsumption:
    """``a(…) <= a(…) :- …``: rows of a relation that give way to others of it."""

    dominated: Atom
    dominating: Atom
    body: Body
    text: str = field(compare=False)
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class ComponentUse:
    """A component named in order to inherit from it or to instantiate it."""

    name: str
    arguments: tuple[str, ...]
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Component:
    """``.comp``: declarations and clauses that take effect under the name of each instance."""

    name: str
    parameters: tuple[str, ...]
    bases: tuple[ComponentUse, ...]
    overrides: tuple[tuple[str, Position], ...]
    """Inherited relations whose inherited clauses are left out."""
    body: Program
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Instance:
    """``.init``: a component under a name."""

    name: str
    component: ComponentUse
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Program:
    """A parsed program, in the order of the text."""

    types: tuple[TypeDeclaration, ...]
    relations: tuple[RelationDeclaration, ...]
    directives: tuple[Directive, ...]
    clauses: tuple[Clause, ...]
    subsumptions: tuple[Subsumption, ...] = ()
    components: tuple[Component, ...] = ()
    instances: tuple[Instance, ...] = ()
    demanded: tuple[tuple[str, Position], ...] = ()
    """Relations of which no more is wanted than what rules ask for; ``*`` for all."""
    frozen: Position | None = field(default=None, compare=False)
    """Where it says that all is worked out once, from what there is when it is registered."""

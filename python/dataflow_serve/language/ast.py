"""The syntax tree of a program: what was written, with positions, before anything is checked.

All nodes are frozen and compare by what they say, not by where they stand. A term or a body that a later
version adds (records, branches of algebraic types, counters) becomes one more class in `Term` or `Body`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import Struct

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


_WHERE = frozenset({"at", "type_at", "text", "frozen"})
"""Fields that say where a node stands rather than what it says."""


class Node(Struct, frozen=True, eq=False):
    """What a program consists of."""

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, wherever they stand."""
        if type(other) is not type(self):
            return NotImplemented
        said = _said(type(self))
        return bool(said(self) == said(other))

    def __hash__(self) -> int:
        """Equal for equal nodes."""
        return hash(_said(type(self))(self))


@cache
def _said(kind: type[Node]) -> Callable[[object], Any]:
    """Gives what a node of this kind says."""
    names = [name for name in kind.__struct_fields__ if name not in _WHERE]
    return attrgetter(*names) if names else lambda node: ()


class Variable(Node, frozen=True):
    """A named variable."""

    name: str
    at: Position


class Wildcard(Node, frozen=True):
    """``_``: any value, another one at each occurrence."""

    at: Position


class NumberLiteral(Node, frozen=True):
    """An integer as written; it takes the type of its place unless it ends in ``u``."""

    value: int
    unsigned: bool
    at: Position


class FloatLiteral(Node, frozen=True):
    """A number with a fraction or an exponent."""

    value: float
    at: Position


class TextLiteral(Node, frozen=True):
    """A quoted text, escapes resolved."""

    value: str
    at: Position


class TruthLiteral(Node, frozen=True):
    """``true`` or ``false`` as a value."""

    value: bool
    at: Position


class Apply(Node, frozen=True):
    """A functor applied to arguments; operators go by their sign, the unary minus by ``neg``.

    Records go by ``[]``, branches of algebraic types by ``$`` and their name, the empty record by ``nil``.
    """

    functor: str
    args: tuple[Term, ...]
    at: Position


class Cast(Node, frozen=True):
    """``as(term, type)``."""

    term: Term
    type: str
    at: Position


class Aggregate(Node, frozen=True):
    """An aggregate over the rows of a body; ``count`` has no target."""

    func: str
    target: Term | None
    body: Body
    at: Position


Term = (
    Variable | Wildcard | NumberLiteral | FloatLiteral | TextLiteral | TruthLiteral | Apply | Cast | Aggregate
)


class Atom(Node, frozen=True):
    """A relation applied to arguments."""

    relation: str
    args: tuple[Term, ...]
    at: Position


class Compare(Node, frozen=True):
    """A comparison, ``match`` or ``contains`` of two terms; only the latter two are ever negated."""

    op: str
    left: Term
    right: Term
    at: Position
    negated: bool = False


class Constant(Node, frozen=True):
    """``true`` or ``false`` as a condition."""

    value: bool
    at: Position


class Negation(Node, frozen=True):
    """The opposite of a body."""

    body: Body
    at: Position


class Conjunction(Node, frozen=True):
    """All of several bodies."""

    parts: tuple[Body, ...]


class Disjunction(Node, frozen=True):
    """Any of several bodies."""

    parts: tuple[Body, ...]
    at: Position


Body = Atom | Compare | Constant | Negation | Conjunction | Disjunction


class TypeDeclaration(Node, frozen=True):
    """``.type``: another name for a type, a subtype or a union, which all have one base; or a definition."""

    name: str
    bases: tuple[tuple[str, Position], ...]
    at: Position
    branches: tuple[BranchDeclaration, ...] = ()
    """Of a record type, which has one without a name, or of an algebraic type; then there are no bases."""


class BranchDeclaration(Node, frozen=True):
    """What a record holds, or a branch of an algebraic type."""

    name: str | None
    fields: tuple[ColumnDeclaration, ...]
    at: Position


class ColumnDeclaration(Node, frozen=True):
    """A column with its type's name as written."""

    name: str
    type: str
    at: Position
    type_at: Position


class Qualifier(Node, frozen=True):
    """A word after a declaration, with columns for ``upsert``; ``choice-domain`` is one for each key."""

    name: str
    columns: tuple[tuple[str, Position], ...]
    at: Position


class RelationDeclaration(Node, frozen=True):
    """``.decl`` of one relation; a declaration of several names gives one of these for each."""

    name: str
    columns: tuple[ColumnDeclaration, ...]
    qualifiers: tuple[Qualifier, ...]
    at: Position


class Directive(Node, frozen=True):
    """``.input``, ``.output``, ``.printsize`` or ``.limitsize`` of one relation.

    Parameters matter to batch runs, those of ``.limitsize`` everywhere.
    """

    kind: str
    relation: str
    parameters: tuple[tuple[str, str], ...]
    at: Position


class Clause(Node, frozen=True):
    """A fact (no body) or a rule."""

    heads: tuple[Atom, ...]
    body: Body | None
    text: str
    at: Position


class Subsumption(Node, frozen=True):
    """``a(…) <= a(…) :- …``: rows of a relation that give way to others of it."""

    dominated: Atom
    dominating: Atom
    body: Body
    text: str
    at: Position


class ComponentUse(Node, frozen=True):
    """A component named in order to inherit from it or to instantiate it."""

    name: str
    arguments: tuple[str, ...]
    at: Position


class Component(Node, frozen=True):
    """``.comp``: declarations and clauses that take effect under the name of each instance."""

    name: str
    parameters: tuple[str, ...]
    bases: tuple[ComponentUse, ...]
    overrides: tuple[tuple[str, Position], ...]
    """Inherited relations whose inherited clauses are left out."""
    body: Program
    at: Position


class Instance(Node, frozen=True):
    """``.init``: a component under a name."""

    name: str
    component: ComponentUse
    at: Position


class Program(Node, frozen=True):
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
    frozen: Position | None = None
    """Where it says that all is worked out once, from what there is when it is registered."""

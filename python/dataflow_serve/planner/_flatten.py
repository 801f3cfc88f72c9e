"""A conjunction cut into the pieces that joins are made of.

Variables that equal a constant or another variable disappear; a term as an argument becomes a variable that
an equation defines; terms are cut where they are deeper than the plan document should be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from dataflow_serve.language import Kind
from dataflow_serve.language.checked import (
    AggregateLiteral,
    Any,
    Argument,
    AtomLiteral,
    Call,
    Const,
    Filter,
    Literal,
    RangeLiteral,
    Term,
    Var,
    variables_of,
)

__all__ = ["MAX_DEPTH", "Equation", "FlatAtom", "Flattened", "flatten"]

MAX_DEPTH = 12
"""Calls in one another within an expression of a plan; what reads plans limits how deep documents go."""


class FlatAtom(Struct, frozen=True):
    """An atom whose arguments are variables, constants or None for any value."""

    relation: str
    args: tuple[Var | Const | None, ...]

    @property
    def names(self) -> set[str]:
        """The variables."""
        return {arg.name for arg in self.args if isinstance(arg, Var)}


class Equation(Struct, frozen=True):
    """Two terms with equal values; where one is an unbound variable, the other defines it."""

    left: Term
    right: Term
    over: Kind
    names: frozenset[str]

    def sides(self) -> tuple[tuple[Term, Term], ...]:
        """Both readings."""
        return ((self.left, self.right), (self.right, self.left))


class Flattened(Struct):
    """The pieces of a conjunction."""

    atoms: list[FlatAtom] = field(default_factory=list)
    negated: list[FlatAtom] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)
    filters: list[tuple[Term, frozenset[str]]] = field(default_factory=list)
    aggregates: list[AggregateLiteral] = field(default_factory=list)
    ranges: list[RangeLiteral] = field(default_factory=list)
    wanted: list[Term] = field(default_factory=list)
    """What the conjunction is asked for, in terms of the variables that are left."""


def flatten(literals: Iterable[Literal], wanted: Sequence[Term], fixed: Iterable[str]) -> Flattened:
    """Cut a conjunction.

    Args:
        literals: The conjunction.
        wanted: Terms that are asked of it.
        fixed: Variables that are bound outside and must stay themselves.
    """
    literals = list(literals)
    kept = set(fixed)
    kept.update(
        literal.result.name for literal in literals if isinstance(literal, AggregateLiteral | RangeLiteral)
    )
    return _Flattening(kept).run(literals, wanted)


class _Flattening:
    def __init__(self, kept: set[str]) -> None:
        self._kept = kept
        self._values: dict[str, Term] = {}
        self._found = Flattened()
        self._count = 0

    def run(self, literals: list[Literal], wanted: Sequence[Term]) -> Flattened:
        rest = [literal for literal in literals if not self._substitutes(literal)]
        for literal in rest:
            if isinstance(literal, AtomLiteral):
                atom = FlatAtom(literal.relation, tuple(map(self._argument, literal.args)))
                (self._found.negated if literal.negated else self._found.atoms).append(atom)
            elif isinstance(literal, AggregateLiteral):
                self._found.aggregates.append(self._aggregate(literal))
            elif isinstance(literal, RangeLiteral):
                self._found.ranges.append(self._range(literal, self._shallow))
            else:
                self._condition(self._term(literal.condition))
        self._found.wanted = [self._shallow(self._term(term)) for term in wanted]
        return self._found

    # Substitution

    def _substitutes(self, literal: Literal) -> bool:
        """Take an equality of a variable with a constant or a variable as a definition."""
        if not isinstance(literal, Filter) or not isinstance(literal.condition, Call):
            return False
        call = literal.condition
        if call.func != "eq":
            return False
        left, right = (self._value(arg) for arg in call.args)
        for one, other in ((left, right), (right, left)):
            if isinstance(one, Var) and one.name not in self._kept and isinstance(other, Var | Const):
                if other != one:
                    self._values[one.name] = other
                return True
        return False

    def _value(self, term: Term) -> Term:
        """What a variable was replaced by."""
        while isinstance(term, Var) and term.name in self._values:
            term = self._values[term.name]
        return term

    def _term(self, term: Term) -> Term:
        if isinstance(term, Call):
            return replace(term, args=tuple(map(self._term, term.args)))
        return self._value(term)

    def _literal(self, literal: Literal) -> Literal:
        if isinstance(literal, AtomLiteral):
            args = tuple(arg if isinstance(arg, Any) else self._term(arg) for arg in literal.args)
            return replace(literal, args=args)
        if isinstance(literal, Filter):
            return replace(literal, condition=self._term(literal.condition))
        if isinstance(literal, RangeLiteral):
            return self._range(literal, lambda term: term)
        return self._aggregate(literal)

    def _range(self, literal: RangeLiteral, shape: Callable[[Term], Term]) -> RangeLiteral:
        return replace(
            literal,
            start=shape(self._term(literal.start)),
            stop=shape(self._term(literal.stop)),
            step=None if literal.step is None else shape(self._term(literal.step)),
        )

    def _aggregate(self, literal: AggregateLiteral) -> AggregateLiteral:
        """The aggregate with its outer variables replaced; what is a constant now isn't outer any more."""
        outer = {value.name: value for value in map(self._value, literal.outer) if isinstance(value, Var)}
        return replace(
            literal,
            target=None if literal.target is None else self._term(literal.target),
            alternatives=tuple(tuple(map(self._literal, body)) for body in literal.alternatives),
            outer=tuple(outer[name] for name in sorted(outer)),
        )

    # Pieces

    def _argument(self, arg: Argument) -> Var | Const | None:
        if isinstance(arg, Any):
            return None
        term = self._term(arg)
        return self._name(term) if isinstance(term, Call) else term

    def _name(self, term: Term) -> Var:
        """A variable that is equal to ``term``."""
        self._count += 1
        variable = Var(f"'{self._count}", term.type)
        self._equation(variable, self._shallow(term), term.type)
        return variable

    def _condition(self, condition: Term) -> None:
        if isinstance(condition, Const) and condition.value is True:
            return
        if isinstance(condition, Call) and condition.func == "eq":
            left, right = (self._shallow(arg) for arg in condition.args)
            self._equation(left, right, condition.over)
        else:
            condition = self._shallow(condition)
            self._found.filters.append((condition, frozenset(variables_of(condition))))

    def _equation(self, left: Term, right: Term, over: Kind) -> None:
        names = variables_of(left) | variables_of(right)
        self._found.equations.append(Equation(left, right, over, frozenset(names)))

    def _shallow(self, term: Term) -> Term:
        return self._cut(term)[0]

    def _cut(self, term: Term) -> tuple[Term, int]:
        """``term`` with its deepest parts named, so that it isn't too deep, and how deep it is then."""
        if not isinstance(term, Call):
            return term, 0
        args: list[Term] = []
        deepest = 0
        for arg in term.args:
            cut, depth = self._cut(arg)
            if depth >= MAX_DEPTH:
                cut, depth = self._name(cut), 0
            args.append(cut)
            deepest = max(deepest, depth)
        return replace(term, args=tuple(args)), deepest + 1

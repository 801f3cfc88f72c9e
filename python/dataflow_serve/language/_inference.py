"""Types of variables and terms, found from columns, functors and literals."""

from __future__ import annotations

from collections.abc import Sequence

from dataflow_serve.errors import IncorrectError
from dataflow_serve.language import ast
from dataflow_serve.language._cursor import Where
from dataflow_serve.language._declarations import Names
from dataflow_serve.language._functions import (
    COMPARISONS,
    NUMERIC,
    Function,
    function_of,
)
from dataflow_serve.language._scopes import Flat, alternatives, display_name
from dataflow_serve.language._types import Column, Type

__all__ = ["Inference"]

_TYPES = tuple(Type)
_BIT = {kind: 1 << place for place, kind in enumerate(_TYPES)}


def _mask(kinds: frozenset[Type]) -> int:
    return sum(_BIT[kind] for kind in kinds)


_ALL = _mask(frozenset(Type))
_NUMERIC = _mask(NUMERIC)
_NEGATIVE = _BIT[Type.NUMBER] | _BIT[Type.FLOAT]
_CONVERTIBLE = _ALL & ~_BIT[Type.BOOL]
_FIRST = [next((kind for kind in _TYPES if mask & _BIT[kind]), Type.NUMBER) for mask in range(_ALL + 1)]
_MASKS: dict[frozenset[Type], int] = {}


class Inference:
    """Types within one alternative of a clause.

    Each variable and each term has a slot: the set of types it can still have, and what narrowed it last,
    for messages. Slots that must agree are united. Where several types remain in the end, the first of
    number, unsigned, float, symbol and bool is taken.
    """

    def __init__(self, names: Names, where: Where) -> None:
        """Nothing known yet; ``where`` quotes the clause."""
        self._names = names
        self._where = where
        self._parents: list[int] = []
        self._masks: list[int] = []
        self._reasons: list[str] = []
        self._variables: dict[str, int] = {}
        self._terms: dict[int, int] = {}  # by identity: the trees outlive the inference

    # What the other rooms ask

    def heads(self, atoms: Sequence[ast.Atom], columns: Sequence[tuple[Column, ...]]) -> None:
        """Take in what the heads say."""
        for atom, declared in zip(atoms, columns, strict=True):
            self._atom(atom, declared)

    def literals(self, literals: Sequence[Flat]) -> None:
        """Take in what a conjunction says."""
        for literal in literals:
            match literal:
                case ast.Atom():
                    self._atom(literal, self._names.use(literal, self._where))
                case ast.Negation(ast.Atom() as atom):
                    self._atom(atom, self._names.use(atom, self._where))
                case ast.Compare():
                    self._compare(literal)

    def type_of(self, term: ast.Term) -> Type:
        """The type of a variable or term taken in before."""
        slot = self._variables[term.name] if isinstance(term, ast.Variable) else self._terms[id(term)]
        return self._decide(slot)

    def over(self, term: ast.Apply | ast.Compare) -> Type:
        """The type that a functor or comparison is taken over."""
        return self._decide(self._terms[-id(term)])

    # Literals

    def _atom(self, atom: ast.Atom, columns: tuple[Column, ...]) -> None:
        for arg, column in zip(atom.args, columns, strict=True):
            slot = self._wildcard(arg) if isinstance(arg, ast.Wildcard) else self._term(arg)
            reason = f'by column "{column.name}" of "{atom.relation}"'
            self._narrow(slot, _BIT[column.type], reason, arg)

    def _compare(self, compare: ast.Compare) -> None:
        function = COMPARISONS[compare.op]
        if compare.op == "=":
            for one, other in ((compare.left, compare.right), (compare.right, compare.left)):
                if isinstance(one, ast.Wildcard) and isinstance(other, ast.Aggregate):
                    self._term(other)
                    return
        over = self._function_slot(function, compare, f'by "{compare.op}"')
        for term in (compare.left, compare.right):
            self._unite(over, self._term(term), term)

    # Terms

    def _term(self, term: ast.Term) -> int:
        if isinstance(term, ast.Variable):
            slot = self._variables.get(term.name)
            if slot is None:
                slot = self._variables[term.name] = self._slot(_ALL, "nothing")
            return slot
        known = self._terms.get(id(term))
        if known is not None:
            return known
        slot = self._new_term(term)
        self._terms[id(term)] = slot
        return slot

    def _new_term(self, term: ast.Term) -> int:
        match term:
            case ast.NumberLiteral(value, unsigned):
                if unsigned:
                    return self._slot(_BIT[Type.UNSIGNED], "as written")
                return self._slot(_NUMERIC if value >= 0 else _NEGATIVE, "as written")
            case ast.FloatLiteral():
                return self._slot(_BIT[Type.FLOAT], "as written")
            case ast.TextLiteral():
                return self._slot(_BIT[Type.SYMBOL], "as written")
            case ast.TruthLiteral():
                return self._slot(_BIT[Type.BOOL], "as written")
            case ast.Apply():
                return self._apply(term)
            case ast.Cast(inner, name):
                kind = self._names.type(name, term.at)
                slot = self._term(inner)
                if not isinstance(inner, ast.Variable | ast.Aggregate | ast.Apply):
                    self._narrow(slot, _BIT[kind], f"by the cast to {name}", inner)
                return self._slot(_BIT[kind], f"by the cast to {name}")
            case ast.Aggregate():
                return self._aggregate(term)
            case _:
                raise IncorrectError(
                    f'"_" inside a term{self._where}', "Name the variable and bind it by an atom.", *term.at
                )

    def _apply(self, term: ast.Apply) -> int:
        function = function_of(term.functor)
        shown = "-" if term.functor == "neg" else term.functor
        count = len(term.args)
        if count < function.least or (function.most is not None and count > function.most):
            wanted = f"{function.least}" if function.most else f"at least {function.least}"
            if function.most is not None and function.most > function.least:
                wanted += f" or {function.most}"
            raise IncorrectError(
                f'"{shown}" of {count} term{"" if count == 1 else "s"}{self._where}',
                f"It takes {wanted}.",
                *term.at,
            )
        over = self._function_slot(function, term, f'by "{shown}"')
        for place, arg in enumerate(term.args):
            fixed = function.args[place] if place < len(function.args) else None
            if fixed is not None:
                self._narrow(self._term(arg), _BIT[fixed], f'by "{shown}"', arg)
            else:
                self._unite(over, self._term(arg), arg)
        return over if function.result is None else self._slot(_BIT[function.result], f'by "{shown}"')

    def _function_slot(self, function: Function, term: ast.Apply | ast.Compare, reason: str) -> int:
        mask = _MASKS.get(function.domain)
        if mask is None:
            mask = _MASKS[function.domain] = _mask(function.domain)
        slot = self._slot(mask, reason)
        self._terms[-id(term)] = slot
        return slot

    def _aggregate(self, term: ast.Aggregate) -> int:
        for literals in alternatives(term.body):
            self.literals(literals)
        if term.target is None:
            return self._slot(_BIT[Type.NUMBER], f'by "{term.func}"')
        target = self._term(term.target)
        if term.func not in ("min", "max"):
            self._narrow(target, _NUMERIC, f'by "{term.func}"', term.target)
        return target if term.func != "mean" else self._slot(_BIT[Type.FLOAT], 'by "mean"')

    def _wildcard(self, term: ast.Wildcard) -> int:
        slot = self._terms[id(term)] = self._slot(_ALL, "nothing")
        return slot

    # Slots

    def _slot(self, mask: int, reason: str) -> int:
        self._parents.append(len(self._parents))
        self._masks.append(mask)
        self._reasons.append(reason)
        return len(self._parents) - 1

    def _find(self, slot: int) -> int:
        parents = self._parents
        while parents[slot] != slot:
            parents[slot] = parents[parents[slot]]
            slot = parents[slot]
        return slot

    def _narrow(self, slot: int, mask: int, reason: str, term: ast.Term) -> None:
        slot = self._find(slot)
        before = self._masks[slot]
        remaining = before & mask
        if not remaining:
            raise self._clash(term, before, self._reasons[slot], mask, reason)
        if remaining != before:
            self._masks[slot] = remaining
            self._reasons[slot] = reason

    def _unite(self, over: int, slot: int, term: ast.Term) -> None:
        over, slot = self._find(over), self._find(slot)
        if over == slot:
            return
        mine, others = self._masks[slot], self._masks[over]
        remaining = mine & others
        if not remaining:
            raise self._clash(term, mine, self._reasons[slot], others, self._reasons[over])
        self._parents[slot] = over
        if remaining != others:
            self._masks[over] = remaining
            self._reasons[over] = self._reasons[slot]

    def _decide(self, slot: int) -> Type:
        return _FIRST[self._masks[self._find(slot)]]

    def _clash(
        self, term: ast.Term, one: int, one_reason: str, other: int, other_reason: str
    ) -> IncorrectError:
        hint = None
        if one & _CONVERTIBLE and other & _CONVERTIBLE:
            hint = "Convert one of them with to_number, to_unsigned, to_float or to_string."
        return IncorrectError(
            f"type clash at {_shown(term)}: {_kinds(one)} {one_reason}, "
            f"{_kinds(other)} {other_reason}{self._where}",
            hint,
            *term.at,
        )


def _kinds(mask: int) -> str:
    kinds = [kind.value for kind in _TYPES if mask & _BIT[kind]]
    return kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"


def _shown(term: ast.Term) -> str:
    match term:
        case ast.Variable(name):
            return f'"{display_name(name)}"'
        case ast.TextLiteral(value):
            return f'the text "{value}"'
        case ast.NumberLiteral(value):
            return f"the literal {value}"
        case ast.FloatLiteral(value):
            return f"the literal {value}"
        case ast.TruthLiteral(value):
            return f"the literal {str(value).lower()}"
        case ast.Apply(functor):
            return f'the result of "{"-" if functor == "neg" else functor}"'
        case ast.Aggregate(func):
            return f"the {func}"
        case _:
            return "the cast"

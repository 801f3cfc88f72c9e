"""Types of variables and terms, found from columns, functors and literals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dataflow_serve.errors import IncorrectError
from dataflow_serve.language import ast
from dataflow_serve.language._composites import identify
from dataflow_serve.language._cursor import Where
from dataflow_serve.language._declarations import Names
from dataflow_serve.language._functions import (
    AGGREGATES,
    COMPARISONS,
    INSTANTS,
    NUMERIC,
    Function,
    function_of,
)
from dataflow_serve.language._habits import TRUTHS
from dataflow_serve.language._patterns import is_construct
from dataflow_serve.language._scopes import Flat, alternatives, display_name
from dataflow_serve.language._types import Branch, Column, Composite, Kind, Type

__all__ = ["Inference"]

_TYPES = tuple(Type)
_BIT = {kind: 1 << place for place, kind in enumerate(_TYPES)}


def _mask(kinds: frozenset[Type]) -> int:
    return sum(_BIT[kind] for kind in kinds)


_ALL = _mask(frozenset(Type))
_NUMERIC = _mask(NUMERIC)
_INSTANT = _BIT[Type.INSTANT]
_ANY = -1
"""Every type, those that programs define included."""
_COMPOSITE = ~_ALL
_NEGATIVE = _BIT[Type.NUMBER] | _BIT[Type.FLOAT]
_CONVERTIBLE = _mask(frozenset({Type.NUMBER, Type.UNSIGNED, Type.FLOAT, Type.SYMBOL}))
_FIRST = [next((kind for kind in _TYPES if mask & _BIT[kind]), Type.NUMBER) for mask in range(_ALL + 1)]
_MASKS: dict[frozenset[Type], int] = {}


class _Sum(NamedTuple):
    """A sum or difference that may be one of instants."""

    term: ast.Apply
    left: int
    right: int
    result: int


class _Construct(NamedTuple):
    """A record, a branch of an algebraic type or ``nil``, whose type its context tells."""

    term: ast.Apply
    result: int


class Inference:
    """Types within one alternative of a clause.

    Each variable and each term has a slot: the set of types it can still have, and what narrowed it last,
    for messages. Slots that must agree are united. Sums and differences whose terms may be instants wait
    until the rest of the clause has said what it has to say. Where several types remain in the end, the first
    of number, unsigned, float, symbol and so on is taken.
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
        self._sums: list[_Sum] = []
        self._constructs: list[_Construct] = []
        self._composites: list[Composite] = []
        """Those met so far; the bit of each stands above those of the other types."""
        self._of_instants: dict[int, Function] = {}
        self._look_like_truth: list[ast.Variable] = []

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

    def settle(self) -> None:
        """Decide what is open once everything has been taken in."""
        while self._sums or self._constructs:
            sums = [one for one in self._sums if not self._decided(one)]
            constructs = [one for one in self._constructs if not self._known(one)]
            if len(sums) == len(self._sums) and len(constructs) == len(self._constructs):
                # Nothing says more about any of them.
                if constructs:
                    self._guess()
                else:
                    self._sum_of_numbers(sums.pop(0))
            self._sums, self._constructs = sums, constructs
        for variable in self._look_like_truth:
            if self.type_of(variable) is Type.BOOL:
                raise IncorrectError(
                    f'the variable "{display_name(variable.name)}" as a bool{self._where}',
                    f"The value is written {TRUTHS[display_name(variable.name)]}.",
                    *variable.at,
                )

    def function(self, term: ast.Apply) -> Function:
        """What the functor of a term means over its type."""
        return self._of_instants.get(id(term)) or function_of(term.functor)

    def composite(self, term: ast.Term) -> tuple[Composite, int]:
        """The type of a record or a branch, and which branch it is."""
        kind = self.type_of(term)
        assert isinstance(kind, Composite) and isinstance(term, ast.Apply)
        name = term.functor[1:] if term.functor.startswith("$") else None
        return kind, next(place for place, branch in enumerate(kind.branches) if branch.name == name)

    def type_of(self, term: ast.Term) -> Kind:
        """The type of a variable or term taken in before."""
        slot = self._variables[term.name] if isinstance(term, ast.Variable) else self._terms[id(term)]
        return self._decide(slot)

    def over(self, term: ast.Apply | ast.Compare) -> Kind:
        """The type that a functor or comparison is taken over."""
        return self._decide(self._terms[-id(term)])

    # Literals

    def _atom(self, atom: ast.Atom, columns: tuple[Column, ...]) -> None:
        for arg, column in zip(atom.args, columns, strict=True):
            slot = self._wildcard(arg) if isinstance(arg, ast.Wildcard) else self._term(arg)
            reason = f'by column "{column.name}" of "{atom.relation}"'
            self._narrow(slot, self._bit(column.type), reason, arg)

    def _compare(self, compare: ast.Compare) -> None:
        function = COMPARISONS[compare.op]
        if compare.op == "=":
            for one, other in ((compare.left, compare.right), (compare.right, compare.left)):
                if isinstance(one, ast.Wildcard) and not isinstance(other, ast.Wildcard):
                    self._term(other)
                    return
        over = self._function_slot(function, compare, f'by "{compare.op}"')
        if compare.op in ("=", "!="):
            self._masks[over] = _ANY
        for term in (compare.left, compare.right):
            self._unite(over, self._term(term), term)

    # Terms

    def _term(self, term: ast.Term) -> int:
        if isinstance(term, ast.Variable):
            slot = self._variables.get(term.name)
            if slot is None:
                slot = self._variables[term.name] = self._slot(_ANY, "nothing")
                if display_name(term.name) in TRUTHS:
                    self._look_like_truth.append(term)
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
                    self._narrow(slot, self._bit(kind), f"by the cast to {name}", inner)
                return self._slot(self._bit(kind), f"by the cast to {name}")
            case ast.Aggregate():
                return self._aggregate(term)
            case _:
                raise IncorrectError(
                    f'"_" inside a term{self._where}', "Name the variable and bind it by an atom.", *term.at
                )

    def _apply(self, term: ast.Apply) -> int:
        if term.functor == "nil" or is_construct(term):
            return self._construct(term)
        function = function_of(term.functor)
        shown = "-" if term.functor == "neg" else term.functor
        count = len(term.args)
        if count < function.least or (function.most is not None and count > function.most):
            wanted = f"{function.least}" if function.most else f"at least {function.least}"
            if function.most is not None and function.most > function.least:
                wanted += f" or {function.most}"
            hint = f"It takes {wanted}."
            if shown in AGGREGATES:
                hint += (
                    f" Of many rows it is written {shown} x : {{ … }}; in a recursion a subsumption keeps "
                    f"it, as in r(x) <= r(y) :- y {'<' if shown == 'min' else '>'} x."
                )
            raise IncorrectError(
                f'"{shown}" of {count} term{"" if count == 1 else "s"}{self._where}', hint, *term.at
            )
        if term.functor in INSTANTS:
            left, right = map(self._term, term.args)
            if self._mask_of(left) & _INSTANT and self._mask_of(right) & (_INSTANT | _BIT[Type.NUMBER]):
                result = self._slot(_mask(function.domain) | _INSTANT, f'by "{shown}"')
                self._sums.append(_Sum(term, left, right, result))
                return result
        over = self._function_slot(function, term, f'by "{shown}"')
        for place, arg in enumerate(term.args):
            fixed = function.args[place] if place < len(function.args) else None
            if fixed is not None:
                self._narrow(self._term(arg), _BIT[fixed], f'by "{shown}"', arg)
            else:
                self._unite(over, self._term(arg), arg)
        return over if function.result is None else self._slot(_BIT[function.result], f'by "{shown}"')

    def _construct(self, term: ast.Apply) -> int:
        for arg in term.args:
            if isinstance(arg, ast.Wildcard):
                self._wildcard(arg)
            else:
                self._term(arg)
        result = self._slot(_COMPOSITE, "as written")
        self._constructs.append(_Construct(term, result))
        return result

    def _known(self, one: _Construct) -> bool:
        """Whether the type of a record is known by now; if so, its fields have theirs from now on."""
        mask = self._mask_of(one.result)
        if mask < 0:
            return False
        kind = self._composites[mask.bit_length() - 1 - len(_TYPES)]
        branch = self._branch(one.term, kind)
        for arg, slot, field in zip(one.term.args, self._slots_of(one.term), branch.fields, strict=True):
            self._narrow(slot, self._bit(field.type), f'by field "{field.name}" of {kind}', arg)
        return True

    def _branch(self, term: ast.Apply, kind: Composite) -> Branch:
        """The branch of a type that a term is written as."""
        declared = f"It is declared as {' | '.join(map(str, kind.branches))}."
        if term.functor == "nil":
            if kind.record is None:
                raise IncorrectError(f'nil for the algebraic type "{kind}"{self._where}', declared, *term.at)
            return Branch(None, ())
        name = term.functor[1:] if term.functor.startswith("$") else None
        branch = next((branch for branch in kind.branches if branch.name == name), None)
        if branch is None:
            what = f'branch "{name}"' if name is not None else "a record"
            raise IncorrectError(f'{what} for the type "{kind}"{self._where}', declared, *term.at)
        if len(branch.fields) != len(term.args):
            raise IncorrectError(
                f'{_fields(len(term.args))} where "{kind if name is None else name}" has '
                f"{len(branch.fields)}{self._where}",
                declared,
                *term.at,
            )
        return branch

    def _guess(self) -> None:
        """Decide of which types records are that nothing else tells anything about."""
        self._equate_fields()
        still_open = {self._find(one.result) for one in self._constructs}
        decided = False
        for one in self._constructs:
            # What a record holds is decided before it.
            if one.term.functor == "[]" and still_open.isdisjoint(map(self._find, self._slots_of(one.term))):
                self._anonymous(one)
                decided = True
        if decided:
            return
        named = next((one for one in self._constructs if one.term.functor != "[]"), None)
        if named is None:
            raise IncorrectError(
                f"a record that holds itself{self._where}", "No record can.", *self._constructs[0].term.at
            )
        self._only_type(named)

    def _equate_fields(self) -> None:
        """Unite the fields of records that equal one another."""
        count, before = len(self._constructs), -1
        while count != before:
            firsts: dict[int, ast.Apply] = {}
            for one in self._constructs:
                if one.term.functor == "[]":
                    first = firsts.setdefault(self._find(one.result), one.term)
                    if first is not one.term:
                        self._unite_fields(first, one.term)
            # Fields that became one may be records, too.
            before, count = count, len({self._find(one.result) for one in self._constructs})

    def _unite_fields(self, one: ast.Apply, other: ast.Apply) -> None:
        if len(one.args) != len(other.args):
            raise IncorrectError(
                f"{_fields(len(other.args))} in a record that has to equal one of "
                f"{_fields(len(one.args))}{self._where}",
                "Records of different lengths are of different types.",
                *other.at,
            )
        for mine, slot, arg in zip(self._slots_of(one), self._slots_of(other), other.args, strict=True):
            self._unite(mine, slot, arg)

    def _slots_of(self, term: ast.Apply) -> list[int]:
        return [
            self._terms[id(arg)] if isinstance(arg, ast.Wildcard) else self._term(arg) for arg in term.args
        ]

    def _anonymous(self, one: _Construct) -> None:
        """Give a record a type that no program declares: its fields', in their order."""
        kinds = [self._decide(slot) for slot in self._slots_of(one.term)]
        kind = Composite(f"[{', '.join(map(str, kinds))}]")
        kind.branches = (
            Branch(None, tuple(Column(str(place), each) for place, each in enumerate(kinds, 1))),
        )
        identify([kind])
        self._narrow(one.result, self._bit(kind), "as written", one.term)

    def _only_type(self, one: _Construct) -> None:
        """The only type of the program that a branch can be of."""
        name = one.term.functor[1:]
        able = [
            kind
            for kind in self._names.composites()
            for branch in kind.branches
            if branch.name == name and self._can_hold(branch, one.term)
        ]
        if one.term.functor == "nil" or len(able) != 1:
            raise IncorrectError(
                f'nothing says of which type "{one.term.functor}" is{self._where}',
                "Use it where a column has the type, or declare a type with such a branch.",
                *one.term.at,
            )
        self._narrow(one.result, self._bit(able[0]), "as the only such type", one.term)

    def _can_hold(self, branch: Branch, term: ast.Apply) -> bool:
        slots = self._slots_of(term)
        return len(slots) == len(branch.fields) and all(
            self._mask_of(slot) & self._bit(field.type)
            for slot, field in zip(slots, branch.fields, strict=True)
        )

    def _bit(self, kind: Kind) -> int:
        if isinstance(kind, Type):
            return _BIT[kind]
        if kind not in self._composites:
            self._composites.append(kind)
        return 1 << (len(_TYPES) + self._composites.index(kind))

    def _decided(self, one: _Sum) -> bool:
        """Whether it is known by now what a sum or difference is of; if so, it is that from now on."""
        left, right, result = map(self._mask_of, (one.left, one.right, one.result))
        domain = _mask(function_of(one.term.functor).domain)
        of_numbers = bool(left & right & result & domain) or not left & _INSTANT
        of_instants = [
            function
            for function in INSTANTS[one.term.functor]
            if left & _INSTANT
            and right & _second(function)
            and result & _BIT[function.result or Type.INSTANT]
        ]
        if of_numbers and of_instants:
            return False
        if not of_instants:
            self._sum_of_numbers(one)
            return True
        if len(of_instants) > 1 and not of_numbers:
            return False
        self._sum_of_instants(one, of_instants[0])
        return True

    def _sum_of_numbers(self, one: _Sum) -> None:
        reason = f'by "{one.term.functor}"'
        over = self._function_slot(function_of(one.term.functor), one.term, reason)
        for slot, arg in (
            (one.left, one.term.args[0]),
            (one.right, one.term.args[1]),
            (one.result, one.term),
        ):
            self._unite(over, slot, arg)

    def _sum_of_instants(self, one: _Sum, function: Function) -> None:
        reason = f'by "{one.term.functor}" of an instant'
        self._narrow(one.left, _INSTANT, reason, one.term.args[0])
        self._narrow(one.right, _second(function), reason, one.term.args[1])
        self._narrow(one.result, _BIT[function.result or Type.INSTANT], reason, one.term)
        self._terms[-id(one.term)] = one.left
        self._of_instants[id(one.term)] = function

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
        mask = _ALL if term.func in ("min", "max") else _NUMERIC
        self._narrow(target, mask, f'by "{term.func}"', term.target)
        return target if term.func != "mean" else self._slot(_BIT[Type.FLOAT], 'by "mean"')

    def _wildcard(self, term: ast.Wildcard) -> int:
        slot = self._terms[id(term)] = self._slot(_ANY, "nothing")
        return slot

    # Slots

    def _slot(self, mask: int, reason: str) -> int:
        self._parents.append(len(self._parents))
        self._masks.append(mask)
        self._reasons.append(reason)
        return len(self._parents) - 1

    def _mask_of(self, slot: int) -> int:
        return self._masks[self._find(slot)]

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

    def _decide(self, slot: int) -> Kind:
        mask = self._masks[self._find(slot)]
        if mask > _ALL:
            return self._composites[(mask & -mask).bit_length() - 1 - len(_TYPES)]
        return _FIRST[mask & _ALL]

    def _kinds(self, mask: int) -> str:
        if mask == _COMPOSITE:
            return "record"
        known: list[Kind] = [*_TYPES, *self._composites]
        kinds = [str(kind) for kind in known if mask & self._bit(kind)]
        return kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"

    def _clash(
        self, term: ast.Term, one: int, one_reason: str, other: int, other_reason: str
    ) -> IncorrectError:
        hint = None
        if (
            one > 0
            and other > 0
            and one & _CONVERTIBLE
            and other & _CONVERTIBLE
            and _INSTANT not in (one, other)
        ):
            hint = "Convert one of them with to_number, to_unsigned, to_float or to_string."
        return IncorrectError(
            f"type clash at {_shown(term)}: {self._kinds(one)} {one_reason}, "
            f"{self._kinds(other)} {other_reason}{self._where}",
            hint,
            *term.at,
        )


def _second(function: Function) -> int:
    """The type of the second term of a sum or difference of an instant."""
    fixed = function.args[1] if function.args else None
    return _BIT[fixed or Type.INSTANT]


def _both_convertible(one: int, other: int) -> bool:
    return bool(one & _CONVERTIBLE and other & _CONVERTIBLE) and _INSTANT not in (one, other)


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count or 'no'} fields"


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
        case ast.Apply("[]"):
            return "the record"
        case ast.Apply(functor) if functor == "nil" or functor.startswith("$"):
            return f'"{functor}"'
        case ast.Apply(functor):
            return f'the result of "{"-" if functor == "neg" else functor}"'
        case ast.Aggregate(func):
            return f"the {func}"
        case _:
            return "the cast"

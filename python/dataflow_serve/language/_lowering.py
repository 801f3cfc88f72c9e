"""Resolved and typed clauses to the checked form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dataflow_serve.errors import IncorrectError, UnsupportedError
from dataflow_serve.language import ast
from dataflow_serve.language._cursor import Where
from dataflow_serve.language._functions import COMPARISONS, LITERALS
from dataflow_serve.language._grounding import records_taken_apart
from dataflow_serve.language._inference import Inference
from dataflow_serve.language._patterns import is_construct, pattern_of
from dataflow_serve.language._scopes import Flat, alternatives, names_in, terms_of
from dataflow_serve.language._types import Composite, Kind, Scalar, Type
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
)

__all__ = ["Lowering", "constant"]

_SPELLED = {"to_instant": "an instant", "to_uuid": "a uuid", "to_bytes": "base64"}
_SPELLING = {
    "to_instant": "Write it as in 2026-11-23T21:00:00Z, with at most six digits of a second's fraction.",
    "to_uuid": "Write it as in 00112233-4455-6677-8899-aabbccddeeff.",
    "to_bytes": "Write bytes in the standard alphabet with padding, as in aGVsbG8=.",
}
_RANGES = {Type.NUMBER: (-(1 << 63), (1 << 63) - 1), Type.UNSIGNED: (0, (1 << 64) - 1)}


def constant(term: ast.Term, kind: Kind, where: Where) -> Scalar | None:
    """The value of a literal in a place of this type; None if it isn't a literal of such a type.

    Raises:
        IncorrectError: it is beyond the type's range.
    """
    match term:
        case ast.NumberLiteral(value, unsigned):
            if kind is Type.FLOAT and not unsigned:
                return float(value)
            if isinstance(kind, Composite) or kind not in _RANGES or (unsigned and kind is not Type.UNSIGNED):
                return None
            least, greatest = _RANGES[kind]
            if not least <= value <= greatest:
                hint = f"Type {kind} goes from {least} to {greatest}."
                raise IncorrectError(f"{value} doesn't fit type {kind}{where}", hint, *term.at)
            return value
        case ast.FloatLiteral(value) if kind is Type.FLOAT:
            return value + 0.0  # one zero only
        case ast.TextLiteral(value) if kind is Type.SYMBOL:
            return value
        case ast.TruthLiteral(value) if kind is Type.BOOL:
            return value
        case _:
            return None


class Lowering:
    """Writes one alternative of a clause in the checked form, once its types are known."""

    def __init__(self, inference: Inference, where: Where) -> None:
        """The types come from ``inference``; ``where`` quotes the clause."""
        self._inference = inference
        self._where = where
        self._count = 0

    def body(self, literals: Sequence[Flat], visible: frozenset[str] = frozenset()) -> list[Literal]:
        """The literals; those for aggregates and ranges stand before the literal in which they occur.

        Args:
            literals: A resolved conjunction.
            visible: Variables bound outside of it.
        """
        level = set(visible)
        for literal in literals:
            for term in terms_of(literal):
                names_in(term, level)
        apart = records_taken_apart(literals, set(visible))
        lowered: list[Literal] = []
        for literal in literals:
            match literal:
                case ast.Atom() as atom:
                    lowered.append(self._atom(atom, False, lowered, level))
                case ast.Negation(ast.Atom() as atom):
                    lowered.append(self._atom(atom, True, lowered, level))
                case ast.Compare() if id(literal) in apart:
                    self._take_apart(literal, lowered, level)
                case ast.Compare():
                    self._compare(literal, lowered, level)
                case ast.Constant(value, at):
                    lowered.append(Filter(Const(value, Type.BOOL), at))
        return lowered

    def term(self, term: ast.Term, into: list[Literal], level: set[str]) -> Term:
        """A term; its aggregates and ranges become literals and go ``into``."""
        match term:
            case ast.Variable(name):
                return Var(name, self._inference.type_of(term))
            case ast.Apply(functor, args) if functor == "nil" or is_construct(term):
                return self._construct(term, [self.term(arg, into, level) for arg in args])
            case ast.Apply(functor, args):
                lowered_args = [self.term(arg, into, level) for arg in args]
                if functor == "range":
                    return self._range(term, lowered_args, into)
                return self._apply(term, functor, lowered_args)
            case ast.Cast(inner, name):
                lowered = self.term(inner, into, level)
                kind = self._inference.type_of(term)
                if lowered.type is not kind and lowered.type != kind:
                    raise UnsupportedError(
                        f"a cast of a {lowered.type} to {name}{self._where}",
                        None
                        if isinstance(kind, Composite)
                        else f"Convert the value with to_{'string' if kind is Type.SYMBOL else kind.value}.",
                        *term.at,
                    )
                return lowered
            case ast.Aggregate():
                return self._aggregate(term, into, level)
            case ast.Wildcard(at):
                raise IncorrectError(
                    f'"_" in a record that has to be made{self._where}',
                    "It can stand in a record that an atom, which isn't negated, has a value for.",
                    *at,
                )
            case _:
                kind = self._inference.type_of(term)
                value = constant(term, kind, self._where)
                assert value is not None
                return Const(value, kind)

    def _construct(self, term: ast.Term, args: list[Term]) -> Term:
        if isinstance(term, ast.Apply) and term.functor == "nil":
            kind = self._inference.type_of(term)
            return Call("nil", kind, (), kind, False)
        kind, branch = self._inference.composite(term)
        return Call("pack", kind, (Const(branch, Type.UNSIGNED), *args), kind, True)

    def _take_apart(self, compare: ast.Compare, into: list[Literal], level: set[str]) -> None:
        """An equality of a variable that has a value with a record whose fields it gives values."""
        pattern = pattern_of(compare)
        assert pattern is not None
        variable, record = pattern
        kind, branch = self._inference.composite(record)
        whole = self.term(variable, into, level)
        which = Const(branch, Type.UNSIGNED)
        into.append(Filter(Call("is", kind, (whole, which), Type.BOOL, False), compare.at))
        for place, (arg, field) in enumerate(zip(record.args, kind.branches[branch].fields, strict=True)):
            if isinstance(arg, ast.Wildcard):
                continue
            part = Call("unpack", kind, (whole, which, Const(place, Type.UNSIGNED)), field.type, False)
            equal = Call("eq", field.type, (self.term(arg, into, level), part), Type.BOOL, False)
            into.append(Filter(equal, compare.at))

    def _atom(self, atom: ast.Atom, negated: bool, into: list[Literal], level: set[str]) -> AtomLiteral:
        args: list[Argument] = [
            Any(self._inference.type_of(arg))
            if isinstance(arg, ast.Wildcard)
            else self.term(arg, into, level)
            for arg in atom.args
        ]
        return AtomLiteral(atom.relation, tuple(args), negated, atom.at)

    def _compare(self, compare: ast.Compare, into: list[Literal], level: set[str]) -> None:
        sides = (compare.left, compare.right)
        if any(isinstance(side, ast.Wildcard) for side in sides):
            # Only `_ = term` gets here: the term must have a value, whichever.
            for side in sides:
                if not isinstance(side, ast.Wildcard):
                    value = self.term(side, into, level)
                    if isinstance(value, Call):
                        into.append(
                            Filter(Call("eq", value.type, (value, value), Type.BOOL, False), compare.at)
                        )
            return
        left, right = (self.term(side, into, level) for side in sides)
        function = COMPARISONS[compare.op]
        call = Call(function.plan, self._inference.over(compare), (left, right), Type.BOOL, function.fallible)
        if compare.negated:
            call = Call("not", Type.BOOL, (call,), Type.BOOL, False)
        into.append(Filter(call, compare.at))

    def _apply(self, term: ast.Apply, functor: str, args: list[Term]) -> Term:
        function = self._inference.function(term)
        over = self._inference.over(term)
        if functor in LITERALS and isinstance(term.args[0], ast.TextLiteral):
            self._check_literal(term.args[0], function.plan, LITERALS[functor])
        kind = function.result or over
        if function.result is over and function.plan.startswith("to_"):
            return args[0]
        plan = "cat" if function.plan == "add" and over is Type.SYMBOL else function.plan
        fallible = function.fallible and not (
            plan == "add" or (over is Type.FLOAT and plan in ("div", "pow", "to_float"))
        )
        return Call(plan, over, tuple(args), kind, fallible)

    def _range(self, term: ast.Apply, bounds: list[Term], into: list[Literal]) -> Var:
        self._count += 1
        result = Var(f"range'={self._count}", self._inference.type_of(term))
        step = bounds[2] if len(bounds) > 2 else None
        into.append(RangeLiteral(result, bounds[0], bounds[1], step, term.at))
        return result

    def _check_literal(self, text: ast.TextLiteral, plan: str, read: Callable[[str], object]) -> None:
        try:
            read(text.value)
        except ValueError:
            raise IncorrectError(
                f'the text "{text.value}" is not {_SPELLED[plan]}{self._where}', _SPELLING[plan], *text.at
            ) from None

    def _aggregate(self, term: ast.Aggregate, into: list[Literal], level: set[str]) -> Var:
        inside: set[str] = set()
        names_in(term, inside, inside=True)
        outer = inside & level
        spread = alternatives(term.body)
        bodies: list[tuple[Literal, ...]] = []
        bound: list[set[str]] = []
        target: Term | None = None
        for literals in spread:
            body = self.body(literals, frozenset(outer))
            bodies.append(tuple(body))
            names: set[str] = set()
            for literal in literals:
                for inner in terms_of(literal):
                    names_in(inner, names)
            bound.append(names - outer)
        shared = self._vars(set.intersection(*bound)) if len(bound) > 1 else ()
        if term.target is not None:
            further: list[Literal] = []
            target = self.term(term.target, further, level | inside)
            bodies = [(*body, *further) for body in bodies]
            if len(bodies) > 1:
                shared += tuple(each.result for each in further if isinstance(each, RangeLiteral))
        self._count += 1
        result = Var(f"{term.func}'={self._count}", self._inference.type_of(term))
        into.append(
            AggregateLiteral(result, term.func, target, tuple(bodies), self._vars(outer), shared, term.at)
        )
        return result

    def _vars(self, names: set[str]) -> tuple[Var, ...]:
        # Positions play no part in the type of a variable.
        nowhere = ast.Position(0, 0)
        return tuple(
            Var(name, self._inference.type_of(ast.Variable(name, nowhere))) for name in sorted(names)
        )

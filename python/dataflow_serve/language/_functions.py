"""The functors, operators and aggregates of the language: names, types, and what the plan calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from dataflow_serve.language._types import Type
from dataflow_serve.values import parse_bytes, parse_instant, parse_uuid

__all__ = [
    "AGGREGATES",
    "COMPARISONS",
    "FUNCTORS",
    "INSTANTS",
    "LITERALS",
    "NUMERIC",
    "OPERATORS",
    "RESERVED",
    "UNARY",
    "Function",
    "Operator",
    "function_of",
]

ANY = frozenset(Type)
NUMERIC = frozenset({Type.NUMBER, Type.UNSIGNED, Type.FLOAT})
COUNTING = ANY - {Type.UUID, Type.BYTES}
"""What there is a number in: as its value, or as its text."""
SIGNED = frozenset({Type.NUMBER, Type.FLOAT})
INTEGRAL = frozenset({Type.NUMBER, Type.UNSIGNED})


class Function(Struct, frozen=True):
    """What a functor takes and gives.

    A functor is taken *over* one type of its ``domain``; arguments without a fixed type are of that type,
    and so is the result unless it is fixed.
    """

    plan: str
    """Its name in the plan."""
    domain: frozenset[Type]
    least: int
    """Least number of arguments."""
    most: int | None
    """Greatest number of arguments; None: any."""
    result: Type | None = None
    args: tuple[Type | None, ...] = ()
    """Types of the first arguments that are fixed whatever the domain."""
    fallible: bool = False
    """Whether it can fail over some type, so that it must be evaluated even where nobody needs its value."""


def _infix(plan: str, domain: frozenset[Type], *, fallible: bool = False) -> Function:
    return Function(plan, domain, 2, 2, fallible=fallible)


def _conversion(plan: str, domain: frozenset[Type], result: Type) -> Function:
    return Function(plan, domain, 1, 1, result=result, fallible=plan != "to_symbol")


FUNCTORS: dict[str, Function] = {
    "min": Function("min", ANY, 2, None),
    "max": Function("max", ANY, 2, None),
    "range": Function("range", NUMERIC, 2, 3),
    "cat": Function("cat", frozenset({Type.SYMBOL}), 2, None, fallible=True),
    "strlen": Function("strlen", frozenset({Type.SYMBOL}), 1, 1, result=Type.NUMBER),
    "substr": Function(
        "substr", frozenset({Type.SYMBOL}), 3, 3, args=(None, Type.NUMBER, Type.NUMBER), fallible=True
    ),
    "to_number": _conversion("to_number", COUNTING, Type.NUMBER),
    "to_unsigned": _conversion("to_unsigned", COUNTING, Type.UNSIGNED),
    "to_float": _conversion("to_float", COUNTING, Type.FLOAT),
    "to_string": _conversion("to_symbol", ANY, Type.SYMBOL),
    "to_instant": _conversion(
        "to_instant", frozenset({Type.NUMBER, Type.SYMBOL, Type.INSTANT}), Type.INSTANT
    ),
    "to_uuid": _conversion("to_uuid", frozenset({Type.SYMBOL, Type.UUID}), Type.UUID),
    "to_bytes": _conversion("to_bytes", frozenset({Type.SYMBOL, Type.UUID, Type.BYTES}), Type.BYTES),
    "itof": _conversion("to_float", frozenset({Type.NUMBER}), Type.FLOAT),
    "itou": _conversion("to_unsigned", frozenset({Type.NUMBER}), Type.UNSIGNED),
    "utoi": _conversion("to_number", frozenset({Type.UNSIGNED}), Type.NUMBER),
    "utof": _conversion("to_float", frozenset({Type.UNSIGNED}), Type.FLOAT),
    "ftoi": _conversion("to_number", frozenset({Type.FLOAT}), Type.NUMBER),
    "ftou": _conversion("to_unsigned", frozenset({Type.FLOAT}), Type.UNSIGNED),
}
"""What is written as a call."""

_OPERATIONS: dict[str, Function] = {
    "neg": Function("neg", SIGNED, 1, 1),
    "bnot": Function("bnot", INTEGRAL, 1, 1),
    "lnot": Function("lnot", INTEGRAL, 1, 1),
    "+": _infix("add", NUMERIC | {Type.SYMBOL}, fallible=True),
    "-": _infix("sub", NUMERIC),
    "*": _infix("mul", NUMERIC),
    "/": _infix("div", NUMERIC, fallible=True),
    "%": _infix("mod", INTEGRAL, fallible=True),
    "^": _infix("pow", NUMERIC, fallible=True),
    **{
        word: _infix(word, INTEGRAL)
        for word in ("band", "bor", "bxor", "bshl", "bshr", "bshru", "land", "lor", "lxor")
    },
}

INSTANTS: dict[str, tuple[Function, ...]] = {
    "+": (Function("instant_add", frozenset({Type.INSTANT}), 2, 2, args=(None, Type.NUMBER), fallible=True),),
    "-": (
        Function("instant_sub", frozenset({Type.INSTANT}), 2, 2, args=(None, Type.NUMBER), fallible=True),
        Function("instant_diff", frozenset({Type.INSTANT}), 2, 2, result=Type.NUMBER),
    ),
}
"""What the signs mean where the first term is an instant."""

LITERALS: dict[str, Callable[[str], object]] = {
    "to_instant": parse_instant,
    "to_uuid": parse_uuid,
    "to_bytes": parse_bytes,
}
"""Functors that, applied to a quoted text, are literals of a type; and what reads the text."""

COMPARISONS: dict[str, Function] = {
    **{
        sign: Function(plan, ANY, 2, 2, result=Type.BOOL)
        for sign, plan in (("=", "eq"), ("!=", "ne"), ("<", "lt"), ("<=", "le"), (">", "gt"), (">=", "ge"))
    },
    "contains": Function("contains", frozenset({Type.SYMBOL}), 2, 2, result=Type.BOOL),
    "match": Function("match", frozenset({Type.SYMBOL}), 2, 2, result=Type.BOOL, fallible=True),
}
"""Constraints."""


class Operator(NamedTuple):
    """How an infix operator binds; a greater strength binds first."""

    strength: int
    right: bool = False


OPERATORS: dict[str, Operator] = {
    "lor": Operator(1),
    "lxor": Operator(2),
    "land": Operator(3),
    "bor": Operator(4),
    "bxor": Operator(5),
    "band": Operator(6),
    "bshl": Operator(7),
    "bshr": Operator(7),
    "bshru": Operator(7),
    "+": Operator(8),
    "-": Operator(8),
    "*": Operator(9),
    "/": Operator(9),
    "%": Operator(9),
    "^": Operator(11, right=True),
}
"""Infix operators; the prefix ones stand between ``*`` and ``^``."""

UNARY: dict[str, str] = {"-": "neg", "bnot": "bnot", "lnot": "lnot"}
"""Prefix operators and the functor each is."""

AGGREGATES = frozenset({"count", "sum", "min", "max", "mean"})

RESERVED = frozenset(
    {
        *FUNCTORS,
        *AGGREGATES,
        *(word for word in OPERATORS if word.isalpha()),
        "bnot",
        "lnot",
        "as",
        "autoinc",
        "contains",
        "false",
        "match",
        "nil",
        "ord",
        "true",
        "_",
    }
)
"""Names that neither a relation nor a variable may have."""


def function_of(functor: str) -> Function:
    """What a name or sign of a term stands for; the parser lets no others through."""
    return FUNCTORS.get(functor) or _OPERATIONS[functor]

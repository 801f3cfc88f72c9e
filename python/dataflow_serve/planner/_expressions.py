"""Expressions over the columns of a row, as the plan has them.

They are tuples, so that they can be compared and hashed: nodes with equal expressions over equal inputs are
shared.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from dataflow_serve.language import Kind, Scalar, Type

__all__ = [
    "Call",
    "Col",
    "Const",
    "Expr",
    "columns_in",
    "depth",
    "expr_json",
    "is_fallible",
    "same",
    "value_json",
]

_FALLIBLE = frozenset(
    {
        "cat",
        "div",
        "mod",
        "pow",
        "substr",
        "to_number",
        "to_unsigned",
        "to_float",
        "to_instant",
        "to_uuid",
        "to_bytes",
        "instant_add",
        "instant_sub",
        "match",
        "pack",
    }
)


class Col(NamedTuple):
    """A column of the row."""

    place: int


class Const(NamedTuple):
    """A constant."""

    type: Kind
    value: Scalar


class Call(NamedTuple):
    """A function of the plan."""

    func: str
    over: Kind
    args: tuple[Expr, ...]


Expr = Col | Const | Call


def same(expr: Expr, over: Kind) -> Call:
    """A condition that holds whenever ``expr`` has a value at all."""
    return Call("eq", over, (expr, expr))


def columns_in(expr: Expr, into: set[int]) -> None:
    """Add the columns that ``expr`` reads."""
    if isinstance(expr, Col):
        into.add(expr.place)
    elif isinstance(expr, Call):
        for arg in expr.args:
            columns_in(arg, into)


def depth(expr: Expr) -> int:
    """How many calls stand in one another."""
    return 1 + max(map(depth, expr.args), default=0) if isinstance(expr, Call) else 0


def is_fallible(expr: Expr) -> bool:
    """Whether the evaluation of ``expr`` can fail."""
    return isinstance(expr, Call) and (
        (expr.func in _FALLIBLE and not (expr.over is Type.FLOAT and expr.func in ("div", "pow", "to_float")))
        or any(map(is_fallible, expr.args))
    )


def value_json(kind: Kind, value: Scalar) -> dict[str, Any]:
    """A typed constant; floats go by their bits, since JSON doesn't have all of them."""
    if kind is Type.FLOAT:
        return {"float": struct.unpack("<Q", struct.pack("<d", value))[0]}
    return {kind.value: value}


def expr_json(expr: Expr) -> dict[str, Any]:
    """The expression as the plan document writes it."""
    if isinstance(expr, Col):
        return {"col": expr.place}
    if isinstance(expr, Const):
        return {"const": value_json(expr.type, expr.value)}
    args = [expr_json(arg) for arg in expr.args]
    return {"call": {"func": expr.func, "over": expr.over.value, "args": args}}

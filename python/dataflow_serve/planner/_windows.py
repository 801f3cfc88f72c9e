"""Conditions on ``now`` as the times between which a row is there.

``at + 3600 * 1000000 > now`` holds from the beginning of time until ``at`` plus an hour: the engine can keep
such a row until its time has come, and needn't look at it before. What is recognised are comparisons in which
``now``, and numbers added to it or taken from it, can be brought to one side. The arithmetic is that of
numbers, as µs since 1970, and exact: a sum with ``now`` outside of the years that instants have fails, which
is a condition on ``now``, too.
"""

from __future__ import annotations

from msgspec import Struct

from dataflow_serve.language import Type
from dataflow_serve.language.checked import Call, Const, Term, Var, variables_of

__all__ = ["Window", "window_of"]

FIRST_INSTANT = -62_135_596_800_000_000
LAST_INSTANT = 253_402_300_799_999_999

FAR = 1 << 59
"""More than lies between any two instants: a longer time means the same, and so sums don't wrap."""

MOST_SUMS = 6
"""Numbers added to ``now`` one after the other, so that sums of sums don't wrap either."""

_FLIPPED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq"}


class Window(Struct, frozen=True):
    """A row is there while each of ``since`` <= now < each of ``until``: terms of type number, in µs."""

    since: tuple[Term, ...]
    until: tuple[Term, ...]
    names: frozenset[str]
    """The variables in them."""


def window_of(condition: Term, now: str) -> Window | None:
    """What ``condition`` says of the variable ``now``, if it can be said so."""
    if not isinstance(condition, Call) or condition.func not in _FLIPPED:
        return None
    left, right = condition.args
    func = condition.func
    if now in variables_of(right):
        left, right, func = right, left, _FLIPPED[func]
    if now in variables_of(right):
        return None
    found: _Sum | None
    if condition.over is Type.INSTANT:
        found, value = _sum(left, now), _micros(right)
    elif condition.over is Type.NUMBER:
        found, value, func = _number(left, right, func, now)
    else:
        return None
    if found is None:
        return None
    bound = _minus(value, found.offsets)
    since, until = list(found.since), list(found.until)
    if func in ("gt", "ge", "eq"):
        since.append(bound if func != "gt" else _plus(bound, _const(1)))
    if func in ("lt", "le", "eq"):
        until.append(bound if func == "lt" else _plus(bound, _const(1)))
    names: set[str] = set()
    for term in (*since, *until):
        variables_of(term, names)
    return Window(tuple(since), tuple(until), frozenset(names))


class _Sum(Struct):
    """``now`` and numbers added to it, and when that has a value."""

    offsets: list[Term]
    since: list[Term]
    until: list[Term]


def _sum(term: Term, now: str) -> _Sum | None:
    """An instant that is ``now`` plus and minus numbers without it."""
    if isinstance(term, Var):
        return _Sum([], [], []) if term.name == now else None
    if not isinstance(term, Call) or term.func not in ("instant_add", "instant_sub"):
        return None
    inner, offset = term.args
    found = None if now in variables_of(offset) else _sum(inner, now)
    if found is None or len(found.offsets) >= MOST_SUMS:
        return None
    offset = _near(offset)
    found.offsets.append(offset if term.func == "instant_add" else _negated(offset))
    found.since.append(_minus(_const(FIRST_INSTANT), found.offsets))
    found.until.append(_minus(_const(LAST_INSTANT + 1), found.offsets))
    return found


def _number(left: Term, right: Term, func: str, now: str) -> tuple[_Sum | None, Term, str]:
    """What a comparison of a number with ``now`` in it says of ``now``: its sum, against what, and how."""
    value = _near(right)
    match left:
        case Call(func="to_number", over=Type.INSTANT, args=(instant,)):
            return _sum(instant, now), value, func
        case Call(func="instant_diff", args=(later, earlier)):
            if now not in variables_of(earlier):
                return _sum(later, now), _plus(_micros(earlier), value), func
            if now not in variables_of(later):
                return _sum(earlier, now), _less(_micros(later), value), _FLIPPED[func]
    return None, value, func


def _const(value: int) -> Const:
    return Const(value, Type.NUMBER)


def _call(func: str, *args: Term) -> Call:
    return Call(func, Type.NUMBER, args, Type.NUMBER, False)


def _micros(instant: Term) -> Term:
    return Call("to_number", Type.INSTANT, (instant,), Type.NUMBER, False)


def _near(number: Term) -> Term:
    """The number, or one that is as far from every instant."""
    if isinstance(number, Const) and isinstance(number.value, int):
        return _const(max(-FAR, min(FAR, number.value)))
    return _call("max", _call("min", number, _const(FAR)), _const(-FAR))


def _negated(number: Term) -> Term:
    if isinstance(number, Const) and isinstance(number.value, int):
        return _const(-number.value)
    return _call("neg", number)


def _plus(left: Term, right: Term) -> Term:
    match left, right:
        case Const(int(one)), Const(int(other)):
            return _const(one + other)
    return _call("add", left, right)


def _less(left: Term, right: Term) -> Term:
    match left, right:
        case Const(int(one)), Const(int(other)):
            return _const(one - other)
    return _call("sub", left, right)


def _minus(value: Term, offsets: list[Term]) -> Term:
    for offset in offsets:
        value = _less(value, offset)
    return value

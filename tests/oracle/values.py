"""The meaning of every function on values, written for clarity alone.

Integers are Python's, cut to 64 bits after each operation; there is one NaN object and one zero, so that
rows can be members of sets. A function that fails raises `Failed`, which drops the row.
"""

from __future__ import annotations

import base64
import datetime
import math
import re
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from dataflow_serve.language import Composite, Kind, Scalar, Type
from dataflow_serve.values import Branch

NAN = float("nan")
"""The only NaN there is."""

Row = tuple[Scalar, ...]


class Failed(Exception):
    """The value doesn't exist, so the derivation fails."""


def number(value: int) -> int:
    """Cut to a signed 64-bit integer."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def unsigned(value: int) -> int:
    """Cut to an unsigned 64-bit integer."""
    return value & ((1 << 64) - 1)


def floating(value: float) -> float:
    """One NaN, one zero."""
    return NAN if math.isnan(value) else value + 0.0


def order(value: Scalar) -> tuple[bool, Any]:
    """A key that orders values of one type; NaN is greater than everything, texts go by their bytes.

    Of records ``nil`` comes first, of an algebraic type the branches by name; then fields, left to right.
    """
    if value is None:
        return (False, ())
    if isinstance(value, Branch):
        return (False, (value.name, *map(order, value.values)))
    if isinstance(value, tuple):
        return (False, tuple(map(order, value)))
    if isinstance(value, float) and math.isnan(value):
        return (True, 0.0)
    return (False, value)


def equal(left: Scalar, right: Scalar) -> bool:
    """Whether two values of one type are the same."""
    return order(left) == order(right)


def apply(func: str, over: Kind, args: Sequence[Scalar]) -> Scalar:
    """A function of the plan.

    Raises:
        Failed: it has no value there.
    """
    if isinstance(over, Composite) and func not in ("eq", "ne"):
        return _record(func, over, args)
    if func in _COMPARISONS:
        left, right = (order(arg) for arg in args)
        return _COMPARISONS[func](left, right)
    if func in ("min", "max"):
        return (min if func == "min" else max)(args, key=order)
    if over is Type.INSTANT and func.startswith("instant_"):
        return _instant(func, args)
    if func in ("and", "or", "not"):
        return {"and": all(args), "or": any(args), "not": not args[0]}[func]
    if func.startswith("to_"):
        return _convert(func, over, args[0])
    if over is Type.SYMBOL:
        return _text(func, args)
    if over is Type.FLOAT:
        return floating(_float(func, *(float(arg) for arg in args)))
    cut = number if over is Type.NUMBER else unsigned
    return cut(_integer(func, over, *(int(arg) for arg in args)))


def _record(func: str, over: Composite, args: Sequence[Scalar]) -> Scalar:
    """What functions of records and algebraic types give: tuples, None for nil, branches."""
    match func, args:
        case "nil", []:
            return None
        case "pack", [int(branch), *fields]:
            made: Scalar = tuple(fields)
            name = over.branches[branch].name
            made = made if name is None else Branch(name, tuple(fields))
            if _extent(made)[0] > 1 << 20 or _extent(made)[1] > 100:
                raise Failed
            return made
        case "is", [value, int(branch)]:
            name = over.branches[branch].name
            return value is not None if name is None else isinstance(value, Branch) and value.name == name
        case "unpack", [value, int(branch), int(field)]:
            if not _record("is", over, (value, branch)):
                raise Failed
            fields_of = value.values if isinstance(value, Branch) else value
            assert isinstance(fields_of, tuple)
            found: Scalar = fields_of[field]
            return found
        case _:
            raise AssertionError(func)


def _extent(value: Scalar) -> tuple[int, int]:
    """Bytes and depth, as the engine counts them."""
    match value:
        case str():
            return (len(value.encode()) if len(value.encode()) > 7 else 0), 0
        case bytes():
            return (len(value) if len(value) > 7 else 0), 0
        case uuid.UUID():
            return 16, 0
        case tuple() | Branch():
            inner = [_extent(each) for each in (value.values if isinstance(value, Branch) else value)]
            return 16 + sum(8 + size for size, _ in inner), 1 + max((depth for _, depth in inner), default=0)
        case _:
            return 0, 0


_COMPARISONS: dict[str, Callable[[tuple[bool, Scalar], tuple[bool, Scalar]], bool]] = {
    "eq": lambda left, right: left == right,
    "ne": lambda left, right: left != right,
    "lt": lambda left, right: left < right,
    "le": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "ge": lambda left, right: left >= right,
}


def _integer(func: str, over: Kind, a: int, b: int = 0) -> int:
    if func in ("div", "mod"):
        if b == 0:
            raise Failed
        quotient = abs(a) // abs(b)
        quotient = quotient if (a < 0) == (b < 0) else -quotient
        return quotient if func == "div" else a - b * quotient
    if func == "pow":
        if b < 0:
            raise Failed
        return pow(a, b, 1 << 64)
    shift = b % 64
    simple: dict[str, Callable[[], int]] = {
        "add": lambda: a + b,
        "sub": lambda: a - b,
        "mul": lambda: a * b,
        "neg": lambda: -a,
        "band": lambda: a & b,
        "bor": lambda: a | b,
        "bxor": lambda: a ^ b,
        "bnot": lambda: ~a,
        "bshl": lambda: a << shift,
        "bshr": lambda: a >> shift,
        "bshru": lambda: unsigned(a) >> shift,
        "land": lambda: int(a != 0 and b != 0),
        "lor": lambda: int(a != 0 or b != 0),
        "lxor": lambda: int((a != 0) != (b != 0)),
        "lnot": lambda: int(a == 0),
    }
    return simple[func]()


def _float(func: str, a: float, b: float = 0.0) -> float:
    match func:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * b
        case "neg":
            return -a
        case "div":
            if b == 0.0:
                return NAN if a == 0.0 or math.isnan(a) else math.copysign(math.inf, a)
            return a / b
        case "pow":
            try:
                return math.pow(a, b)
            except OverflowError:
                return math.inf if a > 0 or b % 2 == 0 else -math.inf
            except ValueError:
                return math.inf if a == 0.0 else NAN
        case _:
            raise AssertionError(func)


EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def micros(moment: Scalar) -> int:
    """Microseconds since 1970."""
    assert isinstance(moment, datetime.datetime)
    return (moment - EPOCH) // datetime.timedelta(microseconds=1)


def instant(count: int) -> datetime.datetime:
    """The instant of so many microseconds since 1970.

    Raises:
        Failed: it is outside of the years 1 to 9999.
    """
    try:
        return EPOCH + datetime.timedelta(microseconds=count)
    except OverflowError:
        raise Failed from None


def _instant(func: str, args: Sequence[Scalar]) -> Scalar:
    if func == "instant_diff":
        return micros(args[0]) - micros(args[1])
    other = args[1]
    assert isinstance(other, int)
    return instant(micros(args[0]) + (other if func == "instant_add" else -other))


def _text(func: str, args: Sequence[Scalar]) -> Scalar:
    match func, args:
        case "cat", texts:
            whole = "".join(map(str, texts))
            if len(whole.encode()) > 1 << 20:
                raise Failed
            return whole
        case "strlen", [str(text)]:
            return len(text.encode())
        case "substr", [str(text), int(start), int(length)]:
            raw = text.encode()
            if start < 0 or length < 0 or start > len(raw):
                raise Failed
            try:
                # Cut in the middle of a character, the rest of the text decodes to something else.
                raw[:start].decode()
                return raw[start : start + length].decode()
            except UnicodeDecodeError:
                raise Failed from None
        case "contains", [str(part), str(text)]:
            return part in text
        case "match", [str(pattern), str(text)]:
            try:
                return re.fullmatch(pattern, text) is not None
            except re.error:
                raise Failed from None
        case _:
            raise AssertionError(func)


def _convert(func: str, over: Kind, value: Scalar) -> Scalar:
    if func == "to_symbol":
        return _shown(over, value)
    if func in ("to_instant", "to_uuid", "to_bytes"):
        return _read(func, over, value)
    if over is Type.SYMBOL:
        return _parsed(func, str(value).strip())
    if over is Type.INSTANT:
        value = micros(value)
    assert isinstance(value, int | float)
    if func == "to_float":
        return floating(float(value))
    if over is Type.FLOAT:
        low, high = (-(1 << 63), 1 << 63) if func == "to_number" else (0, 1 << 64)
        if math.isnan(value) or math.isinf(value) or not low <= math.trunc(value) < high:
            raise Failed
        return math.trunc(value)
    return number(int(value)) if func == "to_number" else unsigned(int(value))


def _read(func: str, over: Kind, value: Scalar) -> Scalar:
    """A conversion to a type whose values are written as texts."""
    match func, value:
        case "to_instant", int():
            return instant(value)
        case "to_bytes", uuid.UUID():
            return value.bytes
        case _, str():
            pass
        case _:
            return value
    try:
        match func:
            case "to_instant":
                if not re.fullmatch(r"[^ ]*T[^ ]*?(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", value):
                    raise Failed
                return datetime.datetime.fromisoformat(value).astimezone(datetime.UTC)
            case "to_uuid":
                if len(value) != 36:
                    raise Failed
                return uuid.UUID(value)
            case _:
                return base64.b64decode(value, validate=True)
    except (ValueError, OverflowError):
        raise Failed from None


def _parsed(func: str, text: str) -> Scalar:
    if func == "to_float":
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", text, re.I):
            raise Failed
        return floating(float(text))
    if not re.fullmatch(r"[+-]?([0-9]+|0x[0-9a-fA-F]+|0b[01]+)", text):
        raise Failed
    base = {"0x": 16, "0b": 2}.get(text.lstrip("+-")[:2], 10)
    value = int(text, base)
    low, high = (-(1 << 63), 1 << 63) if func == "to_number" else (0, 1 << 64)
    if not low <= value < high:
        raise Failed
    return value


def _shown(over: Kind, value: Scalar) -> str:
    if over is Type.BOOL:
        return "true" if value else "false"
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if over is not Type.FLOAT:
        return str(value)
    assert isinstance(value, float)
    if math.isnan(value) or math.isinf(value):
        return "NaN" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    plain = format(Decimal(repr(value)), "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def values_of_range(over: Type, start: Scalar, stop: Scalar, step: Scalar | None) -> list[Scalar]:
    """The values from ``start`` on, before ``stop``.

    Raises:
        Failed: there are more than 2^20 of them.
    """
    assert not isinstance(start, str) and not isinstance(stop, str) and not isinstance(step, str)
    if step is None:
        step = 1 if start <= stop else -1
    if step == 0:
        return [] if start == stop else [start]
    found: list[Scalar] = []
    value = start
    while (value < stop) if step > 0 else (value > stop):
        if len(found) == 1 << 20:
            raise Failed
        found.append(floating(float(value)) if over is Type.FLOAT else int(value))
        value = value + step
    return found


def aggregate(func: str, kind: Kind, values: Sequence[Scalar]) -> Scalar:
    """An aggregate of the values of a column, copies included, or of the rows for ``count``.

    Raises:
        Failed: a ``min``, ``max`` or ``mean`` of nothing.
    """
    if func == "count":
        return len(values)
    if func == "sum":
        if kind is Type.FLOAT:
            return floating(sum(map(float, values)))
        return (number if kind is Type.NUMBER else unsigned)(sum(map(int, values)))
    if not values:
        raise Failed
    if func == "mean":
        total = sum(map(float, values)) if kind is Type.FLOAT else float(sum(map(int, values)))
        return floating(total / len(values))
    return (min if func == "min" else max)(values, key=order)

"""Terms of a rule: variables, values, operators, functors and aggregates; and the conditions between them."""

from __future__ import annotations

import datetime
import math
import re
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from dataflow_serve.values import instant_text, instant_value, value_text

if TYPE_CHECKING:
    from dataflow_serve.dsl._atoms import Body

__all__ = [
    "NAME",
    "Condition",
    "Functors",
    "Term",
    "Var",
    "conjunction",
    "count",
    "fn",
    "max",
    "mean",
    "min",
    "sum",
    "term",
    "vars",
    "wildcard",
]

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What names of variables and columns look like; those of relations may have dots between such."""

_ESCAPES = str.maketrans(
    {
        '"': '\\"',
        "\\": "\\\\",
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\v": "\\v",
    }
)


class Condition:
    """What must hold in a rule's body: a comparison, an atom, a negation, alternatives.

    ``~c`` is its negation, ``c | d`` either of two, ``c & d`` both; several in one body all have to hold.
    """

    __slots__ = ("closed", "text")

    def __init__(self, text: str, *, closed: bool = False) -> None:
        """Take the condition as program text; ``closed`` if a negation's sign may stand right before it."""
        self.text = text
        self.closed = closed

    def __invert__(self) -> Condition:
        """The opposite: ``~edge(x, _)`` means that there is no such row."""
        return Condition(f"!{self.text}" if self.closed else f"!({self.text})")

    def __or__(self, other: Condition) -> Condition:
        """Either of two."""
        return Condition(f"({self.text} ; {_condition(other).text})", closed=True)

    def __and__(self, other: Condition) -> Condition:
        """Both of two, for use inside of `|` and `~`."""
        return Condition(f"({self.text}, {_condition(other).text})", closed=True)

    def __bool__(self) -> NoReturn:
        """Refuse: Python's ``and``, ``or``, ``not`` and ``a < b < c`` would silently lose a part."""
        raise TypeError(f"{self.text!r} has no truth here; use & | ~ in place of and, or, not")

    def __repr__(self) -> str:
        """The program text."""
        return self.text


def _condition(value: object) -> Condition:
    if isinstance(value, Condition):
        return value
    raise TypeError(f"{value!r} is no condition; make one from a relation or a comparison")


class Term:
    """Something that has a value in a rule. Operators make terms, comparisons make conditions.

    ``==`` and ``!=`` make conditions too, so terms are told apart by ``is`` and can't be keys of a dict.
    """

    __slots__ = ("text",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: str) -> None:
        """Take the term as program text that can stand next to any operator."""
        self.text = text

    def __repr__(self) -> str:
        """The program text."""
        return self.text

    def __add__(self, other: object) -> Term:
        """Their sum."""
        return _infix(self, "+", other)

    def __radd__(self, other: object) -> Term:
        """Their sum."""
        return _infix(other, "+", self)

    def __sub__(self, other: object) -> Term:
        """Their difference."""
        return _infix(self, "-", other)

    def __rsub__(self, other: object) -> Term:
        """Their difference."""
        return _infix(other, "-", self)

    def __mul__(self, other: object) -> Term:
        """Their product."""
        return _infix(self, "*", other)

    def __rmul__(self, other: object) -> Term:
        """Their product."""
        return _infix(other, "*", self)

    def __truediv__(self, other: object) -> Term:
        """Their quotient; of integers cut towards zero, as the language has it."""
        return _infix(self, "/", other)

    def __rtruediv__(self, other: object) -> Term:
        """Their quotient; of integers cut towards zero, as the language has it."""
        return _infix(other, "/", self)

    def __mod__(self, other: object) -> Term:
        """The remainder, with the sign of the dividend."""
        return _infix(self, "%", other)

    def __rmod__(self, other: object) -> Term:
        """The remainder, with the sign of the dividend."""
        return _infix(other, "%", self)

    def __pow__(self, other: object) -> Term:
        """The power."""
        return _infix(self, "^", other)

    def __rpow__(self, other: object) -> Term:
        """The power."""
        return _infix(other, "^", self)

    def __neg__(self) -> Term:
        """The opposite number."""
        return Term(f"(-{self.text})")

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        """Equality; it also gives a variable its value."""
        return _compare(self, "=", other)

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        """Inequality."""
        return _compare(self, "!=", other)

    def __lt__(self, other: object) -> Condition:
        """Order by value; of texts by their bytes."""
        return _compare(self, "<", other)

    def __le__(self, other: object) -> Condition:
        """Order by value; of texts by their bytes."""
        return _compare(self, "<=", other)

    def __gt__(self, other: object) -> Condition:
        """Order by value; of texts by their bytes."""
        return _compare(self, ">", other)

    def __ge__(self, other: object) -> Condition:
        """Order by value; of texts by their bytes."""
        return _compare(self, ">=", other)


class Var(Term):
    """A variable: the same name is the same variable throughout a rule."""

    __slots__ = ()


wildcard: Final = Term("_")
"""Any value, another one at each place; `dataflow_serve` exports it as ``_``."""


def vars(names: str) -> list[Var]:
    """Variables by name: ``x, y = ds.vars("x y")``; commas may separate them too.

    Raises:
        TypeError: a name isn't one.
    """
    found = names.replace(",", " ").split()
    for name in found:
        if not NAME.fullmatch(name) or name == "_":
            raise TypeError(f"{name!r} is no name for a variable")
    return [Var(name) for name in found]


def term(value: object) -> Term:
    """A term for a Python value: bool, int, float, str, datetime, UUID or bytes; a term is itself.

    Raises:
        TypeError: the language has no such value.
        ValueError: a datetime without a time zone.
    """
    match value:
        case Term():
            return value
        case bool():
            return Term("true" if value else "false")
        case int():
            return Term(str(value) if -(2**63) <= value < 2**63 else f"{value}u")
        case float() if math.isfinite(value):
            return Term(_float(value))
        case float():
            return Term(f'to_float("{value}")')
        case str():
            return Term(f'"{value.translate(_ESCAPES)}"')
        case datetime.datetime():
            return Term(f'to_instant("{instant_text(instant_value(value))}")')
        case uuid.UUID():
            return Term(f'to_uuid("{value}")')
        case bytes():
            return Term(f'to_bytes("{value_text(value)}")')
    raise TypeError(f"{value!r} ({type(value).__name__}) is no value of a rule")


def _float(value: float) -> str:
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")


def _infix(left: object, operator: str, right: object) -> Term:
    return Term(f"({term(left).text} {operator} {term(right).text})")


def _compare(left: Term, operator: str, right: object) -> Condition:
    return Condition(f"{left.text} {operator} {term(right).text}")


def conjunction(parts: Iterable[Body]) -> str:
    """The text of conditions that all have to hold."""
    return ", ".join(_condition(part).text for part in parts)


def _aggregate(name: str, target: object | None, body: tuple[Body, ...]) -> Term:
    if not body:
        raise TypeError(f"{name} needs a body: the rows that it is taken over")
    of = "" if target is None else f" {term(target).text}"
    return Term(f"{name}{of} : {{ {conjunction(body)} }}")


def count(*body: Body) -> Term:
    """How many ways there are to make ``body`` hold, for the values that variables have outside of it."""
    return _aggregate("count", None, body)


def sum(target: object, *body: Body) -> Term:
    """The sum of ``target`` over all ways to make ``body`` hold; 0 of none."""
    return _aggregate("sum", target, body)


def min(target: object, *body: Body) -> Term:
    """The least ``target`` over all ways to make ``body`` hold; of none there is no row."""
    return _aggregate("min", target, body)


def max(target: object, *body: Body) -> Term:
    """The greatest ``target`` over all ways to make ``body`` hold; of none there is no row."""
    return _aggregate("max", target, body)


def mean(target: object, *body: Body) -> Term:
    """The mean of ``target``, a float, over all ways to make ``body`` hold; of none there is no row."""
    return _aggregate("mean", target, body)


class Functors:
    """The functors of the language by name: ``ds.fn.cat(x, "!")``, ``ds.fn.strlen(x)``.

    ``contains`` and ``match`` make conditions, all others terms. Which there are is the language's affair: an
    unknown one is an error of the program that it stands in.
    """

    def contains(self, part: object, text: object) -> Condition:
        """Whether a text contains another."""
        return Condition(f"contains({term(part).text}, {term(text).text})")

    def match(self, pattern: object, text: object) -> Condition:
        """Whether a regular expression matches all of a text."""
        return Condition(f"match({term(pattern).text}, {term(text).text})")

    def __getattr__(self, name: str) -> Callable[..., Term]:
        """The functor of that name."""
        if name.startswith("__"):
            raise AttributeError(name)

        def apply(*args: Any) -> Term:
            return Term(f"{name}({', '.join(term(arg).text for arg in args)})")

        apply.__name__ = name
        return apply


fn: Final = Functors()
"""The functors of the language by name."""

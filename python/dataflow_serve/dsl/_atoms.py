"""Relations as Python sees them, and atoms: a relation applied to terms."""

from __future__ import annotations

import datetime
import uuid
from dataclasses import dataclass, replace

from dataflow_serve.dsl._terms import NAME, Condition, term, wildcard

__all__ = ["Atom", "Body", "Relation", "rel"]

_TYPES: dict[object, str] = {
    str: "symbol",
    int: "number",
    float: "float",
    bool: "bool",
    datetime.datetime: "instant",
    uuid.UUID: "uuid",
    bytes: "bytes",
}


class Atom(Condition):
    """A relation applied to terms: a head, or a condition that such a row exists."""

    __slots__ = ("relation",)

    def __init__(self, relation: Relation, text: str) -> None:
        """Keep the relation, whose declaration a head needs."""
        super().__init__(text, closed=True)
        self.relation = relation


Body = Condition
"""What stands in a rule's body."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation by name, with its columns where they are known. Called with terms it makes an `Atom`.

    A relation that exists on the server needs no columns; one that rules or `program` declare does.

    Attributes:
        name: Its name.
        columns: Names and types of its columns, or None.
        qualifier: ``raw``, ``upsert(…)`` or nothing.
        is_input: Whether clients transact into it.
    """

    name: str
    columns: tuple[tuple[str, str], ...] | None = None
    qualifier: str = ""
    is_input: bool = False

    def __call__(self, *args: object, **by_name: object) -> Atom:
        """Apply it to terms, by position or by the names of columns; columns left out by name are ``_``.

        Raises:
            TypeError: the terms don't fit its columns.
        """
        terms = list(args)
        if by_name:
            if args or self.columns is None:
                raise TypeError(f"{self.name} takes its terms by name only alone, and with its columns known")
            names = [name for name, _ in self.columns]
            if unknown := [name for name in by_name if name not in names]:
                raise TypeError(f"{self.name} has no column {unknown[0]!r}; it has {', '.join(names)}")
            terms = [by_name.get(name, wildcard) for name in names]
        if self.columns is not None and len(terms) != len(self.columns):
            raise TypeError(f"{self.name} has {len(self.columns)} columns, not {len(terms)}")
        return Atom(self, f"{self.name}({', '.join(term(each).text for each in terms)})")

    def input(self) -> Relation:
        """The same as an input: clients transact into it."""
        return replace(self, is_input=True)

    def raw(self) -> Relation:
        """The same as an input that counts copies of its rows."""
        return replace(self, is_input=True, qualifier="raw")

    def upsert(self, *columns: str) -> Relation:
        """The same as an input that keeps the last row inserted for each value of ``columns``.

        Raises:
            TypeError: it has no such column.
        """
        names = [name for name, _ in self.columns or ()]
        for column in columns:
            if column not in names:
                raise TypeError(f"{self.name} has no column {column!r}; it has {', '.join(names)}")
        return replace(self, is_input=True, qualifier=f"upsert({', '.join(columns)})")

    def nullary(self) -> Relation:
        """The same without columns: a fact that holds or doesn't."""
        return replace(self, columns=())

    def declaration(self) -> str:
        """Its ``.decl`` line.

        Raises:
            TypeError: its columns aren't known.
        """
        if self.columns is None:
            raise TypeError(
                f"cannot declare {self.name}: its columns aren't known; "
                f'say what they are, as in rel("{self.name}", x=str, n=int)'
            )
        columns = ", ".join(f"{name}: {kind}" for name, kind in self.columns)
        return f".decl {self.name}({columns}) {self.qualifier}".rstrip()


def rel(name: str, /, **columns: object) -> Relation:
    """A relation by name: ``rel("reach")`` for one that exists, ``rel("fame", y=str, n=int)`` for a new one.

    A column's type is ``str`` (symbol), ``int`` (number), ``float`` or ``bool``, or a type's name in the
    language. A new relation without columns is ``rel("done").nullary()``.

    Raises:
        TypeError: a name isn't one, or a type isn't known.
    """
    for each in (*name.split("."), *columns):
        if not NAME.fullmatch(each):
            raise TypeError(f"{each!r} is no name for a relation or a column")
    typed = tuple((column, _type(name, column, kind)) for column, kind in columns.items())
    return Relation(name, typed or None)


def _type(relation: str, column: str, kind: object) -> str:
    found = kind if isinstance(kind, str) else _TYPES.get(kind)
    if found is None:
        raise TypeError(f"column {column!r} of {relation} has no type {kind!r}; use str, int, float or bool")
    return found

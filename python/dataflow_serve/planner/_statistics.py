"""How many rows relations have, and how that suggests to join atoms, or to find variables.

Estimates are of the plainest kind: values are spread evenly, and columns are independent. They need only be
good enough to tell a relation of ten rows from one of a million, and a key from a flag.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from math import prod
from typing import Any

from msgspec import Struct

__all__ = [
    "Atom",
    "Estimate",
    "RelationStatistics",
    "Statistics",
    "estimates_of",
    "join_order",
    "meet_by_keys",
]

KEY_ROWS = 2
"""Rows for a value of a column that is still taken for a key: samples err."""

FILTER_SHARE = 1 / 3
"""What is taken to pass a condition of which nothing is known."""


class RelationStatistics(Struct, frozen=True):
    """What is known of a relation at some moment."""

    rows: int
    distinct: tuple[int, ...]
    """About how many different values each column has."""
    keys: Mapping[frozenset[int], int]
    """How many different values the columns have together by which it is arranged."""

    def values(self, columns: Sequence[int]) -> float:
        """About how many different values these columns have together."""
        known = self.keys.get(frozenset(columns))
        found = known if known is not None else prod(self.distinct[column] for column in columns)
        return float(max(1, min(found, self.rows)))

    def is_key(self, columns: Set[int]) -> bool:
        """Whether there is about a row at most for values of these columns.

        That columns which aren't keys are one together, only an arrangement by them can tell.
        """
        if len(columns) == len(self.distinct):
            return True
        counts = [self.distinct[column] for column in columns]
        return max(*counts, self.keys.get(frozenset(columns), 0), 0) * KEY_ROWS >= self.rows


class Statistics:
    """Of relations by name. What is empty counts as unknown: its rows may be about to come."""

    def __init__(self, relations: Mapping[str, RelationStatistics] | None = None) -> None:
        """Of some relations; of none it knows nothing."""
        self._relations = {name: known for name, known in (relations or {}).items() if known.rows > 0}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Statistics:
        """As workers say it."""
        return cls(
            {
                name: RelationStatistics(
                    known["rows"],
                    tuple(known["distinct"]),
                    {frozenset(columns): keys for columns, keys in known["keys"]},
                )
                for name, known in document.items()
            }
        )

    def get(self, relation: str) -> RelationStatistics | None:
        """Of a relation, if it is known."""
        return self._relations.get(relation)


class Atom(Struct, frozen=True):
    """An atom as far as the order depends on it."""

    known: RelationStatistics | None
    variables: Mapping[str, tuple[int, ...]]
    """The columns that each variable depends on; none where that isn't a matter of columns."""
    constants: tuple[int, ...]
    filters: int
    """Conditions besides."""


def meet_by_keys(atoms: Sequence[tuple[RelationStatistics | None, Mapping[str, int]]]) -> bool:
    """Whether from some atom on, each next one is looked up by a key of it.

    Then as many rows come about as the first atom has, or fewer, if they are joined two at a time, however
    unevenly values are spread. Atoms are what is known of a relation, and the column of each variable.
    """
    return any(_met_by_keys(start, atoms) for start in range(len(atoms)))


def _met_by_keys(start: int, atoms: Sequence[tuple[RelationStatistics | None, Mapping[str, int]]]) -> bool:
    bound = set(atoms[start][1])
    left = [atom for place, atom in enumerate(atoms) if place != start]
    while left:
        met = [
            (known, columns)
            for known, columns in left
            if known is not None and known.is_key({columns[name] for name in columns.keys() & bound})
        ]
        if not met:
            return False
        for _, columns in met:
            bound |= columns.keys()
        left = [atom for atom in left if atom not in met]
    return True


class Estimate(Struct, frozen=True):
    """What is taken to be so of an atom."""

    atom: Atom
    rows: float
    values: Mapping[str, float]
    """About how many different values each variable has."""

    def fan_out(self, names: Iterable[str]) -> float:
        """About how many of the rows have the same values of these variables of the atom's."""
        names = list(names)
        columns = [column for name in names for column in self.atom.variables[name]]
        known = self.atom.known
        if known is not None and columns:
            together = known.values(columns)
        else:
            together = prod(self.values[name] for name in names)
        return self.rows / max(1.0, min(together, self.rows))


def join_order(atoms: Sequence[Atom]) -> list[int] | None:
    """An order in which few rows come about on the way; none if nothing is known of any atom.

    From each atom on, the atom is next that makes the fewest rows of those that share a variable with what
    there is; of all beginnings that is taken after which the fewest rows come about in all.
    """
    estimates = estimates_of(atoms)
    if estimates is None:
        return None
    return min((_from(start, estimates) for start in range(len(atoms))), key=lambda found: found[0])[1]


def estimates_of(atoms: Sequence[Atom]) -> list[Estimate] | None:
    """What is taken to be so of atoms, in their order; none if nothing is known of any."""
    sizes = [atom.known.rows for atom in atoms if atom.known is not None]
    return [_estimate(atom, max(sizes)) for atom in atoms] if sizes else None


def _estimate(atom: Atom, unknown: int) -> Estimate:
    known = atom.known
    rows = float(unknown if known is None else known.rows)
    # Of a relation of which nothing is known, columns are taken to be something between a key and a flag.
    values = [rows**0.75 if known is None else known.values([column]) for column in range(_width(atom))]
    if atom.constants:
        rows /= values[atom.constants[0]] if known is None else known.values(atom.constants)
    rows = max(rows * FILTER_SHARE**atom.filters, 1e-3)
    return Estimate(
        atom,
        rows,
        {
            name: max(1.0, min(rows, prod(values[column] for column in columns)))
            for name, columns in atom.variables.items()
        },
    )


def _width(atom: Atom) -> int:
    columns = [*atom.constants, *(column for columns in atom.variables.values() for column in columns)]
    return max(columns, default=-1) + 1


def _from(start: int, estimates: Sequence[Estimate]) -> tuple[float, list[int]]:
    """The order that begins with an atom, and how many rows come about in it."""
    rows, values = estimates[start].rows, dict(estimates[start].values)
    cost, order = rows, [start]
    left = [place for place in range(len(estimates)) if place != start]
    while left:
        connected = [place for place in left if estimates[place].values.keys() & values.keys()] or left
        rows, chosen = min((_joined(rows, values, estimates[place]), place) for place in connected)
        cost += rows
        order.append(chosen)
        left.remove(chosen)
        for name, count in estimates[chosen].values.items():
            values[name] = min(values.get(name, count), count)
        values = {name: min(count, max(rows, 1.0)) for name, count in values.items()}
    return cost, order


def _joined(rows: float, values: Mapping[str, float], other: Estimate) -> float:
    matched = prod(max(values[name], count) for name, count in other.values.items() if name in values)
    return rows * other.rows / matched

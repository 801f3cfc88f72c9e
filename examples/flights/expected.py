"""What the program must have derived at the end, computed in one pass and without any of its rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from data import Departure

Rows = set[tuple[Any, ...]]


def results(
    departures: Iterable[Departure],
    airlines: Iterable[tuple[str, str]],
    planes: Iterable[tuple[str, str, int]],
) -> dict[str, Rows]:
    """The rows of every result relation by name."""
    names = dict(airlines)
    registry = {tail: (maker, seats) for tail, maker, seats in planes}
    delays: dict[str, list[int]] = defaultdict(list)
    capacity = dict.fromkeys((maker for maker, _ in registry.values()), 0)
    unknown = set()
    groups = Groups()
    for flight in departures:
        if flight.carrier in names:
            delays[names[flight.carrier]].append(flight.delay)
        if flight.tail in registry:
            maker, seats = registry[flight.tail]
            capacity[maker] += seats
        elif flight.tail:
            unknown.add((flight.tail,))
        groups.join(flight.origin, flight.dest)
    return {
        "punctuality": {(name, len(each), sum(each) / len(each)) for name, each in delays.items()},
        "capacity": set(capacity.items()),
        "connected": {(a, b) for group in groups.all() for a in group for b in group},
        "unregistered": unknown,
    }


class Groups:
    """Airports that are connected, each group a set that grows by merging."""

    def __init__(self) -> None:
        """Start without any airport."""
        self._group: dict[str, set[str]] = {}

    def join(self, one: str, other: str) -> None:
        """Put two airports into the same group."""
        a, b = self._group.setdefault(one, {one}), self._group.setdefault(other, {other})
        if a is not b:
            small, large = sorted((a, b), key=len)
            large |= small
            for airport in small:
                self._group[airport] = large

    def all(self) -> list[set[str]]:
        """The groups."""
        return list({id(group): group for group in self._group.values()}.values())


def differences(found: dict[str, Rows], expected: dict[str, Rows]) -> list[str]:
    """One line for each relation that isn't as expected; means may differ in the last digits."""
    lines = []
    for name, rows in expected.items():
        one, other = _rounded(found[name]), _rounded(rows)
        if one != other:
            lines.append(f"{name}: {len(one - other)} rows too many, {len(other - one)} missing")
    return lines


def _rounded(rows: Rows) -> Rows:
    return {tuple(f"{value:.9g}" if isinstance(value, float) else value for value in row) for row in rows}

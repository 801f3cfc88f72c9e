"""Bodies whose atoms close a cycle, and the order in which changes of one atom meet the others.

Joined two at a time, such a body makes rows on the way of which only the last atom says that most are for
nothing: of a graph's edges all paths of two, to keep those that a third edge closes. Here all atoms that have
a say in a variable give its values together, and nothing is kept on the way.
"""

from __future__ import annotations

from collections.abc import Sequence

from dataflow_serve.planner._statistics import Estimate

__all__ = ["cyclic_core", "paths"]

MAX_INPUTS = 16
"""Atoms that the engine takes at once."""

Names = frozenset[str]


def cyclic_core(atoms: Sequence[Names]) -> list[int]:
    """The atoms, by their variables, that make the conjunction cyclic; none if it isn't, or has too many.

    Variables that one atom alone has, and atoms whose variables another one has too, are taken away as long
    as there are any; what is left is cyclic. To its atoms come those that are about its variables alone.
    Where cycles don't hang together, these are those of one of them.
    """
    edges: dict[int, set[str]] = {place: set(names) for place, names in enumerate(atoms)}
    changed = True
    while changed:
        changed = False
        for place, names in list(edges.items()):
            others = [other for at, other in edges.items() if at != place]
            alone = names - set().union(*others)
            if alone:
                names -= alone
                changed = True
            if any(names <= other for other in others) or not names:
                del edges[place]
                changed = True
    if not edges:
        return []
    variables: set[str] = set(next(iter(edges.values())))
    grown = True
    while grown:
        linked = set().union(*(names for names in edges.values() if names & variables))
        grown = not linked <= variables
        variables |= linked
    cores = [place for place, names in edges.items() if names <= variables]
    about = [place for place, names in enumerate(atoms) if place in cores or (names and names <= variables)]
    return about if len(about) <= MAX_INPUTS else []


def paths(atoms: Sequence[Names], estimates: Sequence[Estimate] | None = None) -> list[list[list[int]]]:
    """For each atom the order in which its changes meet the others: groups that lack the same variables.

    Args:
        atoms: The atoms, by their variables.
        estimates: What is taken to be so of them, where something is known of some.
    """
    return [_path(atoms, estimates, start) for start in range(len(atoms))]


def _path(atoms: Sequence[Names], estimates: Sequence[Estimate] | None, start: int) -> list[list[int]]:
    known = set(atoms[start])
    left = [place for place in range(len(atoms)) if place != start]
    path: list[list[int]] = []
    while left:
        lacking: dict[frozenset[str], list[int]] = {}
        for place in left:
            lacking.setdefault(frozenset(atoms[place] - known), []).append(place)
        # What needs nothing more comes first, then what finds the fewest values, or, if nobody knows, the
        # variable about which most atoms have a say.
        fresh, group = min(
            lacking.items(),
            key=lambda entry: (
                not any(atoms[place] & known for place in entry[1]),
                bool(entry[0]),
                0.0 if estimates is None else _proposed(atoms, estimates, entry[1], known),
                len(entry[0]),
                -len(entry[1]),
                entry[1],
            ),
        )
        path.append(group)
        known |= fresh
        left = [place for place in left if place not in group]
    return path


def _proposed(
    atoms: Sequence[Names], estimates: Sequence[Estimate], group: Sequence[int], known: set[str]
) -> float:
    """About how many values there are for a row, of those that the atom proposes which has the fewest."""
    return min(estimates[place].fan_out(atoms[place] & known) for place in group)

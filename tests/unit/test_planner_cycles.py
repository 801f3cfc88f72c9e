"""Atoms that close a cycle: which they are, and in which order they meet."""

from __future__ import annotations

from random import Random

import pytest

from dataflow_serve.planner._cycles import cyclic_core, paths
from tests.unit.planned import drawn, plan_of


@pytest.mark.parametrize(
    ("rule", "relation", "tree"),
    [
        # Each edge of a triangle has the corner that the others find, and nothing is kept on the way.
        (
            "p(x) :- e(x, y), e(y, z), e(x, z).",
            "p",
            [
                "multijoin e.y = e.x, e.x = e.x, e.y = e.y; "
                "all at once, because they close a cycle; to (e.x)",
                "  get e",
                "  get e",
                "  get e",
            ],
        ),
        # What isn't part of the cycle is joined to it; what is about its variables alone is part of it.
        (
            "p2(x, w) :- e(z, w), e(x, y), e(y, z), e(z, x), big(x, z, _), x < y, x < w.",
            "p2",
            [
                "join e.y = e.x; where e.x < e.y; to (e.x, e.y)",
                "  multijoin e.y = e.x, e.y = e.x, e.x = e.y, e.x = big.a, e.y = big.b; "
                "all at once, because they close a cycle; to (e.x, e.y)",
                "    map where e.x < e.y",
                "      get e",
                "    get e",
                "    get e",
                "    map to (big.a, big.b)",
                "      get big",
                "  get e",
            ],
        ),
    ],
)
def test_atoms_that_close_a_cycle_are_taken_at_once(rule: str, relation: str, tree: list[str]) -> None:
    assert drawn(rule, relation) == tree


@pytest.mark.parametrize(
    "rule",
    [
        "p(x) :- e(x, y), e(y, z), e(z, w).",
        "p(x) :- e(x, y), e(y, x).",
        "p(x) :- e(x, y), e(x, z), e(x, w).",
        # One atom has all variables of the others.
        "p(x) :- e(x, y), e(y, z), e(x, z), big(x, y, z).",
        # A constant in place of a corner.
        "p(x) :- e(x, y), e(y, 3), e(3, x).",
        # Part of a recursion.
        "path(x, y) :- e(x, y). path(x, z) :- path(x, y), path(y, z), path(x, z).",
    ],
)
def test_other_bodies_are_joined_two_at_a_time(rule: str) -> None:
    assert all(node["op"] != "multijoin" for node in plan_of(rule)["nodes"])


def random_atoms(random: Random) -> list[frozenset[str]]:
    """So many atoms, each with a few of a few variables."""
    names = "abcde"[: random.randint(3, 5)]
    count = random.randint(3, 6)
    return [frozenset(random.sample(names, random.randint(1, 3))) for _ in range(count)]


def test_paths_meet_every_atom_once_in_groups_that_lack_the_same(rng: Random) -> None:
    for _ in range(500):
        atoms = random_atoms(rng)
        for start, path in enumerate(paths(atoms)):
            assert sorted([start, *(place for group in path for place in group)]) == list(range(len(atoms)))
            known = atoms[start]
            for group in path:
                (lacking,) = {atoms[place] - known for place in group}
                known |= lacking


def is_cyclic(atoms: list[frozenset[str]]) -> bool:
    """Whether there is no order in which each atom meets those before it within one of them."""

    def grows(order: list[frozenset[str]], left: list[frozenset[str]]) -> bool:
        if not left:
            return True
        before = frozenset().union(*order)
        return any(
            (not order or any(atom & before <= one for one in order))
            and grows([*order, atom], left[:place] + left[place + 1 :])
            for place, atom in enumerate(left)
        )

    return not grows([], atoms)


def test_a_core_is_there_for_cyclic_bodies_alone(rng: Random) -> None:
    cyclic = 0
    for _ in range(500):
        atoms = random_atoms(rng)
        core = cyclic_core(atoms)
        assert bool(core) == is_cyclic(atoms)
        assert not core or is_cyclic([atoms[place] for place in core])
        cyclic += bool(core)
    assert 0 < cyclic < 500

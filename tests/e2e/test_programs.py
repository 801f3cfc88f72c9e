"""Every program of `programs.py`, on every shape of cluster, against the model after every transaction."""

from __future__ import annotations

import random
import re

import pytest

from .programs import PROGRAMS
from .world import World

TRANSACTIONS = 10


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_the_naive_evaluator_after_every_transaction(
    world: World, rng: random.Random, name: str
) -> None:
    world.register(PROGRAMS[name], name)
    world.subscribe_all()
    world.compare()
    for _ in range(TRANSACTIONS):
        world.transact_random(rng)
        world.compare()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_registered_late_sees_what_is_there(world: World, rng: random.Random, name: str) -> None:
    inputs, rules = split(PROGRAMS[name])
    world.register(inputs, "inputs")
    for _ in range(3):
        world.transact_random(rng, 12)
    if rules:
        world.register(rules, "rules")
    world.subscribe_all()
    world.compare()
    for _ in range(3):
        world.transact_random(rng)
        world.compare()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_frozen_program_stays_as_it_is(world: World, rng: random.Random, name: str) -> None:
    inputs, rules = split(PROGRAMS[name])
    if not rules or ".input" in rules or re.search(r"\bnow\b", rules):
        pytest.skip("it can't be frozen")
    world.register(inputs, "inputs")
    for _ in range(3):
        world.transact_random(rng, 12)
    world.register(f'{rules}\n.pragma "frozen"', "rules")
    world.subscribe_all()
    world.compare()
    expected = {relation: world.model.contents(relation) for relation in world.relations["rules"]}
    for _ in range(3):
        world.transact_random(rng, 12)
    for subscription in world.subscriptions:
        if subscription.relation in expected:
            assert subscription.until(world.time) == expected[subscription.relation]
    for relation, contents in expected.items():
        assert world.next_client().read(relation) == contents


@pytest.mark.parametrize("name", ["join", "negation", "linear_recursion", "aggregates_of_nothing", "upsert"])
def test_emptied_relations_end_with_nothing(world: World, rng: random.Random, name: str) -> None:
    world.register(PROGRAMS[name], name)
    world.subscribe_all()
    world.transact_random(rng, 20)
    world.compare()
    world.transact(
        *(
            {"relation": relation, "delete": [list(row) for row in each.rows]}
            for relation, each in world.model.inputs.items()
        )
    )
    world.compare()


def split(program: str) -> tuple[str, str]:
    """The input relations as one program, everything else as another that uses them.

    Facts and rules for an input relation stay with it, since another program may not add any.
    """
    lines = [line.strip() for line in re.sub(r",\s*\n", ", ", program.strip()).splitlines()]
    inputs = {line.split()[1] for line in lines if line.startswith(".input")}
    first, second = [], []
    for line in lines:
        if line.startswith(".type"):
            # Both need the types, and may say so.
            first.append(line)
            second.append(line)
            continue
        word = line.replace("(", " ").split()
        name = word[1] if line.startswith(".") else word[0]
        (first if name in inputs else second).append(line)
    return "\n".join(first), "\n".join(second)

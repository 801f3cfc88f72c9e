"""Random programs, random interleavings: whatever several clients do, the cluster equals the model.

Hypothesis chooses what happens next; programs and transactions come from the oracle's generator, seeded by
Hypothesis, so that a failure can be repeated and shrinks to few actions. STATE_MACHINE_EXAMPLES sets how many
runs there are.
"""

from __future__ import annotations

import os
import random
import re

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.oracle.generator import PAIR, generate

from .cluster import Cluster
from .model import random_changes
from .wire import ENCODINGS, Refused
from .world import World

EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "6"))
ACTIONS = 25
PROGRAMS_AT_ONCE = 3

seeds = st.integers(0, 2**32 - 1)
clients = st.integers(0, len(ENCODINGS) - 1)


class Interleavings(RuleBasedStateMachine):
    """Clients of different owners in all encodings, each action followed by a comparison with the model."""

    cluster: Cluster

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.cluster)
        self.registered = 0

    @precondition(lambda self: len(self.world.relations) < PROGRAMS_AT_ONCE)
    @rule(seed=seeds)
    def register(self, seed: int) -> None:
        """A program of its own relations."""
        self.registered += 1
        program = generate(random.Random(seed), rules=4, transactions=0).program
        # Several of these live together, and the generator calls all its relations alike.
        program = re.sub(r"\b(in|d)(\d+)\b", rf"p{self.registered}_\1\2", program)
        self.world.register(program, f"p{self.registered}")
        self.world.compare()

    @precondition(lambda self: 0 < len(self.world.relations) < PROGRAMS_AT_ONCE)
    @rule(seed=seeds)
    def register_on_top(self, seed: int) -> None:
        """A program over another one's relation."""
        rng = random.Random(seed)
        self.registered += 1
        name = f"p{self.registered}"
        below = rng.choice(self.world.all_relations())
        types = self.world.types[below]
        columns = ", ".join(f"c{index}: {each}" for index, each in enumerate(types))
        variables = ", ".join(f"c{index}" for index in range(len(types)))
        wildcards = ", ".join("_" for _ in types)
        self.world.register(
            f".type {PAIR} = {PAIR.branches[0]}\n"
            f".decl {name}_copy({columns})\n{name}_copy({variables}) :- {below}({variables}).\n"
            f".decl {name}_size(n: number)\n{name}_size(n) :- n = count : {{ {below}({wildcards}) }}.\n"
            f".output {name}_size\n",
            name,
        )
        self.world.compare()

    @precondition(lambda self: self.world.relations)
    @rule(seed=seeds)
    def unregister(self, seed: int) -> None:
        """A module, which stays if another one depends on it."""
        name = random.Random(seed).choice(sorted(self.world.relations))
        if any(self.world.depends(other, name) for other in self.world.relations if other != name):
            with pytest.raises(Refused, match="conflict"):
                self.world.next_client().call("unregister", name=name)
        else:
            self.world.unregister(name)
        self.world.compare()

    @precondition(lambda self: self.world.model.inputs)
    @rule(seed=seeds, client=clients)
    def transact(self, seed: int, client: int) -> None:
        """A random transaction."""
        changes = random_changes(self.world.model.inputs, random.Random(seed), 8)
        self.world.transact(*changes, client=self.world.clients[client])
        self.world.compare()

    @precondition(lambda self: self.world.model.inputs)
    @rule(seed=seeds, client=clients, count=st.integers(2, 8))
    def transact_pipelined(self, seed: int, client: int, count: int) -> None:
        """Several transactions of one connection, sent without waiting."""
        rng = random.Random(seed)
        wire = self.world.clients[client]
        pending = []
        for _ in range(count):
            changes = random_changes(self.world.model.inputs, rng, 4)
            pending.append(wire.start("transact", changes=changes))
            self.world.model.transact(changes)
        for number in pending:
            self.world.transacted(wire.finish(number)["time"])
        self.world.compare()

    @precondition(lambda self: self.world.relations and len(self.world.subscriptions) < 12)
    @rule(seed=seeds, client=clients)
    def subscribe(self, seed: int, client: int) -> None:
        """One more subscription to any relation."""
        relation = random.Random(seed).choice(self.world.all_relations())
        self.world.subscribe(relation, self.world.clients[client])
        self.world.compare()

    @precondition(lambda self: self.world.relations and self.world.model.inputs)
    @rule(seed=seeds, client=clients, other=clients)
    def subscribe_while_writing(self, seed: int, client: int, other: int) -> None:
        """A subscription and another client's transactions under way at the same time."""
        rng = random.Random(seed)
        writer = self.world.clients[other]
        pending = []
        for _ in range(3):
            changes = random_changes(self.world.model.inputs, rng, 4)
            pending.append(writer.start("transact", changes=changes))
            self.world.model.transact(changes)
        self.world.subscribe(rng.choice(self.world.all_relations()), self.world.clients[client])
        for number in pending:
            self.world.transacted(writer.finish(number)["time"], concurrent=True)
        self.world.compare()

    @precondition(lambda self: self.world.subscriptions)
    @rule(seed=seeds)
    def unsubscribe(self, seed: int) -> None:
        """Any subscription ends."""
        self.world.unsubscribe(random.Random(seed).choice(self.world.subscriptions))
        self.world.compare()

    @rule(client=clients)
    def replace_client(self, client: int) -> None:
        """A client vanishes with its subscriptions; another one comes, with the next owner."""
        gone = self.world.clients[client]
        gone.close()
        self.world.subscriptions = [each for each in self.world.subscriptions if each.wire is not gone]
        self.world.clients[client] = self.cluster.open(gone.encoding, client % self.cluster.processes)
        self.world.compare()

    def teardown(self) -> None:
        """Leave the cluster as it was."""
        self.cluster.empty()


@pytest.mark.timeout(120 + 30 * EXAMPLES)
@pytest.mark.parametrize("slot", [(1, 1), (1, 2), (2, 2)], indirect=True, ids=["1x1", "1x2", "2x2"])
def test_interleavings(cluster: Cluster) -> None:
    machine = type("Interleavings", (Interleavings,), {"cluster": cluster})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=ACTIONS,
            deadline=None,
            print_blob=True,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )

"""Tunables that change in the middle of a load, on all workers at one place in the order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .cluster import Cluster
from .test_http import samples
from .wire import Wire

pytestmark = pytest.mark.parametrize("slot", [(2, 2)], indirect=True, ids=["2x2"])

LONG_MICROS = 3_600_000_000
"""Nobody parks, or spins, for so long within a test."""


@pytest.fixture
def clients(cluster: Cluster) -> Iterator[list[Wire]]:
    """One client of each worker, in their order; tunables are put back as they were."""
    found: dict[int, Wire] = {}
    for index in range(2 * cluster.size):
        client = cluster.open("msgpack", index % cluster.processes)
        found.setdefault(client.info["worker"], client)
    assert sorted(found) == list(range(cluster.size))
    before = found[0].call("tune")
    yield [found[worker] for worker in range(cluster.size)]
    found[0].call("tune", **before)


def tunable(cluster: Cluster, name: str) -> list[float]:
    """What every worker of every process has in force, by its metrics."""
    found = [
        samples(cluster, f'dataflow_tunable{{worker="{worker}",tunable="{name}"}}', process).popitem()[1]
        for process in range(cluster.processes)
        for worker in range(cluster.workers)
    ]
    assert len(found) == cluster.size
    return found


def test_spinning_and_stepping_change_for_all_in_the_middle_of_a_load(
    cluster: Cluster, clients: list[Wire]
) -> None:
    clients[0].register(".decl e(x: number)\n.input e\n.decl d(x: number)\nd(x + 1) :- e(x).\n.output d")
    subscriptions = [client.subscribe("d") for client in clients]
    under_way, number = [], 0
    for round_number in range(8):
        for client in clients:
            for _ in range(50):
                number += 1
                changes = [{"relation": "e", "insert": [[number]]}]
                under_way.append((client, client.start("transact", changes=changes)))
        # Both at once, by workers of different processes: one of them is the last word, and the same for all.
        wishes = [
            {"spin_micros": round_number * 10 + which, "emit_rows": 900 + which, "steps_per_turn": 16 + which}
            for which in (0, 1)
        ]
        asked = [
            (client, client.start("tune", **wish))
            for client, wish in zip((clients[0], clients[-1]), wishes, strict=True)
        ]
        for client, request in asked:
            client.finish(request)
        in_force = [client.call("tune") for client in clients]
        assert all(each == in_force[0] for each in in_force)
        assert {name: in_force[0][name] for name in wishes[0]} in wishes
        for name in wishes[0]:
            assert tunable(cluster, name) == [in_force[0][name]] * cluster.size
    last = max(client.finish(request)["time"] for client, request in under_way)
    for subscription in subscriptions:
        assert subscription.until(last).total() == number


def test_workers_spin_and_park_as_they_are_told(cluster: Cluster, clients: list[Wire]) -> None:
    def turns() -> list[float]:
        each = [samples(cluster, "dataflow_turns_total", process) for process in range(cluster.processes)]
        return [count for counts in each for _, count in sorted(counts.items())]

    clients[-1].call("tune", spin_micros=LONG_MICROS, park_micros=LONG_MICROS)
    before = turns()
    # Asking takes a few turns of the worker that is asked; the others look for something to do.
    while any(after < start + 10_000 for after, start in zip(turns(), before, strict=True)):
        pass
    clients[1].call("tune", spin_micros=0)
    before = turns()
    after = [turns() for _ in range(20)][-1]
    assert all(end < start + 5_000 for end, start in zip(after, before, strict=True)), (before, after)

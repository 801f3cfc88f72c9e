"""Round after round of everything a client can open and close again; afterwards nothing may be left.

`make soak` runs 10,000 rounds, `make test` 200.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from .cluster import Cluster
from .wire import ENCODINGS, Wire

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "200"))
WARM_UP = 40
PROGRAM = """
    .decl own_{n}(x: number, y: number)
    .input own_{n}
    .decl both_{n}(x: number, y: number)
    both_{n}(x, y) :- own_{n}(x, y), edge(x, y).
    .decl path_{n}(x: number, y: number)
    path_{n}(x, y) :- edge(x, y).
    path_{n}(x, z) :- path_{n}(x, y), edge(y, z).
    .decl fan_{n}(x: number, n: number)
    fan_{n}(x, n) :- edge(x, _), n = count : {{ path_{n}(x, _) }}.
    .decl dull_{n}(x: number)
    dull_{n}(x) :- edge(x, _), !own_{n}(x, _).
    .output both_{n}
    .output fan_{n}
    .output dull_{n}
"""


@pytest.mark.timeout(60 + ROUNDS)
@pytest.mark.parametrize("slot", [(1, 2), (2, 2)], indirect=True, ids=["1x2", "2x2"])
@pytest.mark.parametrize("encoding", ["msgpack", "ws-text"])
def test_rounds_leave_nothing_behind(cluster: Cluster, encoding: str) -> None:
    base = cluster.open("msgpack")
    base.register(".decl edge(x: number, y: number)\n.input edge", "base")
    base.insert("edge", *((k, (k * 7) % 40) for k in range(40)))
    before: dict[str, Any] = {}
    for number in range(ROUNDS):
        if number == WARM_UP:
            before = held(base, cluster)
        one_round(cluster, number, ENCODINGS.index(encoding))
    # A departure is noticed by the worker's next turn, not by the client that left.
    after = held(base, cluster)
    for what, amount in before.items():
        allowed = amount * 1.15 + 8 * 1024 if what.startswith("memory") else amount
        assert after[what] <= allowed, (
            f"{what}: {amount} after {WARM_UP} rounds, {after[what]} after {ROUNDS}"
        )


def one_round(cluster: Cluster, number: int, encoding: int) -> None:
    """Connect, register, subscribe, transact, unsubscribe, unregister, disconnect."""
    name = str(number % 7)
    writer = Wire(cluster.addresses[number % cluster.processes], ENCODINGS[encoding])
    reader = Wire(cluster.addresses[(number + 1) % cluster.processes], ENCODINGS[(encoding + number) % 4])
    writer.register(PROGRAM.format(n=name), name)
    subscriptions = [
        reader.subscribe(f"{each}_{name}", progress=True) for each in ("both", "fan", "dull", "path")
    ]
    time = writer.insert(f"own_{name}", (1, 7), (2, 14), (number, 1))
    assert {(1, 7), (2, 14)} <= set(subscriptions[0].until(time))
    for subscription in subscriptions[: number % 5]:
        reader.unsubscribe(subscription)
    # Now and then it is the disconnection that must clear up.
    if number % 3 == 0:
        reader.close()
    writer.call("unregister", name=name)
    writer.close()
    if number % 3:
        reader.close()


def held(client: Wire, cluster: Cluster) -> dict[str, Any]:
    """What the cluster holds on to: counters of `status`, descriptors and memory of every process."""
    while (status := client.call("status"))["clients"] != 1:
        client.call("ping")
    found: dict[str, Any] = {"relations": len(status["relations"])}
    for counter in ("dataflows", "traces", "subscriptions"):
        found[counter] = status["counters"][counter]
    for index, member in enumerate(cluster.members):
        process = Path(f"/proc/{member.popen.pid}")
        if process.exists():
            found[f"descriptors {index}"] = len(list((process / "fd").iterdir()))
            (resident,) = (line for line in (process / "status").read_text().splitlines() if "VmRSS" in line)
            found[f"memory {index} (kB)"] = int(resident.split()[1])
    return found

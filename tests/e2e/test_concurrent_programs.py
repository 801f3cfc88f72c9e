"""Programs that several clients register and unregister at once, while others use them and some just leave.

Nobody knows what each request will be answered, only that it is one of the answers that the protocol has for
it, that all workers end up with the same catalog and contents, and that nothing is left.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.oracle.evaluator import evaluate_texts

from .cluster import Cluster
from .wire import ENCODINGS, PATIENCE, Contents, Refused, Wire

CLIENTS = 6
ROUNDS = 25
PROGRAMS = {
    "base": ".decl e(x: number, y: number)\n.input e",
    "paths": ".decl a(x: number, y: number)\na(x, y) :- e(x, y).\na(x, z) :- a(x, y), e(y, z).\n.output a",
    "fans": ".decl b(x: number, n: number)\nb(x, n) :- e(x, _), n = count : { e(x, _) }.\n.output b",
    "both": ".decl ab(x: number, n: number)\nab(x, n) :- b(x, n), a(x, _), !e(n, x).\n.output ab",
    "other": ".decl e(x: number, y: symbol)\n.input e",
}
RELATIONS = ("e", "a", "b", "ab")
POSSIBLE = {
    "register": {"incorrect", "conflict"},
    "unregister": {"not-found", "conflict"},
    # A row of numbers doesn't fit the relation of texts.
    "transact": {"not-found", "incorrect"},
    "read": {"not-found"},
    "subscribe": {"not-found"},
    "explain": {"not-found"},
}


class Client:
    """Sends a few random requests at a time; leaves now and then without waiting for what comes of them."""

    def __init__(self, cluster: Cluster, number: int, rng: random.Random) -> None:
        self.cluster, self.number, self.rng = cluster, number, rng

    def run(self) -> None:
        wire = self.dial()
        for _ in range(ROUNDS):
            started = [self.start(wire) for _ in range(self.rng.randint(1, 4))]
            if self.rng.random() < 0.2:
                wire.stream.socket.close()
                wire = self.dial()
                continue
            for op, number in started:
                try:
                    wire.finish(number)
                except Refused as refused:
                    assert refused.code in POSSIBLE[op], (op, refused.error)
        wire.close()

    def dial(self) -> Wire:
        process = self.rng.randrange(self.cluster.processes)
        return Wire(self.cluster.addresses[process], ENCODINGS[self.number % len(ENCODINGS)])

    def start(self, wire: Wire) -> tuple[str, int]:
        rng = self.rng
        op = rng.choices(list(POSSIBLE), (35, 20, 20, 10, 10, 5))[0]
        if op == "register":
            name = rng.choice(list(PROGRAMS))
            asked = name if rng.random() < 0.8 else "base"
            return op, wire.start(op, program=PROGRAMS[name], name=asked)
        if op == "unregister":
            return op, wire.start(op, name=rng.choice([*PROGRAMS, "e"]))
        if op == "transact":
            insert, delete = ([[rng.randrange(5), rng.randrange(5)] for _ in range(2)] for _ in range(2))
            wait = rng.choice(["sequenced", "visible"])
            changes = [{"relation": "e", "insert": insert, "delete": delete}]
            return op, wire.start(op, changes=changes, wait=wait)
        return op, wire.start(op, relation=rng.choice(RELATIONS))


@pytest.mark.parametrize("slot", [(1, 2), (2, 2)], indirect=True, ids=["1x2", "2x2"])
def test_whatever_clients_do_to_programs_at_once_all_workers_agree(
    cluster: Cluster, rng: random.Random
) -> None:
    clients = [Client(cluster, number, random.Random(rng.random())) for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        for future in [pool.submit(client.run) for client in clients]:
            future.result(PATIENCE * 3)
    # Two connections one after the other have different owners.
    witnesses = [cluster.open("msgpack", number // 2) for number in range(2 * cluster.processes)]
    # What those who left had asked for may still be on its way, the programs that Python is planning last.
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = [look(witness, len(witnesses)) for witness in witnesses]
        if seen[0][0] and all(each == seen[0] for each in seen):
            break
        assert time.monotonic() < deadline, seen
    _, subscriptions, modules, contents = seen[0]
    assert subscriptions == 0
    # Under the name of `e` there may be the other one.
    if all(isinstance(y, int) for _, y in contents.get("e", [])):
        programs = [PROGRAMS[name] for name in ("base", "paths", "fans", "both")]
        expected = evaluate_texts(programs, {"e": list(contents.get("e", []))})
        assert contents == {name: expected[name] for name, _ in modules}


def look(witness: Wire, clients: int) -> tuple[bool, int, list[tuple[str, str]], dict[str, Contents]]:
    """What one connection sees: whether only so many are left, subscriptions, the catalog, all contents."""
    status = witness.call("status")
    modules = sorted((each["name"], each["module"]) for each in status["relations"])
    try:
        contents = {name: witness.read(name) for name, _ in modules}
    except Refused:
        contents = {}
    return status["clients"] == clients, status["counters"]["subscriptions"], modules, contents

"""Queries that never end, hold too much or fail: they are ended, others go on, the memory comes back."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .cluster import Cluster
from .test_http import sample
from .wire import Closed, Refused, Subscription, Wire

pytestmark = pytest.mark.parametrize("slot", [(1, 2), (2, 2)], indirect=True, ids=["1x2", "2x2"])

RUNAWAY = ".decl n(x: number)\nn(0).\nn(x + 1) :- n(x).\n.output n"
READER = ".decl even(x: number)\neven(x) :- n(x), x % 2 = 0.\n.output even"
PAIRS = """
    .decl a(x: number)
    .input a
    .decl pair(x: number, y: number)
    pair(x, y) :- a(x), a(y).
    .output pair
"""
NO_PAIRS = """
    .decl a(x: number)
    .input a
    .decl none(x: number, y: number)
    none(x, y) :- a(x), a(y), x + y < 0.
    .output none
"""
CRASHING = """
    .decl one(x: number)
    one(1).
    .decl two(x: number, y: number)
    two(x, y) :- one(x), one(y), x + y = 2.
    .output two
"""
NO_LIMITS = {"iterations": 0, "rows": 0, "bytes": 0, "lag_millis": 0}


class Neighbour:
    """A client with a query of its own; it must be served whatever the others do."""

    def __init__(self, client: Wire) -> None:
        self.client = client
        client.register(
            ".decl mine(x: number)\n.input mine\n"
            ".decl next(x: number)\nnext(x + 1) :- mine(x).\n.output next",
            "neighbour",
        )
        self.subscription = client.subscribe("next", progress=True)
        self.rows = 0

    def is_served(self) -> None:
        """A transaction gets through, with everything that follows from it."""
        self.rows += 1
        time = self.client.insert("mine", [self.rows], wait="visible")
        assert self.subscription.until(time)[(self.rows + 1,)] == 1

    def is_computed(self, cluster: Cluster) -> None:
        """Every process knows that the program has been computed: it isn't suspected of what comes now."""
        for process in range(cluster.processes):
            for relation in ("mine", "next"):
                cluster.open(process=process).read(relation)


def status_of(client: Wire, module: str) -> dict[str, Any]:
    """What `status` says of a module."""
    return next(each for each in client.call("status")["modules"] if each["name"] == module)


def ended(subscription: Subscription, module: str) -> str:
    """The message that ends a subscription of an interrupted module."""
    error = subscription.until_ended()
    assert (error["code"], error["retry"]) == ("interrupted", False)
    assert error["message"].startswith(f'module "{module}" was ended'), error
    return str(error["message"])


def counters(client: Wire) -> tuple[int, int]:
    """Dataflows and traces of all workers."""
    counted = client.call("status")["counters"]
    return counted["dataflows"], counted["traces"]


def memory(cluster: Cluster) -> int:
    """Resident bytes of all processes."""
    found = 0
    for member in cluster.members:
        text = Path(f"/proc/{member.popen.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert match is not None
        found += int(match[1]) * 1024
    return found


def test_runaway_recursion_is_ended_at_its_limit(cluster: Cluster) -> None:
    mine, other = cluster.clients("ndjson", "msgpack")
    neighbour = Neighbour(other)
    before = counters(mine)
    mine.call("register", program=RUNAWAY, name="loop", limits=NO_LIMITS)
    mine.register(READER, "reader")
    subscriptions = [mine.subscribe("n"), other.subscribe("n", snapshot=False), other.subscribe("even")]
    pending = mine.start("read", relation="n")
    neighbour.is_served()
    # The same program again is the same module, with the limits that are given now.
    other.call("register", program=RUNAWAY, name="loop", limits={"iterations": 1000})
    message = ended(subscriptions[0], "loop")
    found = re.search(r"more than 1000 iterations, at iteration (\d+) of relation \"n\"", message)
    assert found is not None and int(found[1]) > 1000, message
    ended(subscriptions[1], "loop")
    assert 'with module "loop", on which it depends' in ended(subscriptions[2], "reader")
    with pytest.raises(Refused) as refused:
        mine.finish(pending)
    assert refused.value.code == "interrupted"
    neighbour.is_served()
    for client, relation in ((mine, "n"), (other, "even")):
        with pytest.raises(Refused) as refused:
            client.read(relation)
        assert refused.value.code == "not-found"
    interrupted = other.call("status")["interrupted"]
    assert [each["module"] for each in interrupted][-2:] == ["reader", "loop"]
    assert counters(mine) == before
    # The name and the relations are free again.
    mine.register(".decl n(x: number)\nn(7).\n.output n", "loop")
    assert mine.read("n") == {(7,): 1}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads resident memory from /proc")
@pytest.mark.parametrize("limit", ["rows", "bytes"])
def test_cross_join_is_ended_at_its_limit_and_its_memory_comes_back(cluster: Cluster, limit: str) -> None:
    mine, other = cluster.clients("msgpack", "ndjson")
    neighbour = Neighbour(other)
    most = {"rows": 1_000_000, "bytes": 24_000_000}[limit]
    before, used = counters(mine), []
    for _ in range(8):
        mine.call("register", program=PAIRS, name="pairs", limits={**NO_LIMITS, limit: most})
        subscription = mine.subscribe("pair")
        # 36 million pairs, on one worker.
        mine.insert("a", *([x] for x in range(6000)))
        message = ended(subscription, "pairs")
        found = re.search(rf'it held (\d+) {limit} of at most {most}, at relation "(a|pair)"', message)
        assert found is not None and most < int(found[1]), message
        neighbour.is_served()
        assert counters(mine) == before
        used.append(memory(cluster))
    # How far it gets past its limit varies, and so does what the allocator keeps for the next one.
    assert used[-1] < used[0] + 64 * 2**20, used


def test_join_that_rejects_everything_holds_nobody_up(cluster: Cluster) -> None:
    mine, other, third = cluster.clients("msgpack", "ndjson", "ws-text")
    neighbour = Neighbour(other)
    mine.call("register", program=NO_PAIRS, name="none", limits=NO_LIMITS)
    subscription = mine.subscribe("none")
    # Ten thousand million pairs, none of which comes to anything, on one worker.
    mine.insert("a", *([x] for x in range(100_000)))
    for _ in range(20):
        neighbour.is_served()
    third.insert("mine", [-1])
    neighbour.is_served()
    assert status_of(other, "none")["computing"]
    other.call("register", program=NO_PAIRS, name="none", limits={"lag_millis": 1})
    message = ended(subscription, "none")
    assert re.search(r'it was \d+ ms behind, at most 1 are allowed, at relation "none"', message), message
    neighbour.is_served()


def test_cancel_ends_a_module_and_says_where_it_was(cluster: Cluster) -> None:
    mine, other = cluster.clients("ws-binary", "ndjson")
    neighbour = Neighbour(other)
    before = counters(mine)
    mine.call("register", program=RUNAWAY, name="loop", limits=NO_LIMITS)
    mine.register(READER, "reader")
    subscriptions = [mine.subscribe("n"), other.subscribe("even")]
    reached = 0
    for _ in range(3):
        # Its progress can be watched.
        while (status := status_of(other, "loop"))["iteration"] <= reached:
            pass
        reached = status["iteration"]
        assert status["computing"] and status["rows"] > 0 and status["bytes"] > 0
    done = other.call("cancel", name="loop")
    assert done["iteration"] >= reached
    assert (done["name"], done["relation"], done["modules"]) == ("loop", "n", ["reader", "loop"])
    # Each worker tells its clients the iteration that it has seen; they may be one apart.
    found = re.search(
        r'it was cancelled, at iteration (\d+) of relation "n"', ended(subscriptions[0], "loop")
    )
    assert found is not None and int(found[1]) >= reached
    ended(subscriptions[1], "reader")
    neighbour.is_served()
    assert counters(mine) == before
    for client in (mine, other):
        with pytest.raises(Refused) as refused:
            client.call("cancel", name="loop")
        assert (refused.value.code, refused.value.message) == ("not-found", 'no module "loop"')


def test_a_query_that_has_nothing_to_do_can_be_cancelled(cluster: Cluster) -> None:
    mine, other = cluster.clients("ndjson", "msgpack")
    mine.register(PAIRS, "pairs")
    mine.insert("a", [1], [2], wait="visible")
    subscription = other.subscribe("pair")
    done = mine.call("cancel", name="pairs")
    assert (done["iteration"], done["modules"]) == (0, ["pairs"]) and "relation" not in done
    assert "it was cancelled" in ended(subscription, "pairs")


def test_limits_that_are_none(cluster: Cluster) -> None:
    client = cluster.open()
    for limits, message in (
        ({"iteration": 5}, "unknown field `iteration`"),
        ({"rows": -1}, "limits"),
        ({"rows": "many"}, "limits"),
        (7, "limits"),
    ):
        with pytest.raises(Refused, match=message) as refused:
            client.call("register", program=RUNAWAY, name="loop", limits=limits)
        assert refused.value.code == "incorrect"
    with pytest.raises(Refused, match="missing field `name` of op `cancel`"):
        client.call("cancel")


@pytest.fixture
def faulty(slot: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster whose modules may ask for something to go wrong."""
    monkeypatch.setenv("DATAFLOW_SERVE_ENABLE_FAULTS", "true")
    cluster = Cluster(*slot.shape)
    yield cluster
    cluster.kill()


def test_a_panic_in_an_expression_ends_its_query_only(faulty: Cluster) -> None:
    mine, other = faulty.clients("ndjson", "msgpack")
    neighbour = Neighbour(other)
    before = counters(mine)
    mine.register(PAIRS, "fault:expression")
    mine.register(".decl copy(x: number)\ncopy(x) :- pair(x, _).\n.output copy", "reader")
    subscriptions = [mine.subscribe("pair"), other.subscribe("copy")]
    mine.insert("a", [1], [2])
    message = ended(subscriptions[0], "fault:expression")
    assert "it failed: a join panicked: a fault was asked for" in message
    ended(subscriptions[1], "reader")
    assert all(step.snapshot for subscription in subscriptions for step in subscription.steps)
    neighbour.is_served()
    assert counters(mine) == before
    assert faulty.alive()


def test_a_panic_elsewhere_ends_the_generation_for_everybody(faulty: Cluster) -> None:
    mine, other = faulty.clients("ndjson", "msgpack")
    neighbour = Neighbour(other)
    mine.register(PAIRS, "fault:operator")
    subscription = mine.subscribe("pair")
    neighbour.is_served()
    mine.start("transact", changes=[{"relation": "a", "insert": [[1], [2]]}])
    for subscribed in (subscription, neighbour.subscription):
        assert subscribed.until_ended()["code"] == "interrupted"
        with pytest.raises(Closed):
            while True:
                subscribed.wire.pump()
    faulty.wait_formed(neighbour.client.info["history"])
    # It had been computed: nobody knows whether it was to blame, and it may be built again.
    faulty.open().register(PAIRS, "fault:operator")


def test_a_program_over_which_the_cluster_fell_twice_is_not_built_again(faulty: Cluster) -> None:
    client = faulty.open(process=-1)
    for _ in range(2):
        neighbour = Neighbour(client)
        neighbour.is_computed(faulty)
        with contextlib.suppress(Refused, Closed):
            # With luck it is answered before it is computed.
            faulty.open().register(CRASHING, "fault:operator")
        assert neighbour.subscription.until_ended()["code"] == "interrupted"
        faulty.close_clients()
        faulty.wait_formed(client.info["history"])
        client = faulty.open(process=-1)
    neighbour = Neighbour(client)
    # It is known by its text, by every process, whichever of them it was that panicked.
    for process, name in ((0, "fault:operator"), (-1, "another name")):
        with pytest.raises(Refused, match=f'module "{name}" is quarantined') as refused:
            faulty.open(process=process).register(CRASHING, name)
        assert refused.value.code == "conflict"
    neighbour.is_served()
    neighbour.client.register(CRASHING.replace("2", "3"), "another program")
    assert sample(faulty, "dataflow_quarantined_programs") >= 1
    assert faulty.alive()

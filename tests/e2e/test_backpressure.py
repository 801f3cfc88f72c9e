"""Nobody harms anybody: readers that sleep, clients that don't read, writers that are too fast, many of them.

Nothing here looks at a clock. What a sleeping reader costs is counted in bytes and messages, and a subscriber
that reads must get every time by itself whatever the others do.
"""

from __future__ import annotations

import contextlib
import resource
import select
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cluster import Cluster
from .test_http import sample, wait_for_sample
from .wire import ENCODINGS, PATIENCE, Subscription, Wire

PAIRS = """
    .decl pair(x: number, y: number, note: symbol)
    .input pair
    .output pair
"""
ROWS = 50
"""Rows that a transaction replaces; a step has these and their predecessors."""
NOTE = "a text that makes rows long where they are sent " * 5
"""Sockets hold some megabytes before a reader counts as slow: with this in each row they fill sooner."""


def replace(number: int, rows: int = ROWS) -> dict[str, object]:
    """A transaction that replaces all rows: contents stay small, what is sent doesn't."""
    return {
        "relation": "pair",
        "delete": [[x, number - 1, NOTE] for x in range(rows)],
        "insert": [[x, number, NOTE] for x in range(rows)],
    }


def contents(number: int, rows: int = ROWS) -> Counter[tuple[int, int, str]]:
    return Counter((x, number, NOTE) for x in range(rows))


@contextlib.contextmanager
def tuned(client: Wire, **tunables: int) -> Iterator[None]:
    """Other tunables for the duration of a block; clusters are handed from test to test."""
    before = client.call("status")["tunables"]
    client.call("tune", **tunables)
    yield
    client.call("tune", **{name: before[name] for name in tunables})


def sleeper(cluster: Cluster, encoding: str = "ndjson", **fields: object) -> Subscription:
    """A subscription whose client reads nothing until it is asked to."""
    return cluster.open(encoding).subscribe("pair", progress=True, **fields)


def overfill(
    cluster: Cluster, writer: Wire, reached: str = "coalesced_steps", rows: int = ROWS
) -> tuple[int, list[int]]:
    """Replace the rows until a figure of the server has grown; how often, and at which times."""
    name = f"dataflow_{reached}_total"
    before, times, number = sample(cluster, name), [], 0
    while sample(cluster, name) == before:
        for _ in range(50):
            number += 1
            times.append(writer.transact(replace(number, rows)))
    return number, times


def test_a_subscriber_that_reads_gets_every_time_while_others_sleep(cluster: Cluster) -> None:
    writer, reader = cluster.clients("msgpack", "msgpack")
    writer.register(PAIRS)
    with tuned(writer, outbox_bytes=1 << 16):
        sleepers = [sleeper(cluster, encoding) for encoding in ENCODINGS]
        awake = reader.subscribe("pair", progress=True)
        before, times = sample(cluster, "dataflow_coalesced_steps_total"), []
        while sample(cluster, "dataflow_coalesced_steps_total") == before:
            for _ in range(50):
                times.append(writer.transact(replace(len(times) + 1)))
                awake.until(times[-1])
        assert [step.time for step in awake.steps[1:]] == times
        for asleep in sleepers:
            assert asleep.until(times[-1]) == contents(len(times))
        assert any(len(asleep.steps) - 1 < len(times) for asleep in sleepers), "nothing was merged"


def test_who_wants_no_times_merged_gets_each_or_the_end(cluster: Cluster) -> None:
    writer, reader = cluster.clients("msgpack", "ndjson")
    writer.register(PAIRS)
    awake = reader.subscribe("pair", slow="end")
    with tuned(writer, outbox_bytes=1 << 16):
        asleep = sleeper(cluster, slow="end", backlog=2_000)
        _, times = overfill(cluster, writer, "dropped_subscriptions")
        assert asleep.until_ended()["code"] == "busy"
        got = [step.time for step in asleep.steps[1:]]
        assert got == times[: len(got)] and 0 < len(got) < len(times)
        assert asleep.end_time == got[-1], "what was reached is said"
    awake.until(times[-1])
    assert [step.time for step in awake.steps[1:]] == times


def test_steps_that_wait_without_being_merged_come_one_by_one(cluster: Cluster) -> None:
    writer = cluster.open("msgpack")
    writer.register(PAIRS)
    with tuned(writer, outbox_bytes=1 << 10):
        asleep = sleeper(cluster, slow="end")
        times = [writer.transact(replace(number)) for number in range(1, 200)]
        assert asleep.until(times[-1]) == contents(199)
        assert [step.time for step in asleep.steps[1:]] == times


def test_a_sleeping_reader_ends_when_more_waits_than_it_allows(cluster: Cluster) -> None:
    """Rows that cancel each other out don't count, so that only the number that differs matters."""
    writer = cluster.open("msgpack")
    writer.register(PAIRS)
    with tuned(writer, outbox_bytes=1 << 16):
        patient, impatient = sleeper(cluster, backlog=4 * ROWS), sleeper(cluster, backlog=ROWS)
        number, times = overfill(cluster, writer, "dropped_subscriptions")
        error = impatient.until_ended()
        assert (error["code"], error["retry"]) == ("busy", True)
        assert impatient.end_time == impatient.steps[-1].time
        assert impatient.contents == contents(times.index(impatient.end_time) + 1)
        assert patient.until(times[-1]) == contents(number)


def test_the_server_bounds_a_backlog_whatever_the_client_asks_for(cluster: Cluster) -> None:
    writer = cluster.open("msgpack")
    writer.register(PAIRS)
    with tuned(writer, outbox_bytes=1 << 16, backlog_rows=ROWS):
        asleep = sleeper(cluster, backlog=1 << 40)
        overfill(cluster, writer, "dropped_subscriptions")
        assert asleep.until_ended()["code"] == "busy"


def test_sleeping_readers_cost_their_buffers_and_no_more(cluster: Cluster) -> None:
    """Six readers sleep through steps of 130 MB; the server may grow by their buffers, not by that."""
    if (cluster.processes, cluster.workers) != (1, 2):
        pytest.skip("one shape shows it")
    writer, size = cluster.open("msgpack"), 1_000
    writer.register(PAIRS)
    with tuned(writer, outbox_bytes=1 << 16):
        sleepers = [sleeper(cluster, "msgpack") for _ in range(6)]
        # Two transactions that undo each other, encoded once.
        there, back = (
            writer.stream.encode({"id": "s", "op": "transact", "changes": [change]})  # type: ignore[union-attr]
            for change in (replace(1, size), {"relation": "pair", **swapped(replace(1, size))})
        )
        for _ in range(30):
            writer.raw_bytes(there)
            writer.raw_bytes(back)
        before = resident_bytes(cluster)
        for _ in range(150):
            writer.raw_bytes(there)
            writer.raw_bytes(back)
        # A step has 440 kB encoded and 64 kB as words; a reader holds at most 2,000 rows merged.
        assert resident_bytes(cluster) - before < 60 << 20
        last = writer.transact(replace(1, size))
        for asleep in sleepers:
            assert asleep.until(last) == contents(1, size)


def swapped(change: dict[str, object]) -> dict[str, object]:
    return {"delete": change["insert"], "insert": change["delete"]}


def test_a_client_that_reads_no_replies_is_not_read_either(cluster: Cluster) -> None:
    """The server stops reading when 1 MiB of replies waits; TCP then stops the client."""
    client = cluster.open("ndjson")
    line = b'{"id": "%s", "op": "ping"}\n' % (b"s" * 8_000)
    burst, sent = line * 20, 0
    client.stream.socket.setblocking(False)
    while select.select([], [client.stream.socket], [], 1.0)[1]:
        with contextlib.suppress(BlockingIOError):
            sent += client.stream.socket.send(burst[sent % len(line) :])
        assert sent < 64 << 20, "the server reads on and on"
    client.stream.socket.settimeout(PATIENCE)
    for _ in range(sent // len(line)):
        assert "ok" in client.next_unsolicited()
    client.stream.send_bytes(line[sent % len(line) :])
    assert "ok" in client.next_unsolicited()


def test_transactions_wait_while_the_relations_are_behind(cluster: Cluster) -> None:
    writer, other = cluster.clients("msgpack", "ndjson")
    writer.register(PAIRS)
    throttled = sample(cluster, "dataflow_throttled_turns_total")
    for number in range(1, 50):
        writer.transact(replace(number))
    assert sample(cluster, "dataflow_throttled_turns_total") == throttled, "nothing was behind"
    with tuned(writer, inflight_bytes=1):
        pending = [writer.start("transact", changes=[replace(number)]) for number in range(50, 300)]
        assert other.call("ping"), "only transactions wait"
        times = [writer.finish(each)["time"] for each in pending]
        assert times == sorted(times)
        assert sample(cluster, "dataflow_throttled_turns_total") > throttled
    assert other.read("pair") == contents(299)


def test_two_thousand_subscribers_of_one_relation(cluster: Cluster) -> None:
    """Each gets each step, which is encoded once for all that want the same on one worker."""
    if (cluster.processes, cluster.workers) != (1, 2):
        pytest.skip("one shape shows it")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2_100
    if hard < wanted:
        pytest.skip(f"the system allows {hard} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    writer = cluster.open("msgpack")
    writer.register(PAIRS)
    subscriptions = [cluster.open("msgpack", hello=False).subscribe("pair") for _ in range(2_000)]
    for subscription in subscriptions:
        subscription.until_step(1)  # snapshots are encoded too
    encoded = sample(cluster, "dataflow_encoded_steps_total")
    for number in range(1, 6):
        writer.transact(replace(number, 10))
    for subscription in subscriptions:
        subscription.until_equal(contents(5, 10))
        assert len(subscription.steps) == 6
    assert sample(cluster, "dataflow_encoded_steps_total") - encoded == 5 * cluster.workers
    wait_for_sample(cluster, "dataflow_subscriptions", 2_000)


def resident_bytes(cluster: Cluster) -> int:
    """Resident memory of all processes of the cluster."""
    return sum(
        int(Path(f"/proc/{member.popen.pid}/statm").read_text().split()[1]) * resource.getpagesize()
        for member in cluster.members
    )

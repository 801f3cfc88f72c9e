"""Subscriptions: snapshots, steps of whole times, who shares what with whom, and how they end."""

from __future__ import annotations

from collections import Counter

import pytest

from .cluster import Cluster
from .wire import ENCODINGS, Refused, Wire
from .world import World

PATHS = """
    .decl edge(x: number, y: number)
    .input edge
    .decl path(x: number, y: number)
    path(x, y) :- edge(x, y).
    path(x, z) :- path(x, y), edge(y, z).
    .output path
"""
LOG = """
    .decl log(k: number, text: symbol) raw
    .input log
"""


def insert(relation: str, *rows: tuple[object, ...]) -> dict[str, object]:
    return {"relation": relation, "insert": [list(row) for row in rows]}


def delete(relation: str, *rows: tuple[object, ...]) -> dict[str, object]:
    return {"relation": relation, "delete": [list(row) for row in rows]}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_snapshot_then_steps(world: World, encoding: str) -> None:
    world.register(PATHS)
    world.transact(insert("edge", (1, 2), (2, 3)))
    subscription = world.subscribe("path", world.cluster.open(encoding))
    world.transact(insert("edge", (3, 1)))
    world.transact(delete("edge", (2, 3)))
    world.compare()
    first, *later = subscription.steps
    assert first.snapshot and first.changes == {(1, 2): 1, (2, 3): 1, (1, 3): 1}
    assert all(not step.snapshot for step in later)


def test_an_empty_relation_has_an_empty_snapshot(world: World) -> None:
    world.register(PATHS)
    for relation in ("edge", "path"):
        subscription = world.subscribe(relation)
        world.compare()
        assert [(step.snapshot, step.changes) for step in subscription.steps] == [(True, {})]


def test_subscribers_that_come_one_after_the_other_all_see_the_same(world: World) -> None:
    world.register(PATHS)
    for number, client in enumerate(world.clients):
        world.subscribe("path", client)
        world.transact(insert("edge", (number, number + 1), (number + 1, 0)))
        world.compare()
    for client in world.clients:
        world.subscribe("path", client)
    world.transact(delete("edge", (1, 2)))
    world.compare()


def test_several_subscriptions_of_one_connection_are_independent(world: World) -> None:
    world.register(PATHS)
    client = world.clients[0]
    one, two, three = (world.subscribe(relation, client) for relation in ("path", "path", "edge"))
    assert len({one.sub, two.sub, three.sub}) == 3
    world.transact(insert("edge", (1, 2), (2, 3)))
    world.compare()
    world.unsubscribe(one)
    world.transact(delete("edge", (1, 2)))
    world.compare()


def test_the_last_subscriber_leaves_and_another_comes(world: World) -> None:
    world.register(PATHS)
    for client in world.clients * 2:
        subscription = world.subscribe("path", client)
        world.transact(insert("edge", (len(subscription.steps), 7), (7, 8)))
        world.compare()
        world.unsubscribe(subscription)
        world.transact(delete("edge", (7, 8)))


def test_nothing_follows_the_reply_to_unsubscribe(cluster: Cluster) -> None:
    writer, reader = cluster.clients("msgpack", "ndjson")
    writer.register(PATHS)
    for number in range(20):
        subscription = reader.subscribe("edge")
        pending = [writer.start("transact", changes=[insert("edge", (number, k))]) for k in range(5)]
        # The subscription is forgotten with the reply, so that any later message for it fails the test.
        reader.unsubscribe(subscription)
        for each in pending:
            writer.finish(each)
        reader.call("ping")


def test_without_snapshot_the_changes_after_the_reply_come(cluster: Cluster) -> None:
    writer, reader = cluster.clients("msgpack", "ws-text")
    writer.register(PATHS)
    writer.insert("edge", (1, 2))
    subscription = reader.subscribe("path", snapshot=False, progress=True)
    time = writer.insert("edge", (2, 3))
    assert subscription.until(time) == Counter({(2, 3): 1, (1, 3): 1})
    assert [(step.snapshot, step.time) for step in subscription.steps] == [(False, time)]


@pytest.mark.parametrize("relation", ["edge", "path"])
def test_where_selects_rows(cluster: Cluster, relation: str) -> None:
    writer, reader = cluster.clients("ndjson", "ws-binary")
    writer.register(PATHS)
    writer.insert("edge", (1, 2), (2, 3), (5, 6))
    subscription = reader.subscribe(relation, where={"x": 1}, progress=True)
    writer.insert("edge", (1, 9), (5, 7))
    time = writer.delete("edge", (2, 3))
    expected = {"edge": {(1, 2): 1, (1, 9): 1}, "path": {(1, 2): 1, (1, 9): 1}}[relation]
    assert subscription.until(time) == expected
    assert reader.read(relation, where={"x": 1}) == expected
    assert reader.read(relation, where={"x": 5, "y": 7}) == {(5, 7): 1}
    assert reader.read(relation, where={"x": 77}) == {}


def test_progress_follows_every_time_whether_or_not_the_relation_changed(cluster: Cluster) -> None:
    writer, reader = cluster.clients("ndjson", "msgpack")
    writer.register(PATHS)
    writer.register(LOG, "log")
    subscription = reader.subscribe("path", progress=True)
    for number in range(5):
        subscription.until(writer.insert("log", (number, "nothing to do with paths")))
        subscription.until(writer.transact())
    assert [step.snapshot for step in subscription.steps] == [True]


def test_a_relation_without_progress_gets_steps_only(cluster: Cluster) -> None:
    writer, reader = cluster.clients("ndjson", "ndjson")
    writer.register(PATHS)
    subscription = reader.subscribe("path")
    writer.insert("edge", (1, 2))
    subscription.until_equal(Counter({(1, 2): 1}))


def test_copies_of_a_raw_relation_arrive_as_differences(world: World) -> None:
    world.register(LOG)
    subscription = world.subscribe("log")
    world.transact(insert("log", (1, "a"), (1, "a"), (2, "b")))
    world.compare()
    assert subscription.steps[-1].changes == {(1, "a"): 2, (2, "b"): 1}
    world.transact(delete("log", (1, "a")))
    late = world.subscribe("log")
    world.transact()
    world.compare()
    assert late.steps[0].changes == {(1, "a"): 1, (2, "b"): 1}


def test_large_snapshots_and_steps_come_in_parts(cluster: Cluster) -> None:
    writer, reader = cluster.clients("msgpack", "msgpack")
    writer.register(LOG)
    subscription = reader.subscribe("log", progress=True)
    rows = [(k, f"a text that takes some room, number {k}") for k in range(20_000)]
    time = writer.insert("log", *rows)
    assert subscription.until(time) == Counter(rows)
    assert [len(step.changes) for step in subscription.steps] == [0, len(rows)], "one step, in parts"
    for encoding in ENCODINGS:
        late = cluster.open(encoding).subscribe("log", progress=True)
        late.until(writer.transact())
        assert late.contents == Counter(rows)
        assert late.steps[0].time == late.time


def test_unregistering_ends_subscriptions(world: World) -> None:
    world.register(PATHS, "paths")
    world.subscribe_all()
    world.transact(insert("edge", (1, 2)))
    world.compare()
    world.unregister("paths")
    for client in world.clients:
        with pytest.raises(Refused, match="not-found"):
            client.subscribe("path")


def test_the_same_name_registered_again_starts_empty(world: World) -> None:
    for _ in range(3):
        world.register(PATHS, "paths")
        world.subscribe_all()
        world.transact(insert("edge", (1, 2), (2, 3)))
        world.compare()
        world.unregister("paths")


def test_a_subscriber_that_vanishes_disturbs_nobody(world: World) -> None:
    world.register(PATHS)
    for encoding in ENCODINGS:
        gone = world.cluster.open(encoding)
        gone.subscribe("path")
        gone.subscribe("edge")
        world.subscribe("path")
        world.transact(insert("edge", (1, 2), (2, 3)))
        gone.stream.socket.close()
        world.transact(delete("edge", (1, 2)))
        world.compare()


def test_every_step_is_a_whole_transaction(cluster: Cluster) -> None:
    """Transfers keep the sum at zero; a subscriber that saw half of one would see another sum."""
    program = """
        .decl entry(id: number, amount: number)
        .input entry
        .decl balance(total: number)
        balance(t) :- t = sum a : { entry(_, a) }.
        .output balance
    """
    watchers = cluster.clients("msgpack", "ws-text")
    writers = cluster.clients(*ENCODINGS)
    watchers[0].register(program)
    entries = [watcher.subscribe("entry", progress=True) for watcher in watchers]
    balances = [watcher.subscribe("balance", progress=True) for watcher in watchers]
    pending: list[tuple[Wire, int]] = []
    for number in range(50):
        for index, writer in enumerate(writers):
            row = 2 * (number * len(writers) + index)
            change = insert("entry", (row, number + 1), (row + 1, -number - 1))
            pending.append((writer, writer.start("transact", changes=[change])))
    last = max(writer.finish(number)["time"] for writer, number in pending)
    for subscription in entries:
        assert len(subscription.until(last)) == 2 * 50 * len(writers)
        for step in subscription.steps:
            assert sum(amount * copies for (_, amount), copies in step.changes.items()) == 0
    for subscription in balances:
        assert subscription.until(last) == {(0,): 1}
        assert len(subscription.steps) == 1, "the balance never changed"

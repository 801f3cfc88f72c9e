"""Transactions: what inserts and deletes mean, one order for all, keys, waiting."""

from __future__ import annotations

import uuid
from collections import Counter

import pytest

from .cluster import Cluster
from .wire import ENCODINGS, Refused, Wire
from .world import World

SHOP = """
    .decl likes(who: symbol, what: symbol)
    .input likes
    .decl price(what: symbol, cents: number) upsert(what)
    .input price
    .decl visit(who: symbol) raw
    .input visit
    .decl popular(what: symbol, n: number)
    popular(w, n) :- likes(_, w), n = count : { likes(_, w) }.
    .output popular
"""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_insert_twice_delete_once_leaves_nothing(cluster: Cluster, encoding: str) -> None:
    client, reader = cluster.open(encoding), cluster.open()
    client.register(SHOP)
    subscription = reader.subscribe("likes", progress=True)
    client.insert("likes", ("ann", "tea"))
    client.insert("likes", ("ann", "tea"))
    time = client.delete("likes", ("ann", "tea"))
    assert subscription.until(time) == {}
    assert reader.read("likes") == {}
    time = client.delete("likes", ("ann", "tea"))
    client.insert("likes", ("bob", "tea"), ("bob", "tea"))
    time = client.delete("likes", ("bob", "tea"))
    assert subscription.until(time) == {}


def test_deletes_of_a_transaction_come_before_its_inserts(world: World) -> None:
    world.register(SHOP)
    world.subscribe_all()
    world.transact({"relation": "likes", "insert": [["ann", "tea"]], "delete": [["ann", "tea"]]})
    world.compare()
    assert world.clients[0].read("likes") == {("ann", "tea"): 1}
    world.transact(
        {"relation": "likes", "insert": [["ann", "jam"]]}, {"relation": "likes", "delete": [["ann", "jam"]]}
    )
    world.compare()
    assert world.clients[0].read("likes") == {("ann", "tea"): 1, ("ann", "jam"): 1}


def test_upsert_keeps_the_later_not_the_greater(world: World) -> None:
    world.register(SHOP)
    world.subscribe_all()
    for first, second in ((5, 7), (7, 5)):
        world.transact({"relation": "price", "insert": [["tea", first], ["tea", second]]})
        world.compare()
        assert world.clients[1].read("price") == {("tea", second): 1}
    world.transact({"relation": "price", "delete": [["tea", 9999]]})
    assert world.clients[2].read("price") == {("tea", 5): 1}
    world.transact({"relation": "price", "delete": [["tea", 5]]})
    assert world.clients[3].read("price") == {}


def test_pipelined_upserts_of_one_connection_take_effect_in_order(world: World) -> None:
    world.register(SHOP)
    for client in world.clients:
        pending = [
            client.start("transact", changes=[{"relation": "price", "insert": [["tea", (k * 37) % 101]]}])
            for k in range(60)
        ]
        for each in pending:
            client.finish(each)
        assert world.next_client().read("price") == {("tea", (59 * 37) % 101): 1}


def test_raw_relations_count_copies(world: World) -> None:
    world.register(SHOP)
    world.subscribe_all()
    world.transact({"relation": "visit", "insert": [["ann"], ["ann"], ["bob"]]})
    world.transact({"relation": "visit", "insert": [["ann"]], "delete": [["bob"]]})
    world.compare()
    assert world.clients[0].read("visit") == {("ann",): 3}


def test_one_transaction_over_several_relations(world: World) -> None:
    world.register(SHOP)
    world.subscribe_all()
    world.transact(
        {"relation": "likes", "insert": [["ann", "tea"], ["bob", "tea"]]},
        {"relation": "price", "insert": [["tea", 3]]},
        {"relation": "visit", "insert": [["ann"]]},
        {"relation": "likes", "insert": [["cid", "jam"]]},
    )
    world.compare()


def test_an_empty_transaction_has_a_time(world: World) -> None:
    times = [world.transact(client=client) for client in world.clients]
    assert times == sorted(times)


@pytest.mark.parametrize("encodings", [("ndjson", "msgpack"), ("ws-text", "ws-binary")])
def test_a_pipelined_connection_cannot_overtake_itself(cluster: Cluster, encodings: tuple[str, str]) -> None:
    """register; transact; read; transact; read; unregister; read, all sent before any reply is read."""
    client, other = cluster.clients(*encodings)
    for _ in range(5):
        numbers = [
            client.start("register", program=SHOP, name="shop"),
            client.start("transact", changes=[{"relation": "likes", "insert": [["ann", "tea"]]}]),
            client.start("read", relation="popular"),
            client.start("transact", changes=[{"relation": "likes", "insert": [["bob", "tea"]]}]),
            client.start("read", relation="popular"),
            client.start("unregister", name="shop"),
        ]
        after = client.start("read", relation="popular")
        replies = [client.finish(number) for number in numbers]
        with pytest.raises(Refused, match="not-found"):
            client.finish(after)
        times = [reply["time"] for reply in replies]
        assert times == sorted(times)
        assert times[3] > times[2] >= times[1] > times[0], "what follows a read or register is later"
        assert replies[2]["rows"] == [["tea", 1]]
        assert replies[4]["rows"] == [["tea", 2]]
        with pytest.raises(Refused, match="not-found"):
            other.read("popular")


def test_reads_anywhere_see_all_acknowledged_writes(cluster: Cluster) -> None:
    clients = cluster.clients(*ENCODINGS, *ENCODINGS)
    clients[0].register(SHOP)
    for number in range(40):
        writer, reader = clients[number % len(clients)], clients[(number * 3 + 1) % len(clients)]
        time = writer.insert("likes", ("ann", str(number)))
        reply = reader.call("read", relation="likes", where={"what": str(number)})
        assert reply["rows"] == [["ann", str(number)]]
        assert reply["time"] >= time


def test_concurrent_writers_of_one_key_are_put_in_one_order(cluster: Cluster) -> None:
    """Whatever that order is, all subscribers and readers agree on it, and it is one of those possible."""
    writers = cluster.clients(*ENCODINGS)
    watchers = cluster.clients("msgpack", "msgpack", "ndjson", "ws-text")
    writers[0].register(SHOP)
    subscriptions = [watcher.subscribe("price", progress=True) for watcher in watchers]
    pending: list[tuple[Wire, int]] = []
    for number in range(50):
        for index, writer in enumerate(writers):
            change = {"relation": "price", "insert": [["tea", 1000 * index + number]]}
            pending.append((writer, writer.start("transact", changes=[change])))
    last = max(writer.finish(number)["time"] for writer, number in pending)
    histories = []
    for subscription in subscriptions:
        (row,) = subscription.until(last)
        assert row[1] in {1000 * index + 49 for index in range(len(writers))}, "somebody's last write"
        histories.append({step.time: step.changes for step in subscription.steps})
    for time in set.intersection(*(set(history) for history in histories)):
        assert all(
            {row for row, n in history[time].items() if n > 0}
            == {row for row, n in histories[0][time].items() if n > 0}
            for history in histories
        )
    assert all(reader.read("price") == Counter(subscriptions[0].contents) for reader in writers)


def test_visible_means_that_derived_relations_have_it_too(cluster: Cluster) -> None:
    writer, reader = cluster.clients("msgpack", "ndjson")
    writer.register(SHOP)
    for number in range(20):
        time = writer.insert("likes", (str(number), "tea"), wait="visible")
        reply = reader.call("read", relation="popular")
        assert reply["time"] >= time
        assert reply["rows"] == [["tea", number + 1]]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_key_applies_once_in_the_whole_cluster(cluster: Cluster, encoding: str) -> None:
    one, two = cluster.clients(encoding, "ndjson")
    one.register(SHOP)
    key = str(uuid.uuid4())
    changes = [{"relation": "visit", "insert": [["ann"]]}]
    first = one.call("transact", changes=changes, key=key)
    assert "deduplicated" not in first
    again = [client.call("transact", changes=changes, key=key) for client in (one, two)]
    assert again == [{"time": first["time"], "deduplicated": True}] * 2
    assert two.read("visit") == {("ann",): 1}
    for client in (one, two):
        with pytest.raises(Refused, match="conflict"):
            client.call("transact", changes=[{"relation": "visit", "insert": [["bob"]]}], key=key)
    assert two.read("visit") == {("ann",): 1}


def test_a_key_sent_by_two_at_once_applies_once(cluster: Cluster) -> None:
    clients = cluster.clients(*ENCODINGS)
    clients[0].register(SHOP)
    for number in range(20):
        key = str(uuid.uuid4())
        changes = [{"relation": "visit", "insert": [[str(number)]]}]
        pending = [client.start("transact", changes=changes, key=key) for client in clients]
        replies = [client.finish(each) for client, each in zip(clients, pending, strict=True)]
        assert len({reply["time"] for reply in replies}) == 1
        assert sorted("deduplicated" in reply for reply in replies) == [False, True, True, True]
    assert clients[1].read("visit") == Counter((str(number),) for number in range(20))


def test_a_rejected_transaction_does_not_use_up_its_key(cluster: Cluster) -> None:
    client = cluster.open()
    client.register(SHOP)
    key = str(uuid.uuid4())
    with pytest.raises(Refused, match="incorrect"):
        client.call("transact", changes=[{"relation": "visit", "insert": [[7]]}], key=key)
    assert "deduplicated" not in client.call(
        "transact", changes=[{"relation": "visit", "insert": [["ann"]]}], key=key
    )


def test_a_row_that_does_not_fit_leaves_the_whole_transaction_without_effect(cluster: Cluster) -> None:
    client = cluster.open("msgpack")
    client.register(SHOP)
    with pytest.raises(Refused, match="incorrect"):
        client.transact(
            {"relation": "likes", "insert": [["ann", "tea"]]}, {"relation": "price", "insert": [["tea", "x"]]}
        )
    assert client.read("likes") == {}
    assert client.read("price") == {}


def test_a_large_load_is_cut_over_several_times(cluster: Cluster) -> None:
    client = cluster.open("msgpack")
    client.register(".decl load(x: number)\n.input load", "load")
    before = client.call("status")["tunables"]["max_rows_per_time"]
    client.call("tune", max_rows_per_time=10)
    try:
        # Sent together, they would have one time or two.
        requests = [
            client.start(
                "transact",
                changes=[{"relation": "load", "insert": [[10 * n + x] for x in range(10)]}],
            )
            for n in range(20)
        ]
        times = [client.finish(request)["time"] for request in requests]
        assert times == sorted(set(times)), "each fills a time by itself"
        # One transaction is never divided.
        subscription = client.subscribe("load", snapshot=False, progress=True)
        time = client.insert("load", *([x] for x in range(1000, 2000)))
        subscription.until(time)
        assert [(step.time, len(step.changes)) for step in subscription.steps] == [(time, 1000)]
    finally:
        client.call("tune", max_rows_per_time=before)

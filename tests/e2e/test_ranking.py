"""Rows in an order, and the first of them live: equal to sorting from scratch after every transaction."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from .cluster import Cluster
from .wire import Contents, Refused, Row, Subscription, Wire
from .world import World, difference

SCORES = """
    .decl score(name: symbol, points: number, at: instant)
    .input score
    .decl log(points: number, text: symbol) raw
    .input log
    .decl best(name: symbol, points: number)
    best(n, p) :- score(n, p, _), !beaten(n, p).
    .decl beaten(name: symbol, points: number)
    beaten(n, p) :- score(n, p, _), score(n, q, _), p < q.
    .output best
"""
COLUMNS = {
    "score": ["name", "points", "at"],
    "log": ["points", "text"],
    "best": ["name", "points"],
}


@dataclass
class Wish:
    """What is asked for, and a subscription to it."""

    relation: str
    order: Sequence[str]
    limit: int | None
    where: dict[str, Any]
    subscription: Subscription | None = None

    def fields(self) -> dict[str, Any]:
        limit = {} if self.limit is None else {"limit": self.limit}
        return {"relation": self.relation, "order": list(self.order), "where": self.where, **limit}

    def sorted(self, contents: Contents) -> list[Row]:
        """The rows wanted, in order, from scratch."""
        columns = COLUMNS[self.relation]
        rows = sorted(
            row
            for row in (+contents).elements()
            if all(row[columns.index(name)] == value for name, value in self.where.items())
        )
        for name in reversed(self.order):
            at = columns.index(name.removeprefix("-"))
            rows.sort(key=lambda row: row[at], reverse=name.startswith("-"))
        return rows[: self.limit]


def check(world: World, wishes: Sequence[Wish]) -> None:
    """Hold subscriptions and reads against the sorted contents at the last time."""
    for wish in wishes:
        rows = wish.sorted(world.model.contents(wish.relation))
        if wish.subscription is not None:
            found = wish.subscription.until(world.time)
            assert found == Counter(rows), difference(str(wish), found, Counter(rows))
        client = world.next_client()
        answer = client.call("read", **wish.fields())
        assert [client.row(row, answer) for row in answer["rows"]] == rows, wish


def follow(world: World, wish: Wish, client: Wire | None = None) -> Wish:
    fields = wish.fields()
    client = client or world.next_client()
    wish.subscription = client.subscribe(fields.pop("relation"), progress=True, **fields)
    return wish


def test_the_first_rows_are_those_of_the_sorted_relation(world: World, rng: random.Random) -> None:
    world.register(SCORES)
    for _ in range(6):
        world.transact_random(rng)
    wishes = [
        Wish("score", ["-points", "name"], 3, {}),
        Wish("score", ["-points", "name"], 1, {}),
        Wish("score", ["name"], 4, {}),
        Wish("score", ["-name", "at"], 2, {"points": 1}),
        Wish("log", ["-text"], 3, {}),
        Wish("best", ["points", "-name"], 2, {}),
        Wish("best", [], 3, {}),
    ]
    for wish in wishes:
        follow(world, wish)
    unlimited = [Wish("score", ["at", "-name"], None, {}), Wish("log", ["text", "-points"], None, {})]
    for number in range(25):
        world.transact_random(rng)
        check(world, [*wishes, *unlimited])
        if number == 8:
            # Late ones: one that nobody has asked for yet, and one more of the same.
            wishes += [follow(world, Wish("best", ["-points"], 5, {}))]
            wishes += [follow(world, Wish("score", ["-points", "name"], 3, {}))]
        if number == 14:
            leaving = wishes.pop(0).subscription
            assert leaving is not None
            leaving.wire.unsubscribe(leaving)


def test_a_step_is_what_changes_among_the_first_rows(world: World) -> None:
    world.register(".decl n(x: number, y: symbol) .input n")
    client = world.clients[0]
    world.transact(
        {"relation": "n", "insert": [[number, "long enough to be a hash"] for number in range(10)]}
    )
    live = client.subscribe("n", order=["-x"], limit=3)
    live.until_step(1)
    text = "long enough to be a hash"
    # Nothing of these is among the first three: the step after the snapshot is the one of 20.
    client.insert("n", [-1, text])
    client.delete("n", [4, text])
    client.insert("n", [20, text])
    client.delete("n", [9, text], [8, text])
    live.until_step(3)
    first, second, third = live.steps
    assert first.snapshot and first.changes == {(number, text): 1 for number in (9, 8, 7)}
    assert second.changes == {(20, text): 1, (7, text): -1}
    assert third.changes == {(9, text): -1, (8, text): -1, (7, text): 1, (6, text): 1}


def test_equal_wishes_share_a_dataflow_and_the_last_one_leaves_nothing(world: World) -> None:
    world.register(SCORES)
    world.transact({"relation": "log", "insert": [[number, "x"] for number in range(50)]})

    def held() -> tuple[int, int]:
        counters = world.clients[0].call("status")["counters"]
        return counters["dataflows"], counters["traces"]

    workers = len(world.clients[0].call("status")["workers"])
    before = held()
    same = [client.subscribe("log", order=["-points"], limit=4) for client in world.clients]
    for live in same:
        live.until_equal(Counter({(number, "x"): 1 for number in range(46, 50)}))
    assert held() == (before[0] + workers, before[1] + workers)
    other = world.clients[0].subscribe("log", order=["-points"], limit=5)
    assert held() == (before[0] + 2 * workers, before[1] + 2 * workers)
    for live in (*same[1:], other):
        live.wire.unsubscribe(live)
    assert held() == (before[0] + workers, before[1] + workers)
    # One whose client is gone without a word.
    world.clients[1].subscribe("log", order=["points"], limit=1)
    world.clients[1].close()
    world.clients[0].unsubscribe(same[0])
    while held() != before:
        world.clients[0].call("ping")


def test_they_end_with_their_relation(world: World) -> None:
    world.register(SCORES)
    live = world.clients[0].subscribe("best", order=["-points"], limit=1)
    plain = world.clients[1].subscribe("best")
    world.unregister("program")
    assert live.until_ended()["code"] == plain.until_ended()["code"] == "not-found"
    world.register(SCORES)
    again = world.clients[0].subscribe("best", order=["-points"], limit=1)
    again.until_step(1)


def test_what_cannot_be_ordered_is_refused(cluster: Cluster) -> None:
    client, *_ = cluster.clients("ndjson")
    client.register(".type P = [x: number] .decl a(n: number, p: P) .input a")

    def refused(op: str, **fields: Any) -> tuple[str, str]:
        with pytest.raises(Refused) as refusal:
            client.call(op, relation="a", **fields)
        return refusal.value.code, refusal.value.message

    assert refused("subscribe", order=["n"]) == (
        "incorrect",
        "cannot subscribe to relation `a` in an order without `limit`",
    )
    assert refused("read", order=["m"]) == ("incorrect", "unknown column `m` of relation `a` in `order`")
    assert refused("read", order=["p"]) == (
        "unsupported",
        "cannot order relation `a` by column `p`: values of P have no order",
    )
    for op in ("read", "subscribe"):
        assert refused(op, order=["n"], limit=65_537) == (
            "too-large",
            "cannot order the first 65537 rows of a: 65536 are the most",
        )


def test_so_many_first_rows_are_kept_and_no_more(cluster: Cluster) -> None:
    client, *_ = cluster.clients("ndjson")
    client.register(".decl a(n: number) .input a")
    client.insert("a", [1], [2], [3])
    client.call("tune", rankings=2)
    try:
        one = client.subscribe("a", order=["n"], limit=1)
        client.subscribe("a", order=["n"], limit=2)
        client.subscribe("a", order=["n"], limit=2)
        with pytest.raises(Refused) as refusal:
            client.call("subscribe", relation="a", order=["n"], limit=3)
        assert (refusal.value.code, refusal.value.message) == (
            "busy",
            "cannot subscribe to the first rows of a: the cluster keeps 2 such",
        )
        client.unsubscribe(one)
        client.subscribe("a", order=["n"], limit=3).until_equal(Counter({(1,): 1, (2,): 1, (3,): 1}))
        client.call("tune", ranking_rows=2)
        with pytest.raises(Refused, match="too-large"):
            client.call("read", relation="a", order=["n"], limit=3)
    finally:
        client.call("tune", rankings=1024, ranking_rows=65_536)

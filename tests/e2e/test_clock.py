"""Rules that read `now`: equal to evaluation from scratch as the clock and the rows move.

Nothing here waits for time: the clock is set by hand, or goes fast.
"""

from __future__ import annotations

import datetime
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.oracle.evaluator import evaluate_texts

from .cluster import Cluster
from .wire import Contents, Refused, Subscription, Wire

NOON = datetime.datetime(2020, 1, 1, 12, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
BASE = ".decl seen(who: symbol, at: instant, d: number) .input seen .decl away(who: symbol) .input away"
RULES = """
    .decl recent(who: symbol, at: instant)
    recent(w, t) :- seen(w, t, _), now(n), n - t < 10 * 1000000, t <= n.
    .decl lasting(who: symbol)
    lasting(w) :- seen(w, t, d), !away(w), now(n), n < t + d.
    .decl present(count: number)
    present(c) :- c = count : { seen(_, t, _), now(n), t <= n }.
    .decl shown(who: symbol, left: number)
    shown(w, t - n) :- seen(w, t, _), now(n), t > n.
    .decl met(x: symbol, y: symbol)
    met(x, y) :- recent(x, t), recent(y, t), x < y.
    met(x, z) :- met(x, y), met(y, z).
"""
DERIVED = ("recent", "lasting", "present", "shown", "met")


@pytest.fixture
def by_hand(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster whose clock moves only if it is told to."""
    (client,) = cluster.clients("ndjson")
    client.call("tune", now_tick_ms=0)
    yield cluster
    (client,) = cluster.clients("ndjson")
    client.call("tune", now_tick_ms=1_000)


class Clocked:
    """What must be there, from scratch."""

    def __init__(self) -> None:
        self.seen: set[tuple[Any, ...]] = set()
        self.away: set[tuple[Any, ...]] = set()
        self.now: datetime.datetime | None = None

    def contents(self, relation: str) -> Contents:
        clock = ".decl now(t: instant) .input now"
        rows = {
            "seen": list(self.seen),
            "away": list(self.away),
            "now": [] if self.now is None else [(self.now,)],
        }
        return evaluate_texts([BASE, clock, RULES], rows)[relation]


def present(client: Wire) -> datetime.datetime:
    """What the clock shows: clusters are handed on, and it doesn't go back."""
    shown = client.call("status")["now"]
    return NOON if shown is None else datetime.datetime.fromisoformat(shown)


def test_rows_come_and_go_by_the_clock(by_hand: Cluster, rng: random.Random) -> None:
    clients = by_hand.clients("ndjson", "msgpack")
    model = Clocked()
    clients[0].register(BASE, "base")
    start = max(present(clients[0]), NOON) + SECOND
    model.now = start
    clients[0].call("advance", now=start)
    clients[1].register(RULES, "rules")
    live: list[Subscription] = []
    for turn in range(30):
        client = rng.choice(clients)
        if turn in (2, 15):
            live += [client.subscribe(relation, progress=True) for relation in DERIVED]
        if rng.random() < 0.4:
            model.now += rng.choice((1, 3, 8)) * SECOND
            time = client.call("advance", now=model.now)["time"]
        else:
            row = (
                rng.choice("abcde"),
                start + rng.randint(-5, 60) * SECOND,
                rng.choice((0, 5_000_000, -5_000_000)),
            )
            gone = [row for row in sorted(model.seen) if rng.random() < 0.2]
            model.seen.difference_update(gone)
            model.seen.add(row)
            changes = [{"relation": "seen", "insert": [list(row)], "delete": [list(each) for each in gone]}]
            if rng.random() < 0.3:
                away = (rng.choice("abcde"),)
                kind = "delete" if away in model.away else "insert"
                model.away.symmetric_difference_update({away})
                changes.append({"relation": "away", kind: [list(away)]})
            time = client.transact(*changes)
        for relation in DERIVED:
            expected = model.contents(relation)
            assert rng.choice(clients).read(relation) == expected, (turn, relation)
            for subscription in live:
                if subscription.relation == relation:
                    assert subscription.until(time) == expected, (turn, relation)


def test_a_tick_looks_at_what_is_due_alone(by_hand: Cluster) -> None:
    client, other = by_hand.clients("msgpack", "msgpack")
    start = max(present(client), NOON) + SECOND
    client.call("advance", now=start)
    client.register(BASE, "base")
    rows = [[f"somebody number {number}", start + (number + 10) * SECOND, 0] for number in range(5_000)]
    client.insert("seen", *rows)
    client.register(".decl due(who: symbol) due(w) :- seen(w, t, _), now(n), t <= n, n < t + 1000000.", "due")
    live = client.subscribe("due", progress=True)

    def looked_at() -> int:
        return int(client.call("status")["counters"]["window_rows"])

    live.until_step(1)
    before = looked_at()
    for moment in range(1, 9):
        live.until(other.call("advance", now=start + moment * SECOND)["time"])
    assert looked_at() == before
    live.until(other.call("advance", now=start + 10 * SECOND)["time"])
    assert looked_at() == before + 1
    assert live.contents == Counter({("somebody number 0",): 1})
    live.until(other.call("advance", now=start + 12 * SECOND)["time"])
    assert live.contents == Counter({("somebody number 2",): 1})
    # The first went, the second came and was over, the third came.
    assert looked_at() == before + 4


def test_the_clock_is_there_while_a_program_reads_it(by_hand: Cluster) -> None:
    client, *_ = by_hand.clients("ndjson")
    client.register(BASE, "base")

    def held() -> tuple[int, int]:
        counters = client.call("status")["counters"]
        return counters["dataflows"], counters["traces"]

    before = held()
    for name in ("rules", "again"):
        client.register(RULES if name == "rules" else ".decl x(t: instant) x(n) :- now(n).", name)
    assert client.read("x") == Counter({(present(client),): 1})
    client.call("unregister", name="rules")
    assert held() != before
    client.call("unregister", name="again")
    assert held() == before


def test_the_clock_goes_forward_only_and_by_one_hand(by_hand: Cluster) -> None:
    client, *_ = by_hand.clients("ndjson")
    now = max(present(client), NOON) + SECOND
    client.call("advance", now=now)
    client.call("advance", now=now)

    def refused(moment: object) -> tuple[str, str]:
        with pytest.raises(Refused) as refusal:
            client.call("advance", now=moment)
        return refusal.value.code, refusal.value.message

    code, message = refused(now - SECOND)
    assert code == "conflict" and "already" in message, message
    assert refused("noon")[0] == "incorrect"
    client.call("tune", now_tick_ms=60_000)
    code, message = refused(now + SECOND)
    assert code == "conflict" and "moves by itself, every 60000 ms" in message, message


@pytest.mark.parametrize("shape", [(1, 2), (2, 1)])
def test_it_moves_by_itself_while_a_program_reads_it(shape: tuple[int, int]) -> None:
    cluster = Cluster(*shape, "--tune=now_tick_ms=1")
    try:
        client, *_ = cluster.clients("ndjson")
        assert client.call("status")["now"] is None, "nobody has read it"
        client.register(".decl shown(t: instant) shown(n) :- now(n).", "shown")
        live = client.subscribe("shown")
        # However fast it goes, it goes on, and forward.
        live.until_step(4)
        first, *later = live.steps
        assert first.snapshot and len(first.changes) == 1, "it shows something from the beginning"
        shown = [row[0] for step in live.steps for row, diff in step.changes.items() if diff > 0]
        assert len(shown) == len(live.steps) and shown == sorted(set(shown))
        assert all(sorted(step.changes.values()) == [-1, 1] for step in later)
    finally:
        cluster.kill()

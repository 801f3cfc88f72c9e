"""Texts that come and go for good: what nothing holds is dropped, and nobody notices.

At its least, `dictionary_bytes` has a sweep begin whenever the dictionary has doubled, so often.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .cluster import Cluster
from .sources import on_one_shape, until_rows
from .test_backpressure import tuned
from .test_http import sample, samples
from .wire import ENCODINGS
from .world import World

BASE = """
    .type Pair = [left: symbol, right: symbol]
    .decl note(k: number, text: symbol)
    .input note
    .decl latest(k: number, text: symbol) upsert(k)
    .input latest
    .decl seen(text: symbol) raw
    .input seen
    .decl kept(k: number, pair: Pair)
    .input kept
"""
RULES = """
    .type Pair = [left: symbol, right: symbol]
    .decl loud(k: number, text: symbol)
    loud(k, cat(t, ", and a text of the program's")) :- note(k, t).
    .decl paired(pair: Pair)
    paired([x, y]) :- note(k, x), latest(k, y).
    .decl half(text: symbol)
    half(x) :- kept(_, [x, _]).
    half(x) :- paired([_, x]).
    .decl greatest(text: symbol)
    greatest(m) :- m = max t : { seen(t) }.
    .decl near(x: symbol, y: symbol)
    near(x, y) :- note(k, x), note(k + 1, y).
    near(x, z) :- near(x, y), near(y, z).
"""
EXTRA = """
    .decl extra(text: symbol)
    extra("a text that no row has") :- note(_, _).
    extra(t) :- loud(_, t).
"""
LASTING = """
    .decl lasting(x: number, text: symbol)
    lasting(x, cat(t, ", and this")) :- e(x, t), now(n), n >= to_instant("2020-01-01T00:00:00Z"), x >= 0.
"""


@pytest.fixture
def sweeping(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster that sweeps its dictionary as often as it can."""
    with tuned(cluster.open(), dictionary_bytes=1):
        yield cluster


def sweeps(cluster: Cluster) -> float:
    """The least number of sweeps that a process of the cluster has been through."""
    return min(of_processes(cluster, "dataflow_dictionary_sweeps_total"))


def entries(cluster: Cluster) -> float:
    """The most entries that the dictionary of a process has."""
    return max(of_processes(cluster, "dataflow_dictionary_entries"))


def of_processes(cluster: Cluster, figure: str) -> list[float]:
    return [samples(cluster, figure, process)[""] for process in range(cluster.processes)]


def text(number: object) -> str:
    return f"a text of much more than a word and its number {number}"


def one_round(number: int, rng: random.Random) -> list[dict[str, Any]]:
    """Changes that bring texts which were never there, and take away what came two rounds ago."""

    def rows(of: int) -> dict[str, list[list[Any]]]:
        fixed = random.Random(of)
        numbered = [(k, text(f"{of}.{fixed.randrange(9)}")) for k in range(of, of + 5)]
        return {
            "note": [[k, t] for k, t in numbered],
            "seen": [[t] for _, t in numbered],
            "kept": [[k, (t, text(f"{of}, within"))] for k, t in numbered],
        }

    changes: list[dict[str, Any]] = []
    old, new = rows(number - 2), rows(number)
    for relation in new:
        delete = old[relation] if number >= 2 else []
        changes.append({"relation": relation, "delete": delete, "insert": new[relation]})
    replaced = [[rng.randrange(8), text(f"{number}, the latest")] for _ in range(2)]
    changes.append({"relation": "latest", "insert": replaced})
    rng.shuffle(changes)
    return changes


def test_results_are_as_they_should_be_in_the_middle_of_sweeps(sweeping: Cluster, rng: random.Random) -> None:
    world = World(sweeping)
    world.register(BASE, "base")
    world.register(RULES, "rules")
    for client in world.clients:
        for relation in rng.sample(world.all_relations(), 3):
            world.subscribe(relation, client)
    before = sweeps(sweeping)
    for number in itertools.count():
        world.transact(*one_round(number, rng))
        if number % 3 == 0:
            world.compare()
        if number % 10 == 5:
            # A program that comes in the middle, with a text that it alone knows.
            world.register(EXTRA, "extra")
            world.subscribe("extra")
        if number % 10 == 8:
            world.unregister("extra")
        if number >= 30 and sweeps(sweeping) >= before + 5:
            break
    world.compare()


def test_the_dictionary_stays_small_whatever_has_been_in_it(sweeping: Cluster, rng: random.Random) -> None:
    clients = sweeping.clients(*ENCODINGS)
    clients[0].register(BASE, "base")
    clients[1].register(RULES, "rules")
    rounds = itertools.count()

    def go_on() -> float:
        number = next(rounds)
        clients[number % 4].transact(*one_round(number, rng))
        return entries(sweeping)

    # Every round brings some 20 values, of which two rounds' are held. There may be many of an earlier test.
    while go_on() > 300:
        pass
    sizes = [go_on() for _ in range(300)]
    assert max(sizes) < 1000, sizes


def test_what_waits_for_a_slow_reader_is_not_forgotten(sweeping: Cluster) -> None:
    writer, other = sweeping.clients("msgpack", "ndjson")
    writer.register(".decl pair(x: number, y: symbol)\n.input pair\n.output pair", "pairs")
    with tuned(writer, outbox_bytes=1 << 16):
        sleepers = [sweeping.open(encoding).subscribe("pair", progress=True) for encoding in ENCODINGS]
        before, number, time = sample(sweeping, "dataflow_coalesced_steps_total"), 0, 0

        def rows(of: int) -> list[list[Any]]:
            return [[x, text(f"{of}.{x} ") * 5] for x in range(50)]

        while sample(sweeping, "dataflow_coalesced_steps_total") == before:
            for _ in range(20):
                number += 1
                writer.transact({"relation": "pair", "delete": rows(number - 1), "insert": rows(number)})
        # What the sleepers haven't been told of has left the relation, and the dictionary is swept of it.
        swept = sweeps(sweeping)
        while sweeps(sweeping) < swept + 3:
            number += 1
            time = other.transact({"relation": "pair", "delete": rows(number - 1), "insert": rows(number)})
        expected = Counter({tuple(row): 1 for row in rows(number)})
        for sleeper in sleepers:
            assert sleeper.until(time) == expected


def test_a_text_of_the_program_alone_is_not_forgotten(sweeping: Cluster) -> None:
    client, other = sweeping.clients("ndjson", "msgpack")
    client.register(".decl e(x: number, t: symbol)\n.input e", "base")
    client.register(
        '.decl said(t: symbol)\nsaid(cat("a text that only this program has, ", t)) :- e(1, t).\n'
        'said("another one, of which no row holds anything") :- e(2, _).',
        "saying",
    )
    before, number = sweeps(sweeping), 0
    while sweeps(sweeping) < before + 3:
        number += 1
        other.transact({"relation": "e", "insert": [[0, text(f"{number}.{n}")] for n in range(50)]})
    other.insert("e", [1, "x"], [2, "x"])
    expected = ["a text that only this program has, x", "another one, of which no row holds anything"]
    for each in (client, other):
        assert each.read("said") == Counter({(t,): 1 for t in expected})


def test_first_rows_and_windows_are_not_forgotten(sweeping: Cluster) -> None:
    client, other = sweeping.clients("ndjson", "msgpack")
    with tuned(client, now_tick_ms=0):
        client.register(".decl e(x: number, t: symbol)\n.input e", "base")
        shown = client.call("status")["now"]
        if shown is None:
            client.call("advance", now="2020-01-01T00:00:00Z")
        client.register(LASTING, "lasting")
        first = other.subscribe("e", progress=True, order=["-t"], limit=2)
        live = client.subscribe("lasting", progress=True)
        before, number, time = sweeps(sweeping), 0, 0
        held: list[list[Any]] = []
        while sweeps(sweeping) < before + 4 or number < 20:
            number += 1
            new = [[n, text(f"{number}.{n}")] for n in range(20)]
            time = other.transact({"relation": "e", "delete": held, "insert": new})
            held = new
        by_text = sorted(held, key=lambda row: row[1], reverse=True)
        assert first.until(time) == Counter({tuple(row): 1 for row in by_text[:2]})
        assert live.until(time) == Counter({(x, f"{t}, and this"): 1 for x, t in held})


@on_one_shape
def test_a_file_is_followed_in_the_middle_of_sweeps(sweeping: Cluster, tmp_path: Path) -> None:
    (client,) = sweeping.clients("msgpack")
    client.register(
        ".decl event(n: number, t: symbol)\n.input event\n"
        '.decl loud(n: number, t: symbol)\nloud(n, cat(t, ", loudly")) :- event(n, t).\n'
        ".decl other(t: symbol)\n.input other",
        "events",
    )
    live = client.subscribe("loud")
    path = tmp_path / "events.csv"
    path.touch()
    client.call("attach", name="events", source={"kind": "files", "path": str(path), "relation": "event"})
    before, count = sweeps(sweeping), 0
    while sweeps(sweeping) < before + 5:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(f"{n},{text(n)}\n" for n in range(count, count + 100))
        count += 100
        client.insert("other", *([text(f"other {count}.{n}")] for n in range(100)))
        client.delete("other", *([text(f"other {count}.{n}")] for n in range(100)))
        until_rows(live, count)
    assert live.contents == Counter({(n, f"{text(n)}, loudly"): 1 for n in range(count)})
    client.call("detach", name="events")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_next_generation_sweeps_whatever_the_last_one_was_at(workers: int, rng: random.Random) -> None:
    cluster = Cluster(2, workers, "--tune", "dictionary_bytes=1")
    try:
        for generation in range(3):
            world = World(cluster)
            world.register(BASE, "base")
            world.register(RULES, "rules")
            before, number = sweeps(cluster), 0
            while sweeps(cluster) < before + 3:
                world.transact(*one_round(number, rng))
                if number % 5 == 0:
                    world.compare()
                number += 1
            world.compare()
            if generation < 2:
                cluster.kill_member(generation)
                cluster.close_clients()
                cluster.restart(generation)
    finally:
        cluster.kill()
        print(cluster.report())

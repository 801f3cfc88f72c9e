"""Files that grow, read by a real server: attached by its configuration or by clients, while it runs."""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .cluster import SHAPES, Cluster
from .sources import on_one_shape, on_some_shapes, source, until, until_rows
from .wire import Contents, Refused, Wire

EVENTS = """
.decl event(name: symbol, n: number, x: float) raw
.input event
.decl total(name: symbol, n: number)
.output total
total(name, s) :- event(name, _, _), s = sum n : event(name, n, _).
"""
LATEST = ".decl latest(k: number, v: symbol) upsert(k)\n.input latest"


def events(rng: random.Random, count: int) -> list[tuple[str, int, float]]:
    names = [
        "ann",
        "bob",
        "a name of more than seven bytes",
        "with, a comma",
        'with "quotes"',
        "ünï\ntwo lines",
    ]
    return [(rng.choice(names), rng.randrange(-99, 99), rng.randrange(8) / 4) for _ in range(count)]


def csv_line(row: tuple[Any, ...]) -> str:
    cells = [
        '"{}"'.format(str(cell).replace('"', '""')) if isinstance(cell, str) else str(cell) for cell in row
    ]
    return ",".join(cells) + "\n"


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def totals(rows: list[tuple[str, int, float]]) -> Contents:
    sums = Counter[str]()
    for name, n, _ in rows:
        sums[name] += n
    return Counter({(name, sums[name]): 1 for name, _, _ in rows})


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Wire]:
    """A client of the last process; what it leaves attached is detached."""
    client = cluster.open("msgpack", cluster.processes - 1)
    yield client
    for each in client.call("status")["sources"]:
        client.call("detach", name=each["name"])


@pytest.fixture(scope="module", params=SHAPES[1::2], ids=lambda shape: f"{shape[0]}x{shape[1]}")
def configured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, Path]]:
    """A cluster whose processes are all told to read the same files; the first to say so does."""
    directory = tmp_path_factory.mktemp("logs")
    config = directory / "server.toml"
    config.write_text(
        f'[[source]]\nname = "log"\nkind = "files"\npath = "{directory}/*.csv"\nrelation = "event"\n'
    )
    cluster = Cluster(*request.param, "--config", str(config))
    yield cluster, directory
    cluster.kill()


def test_files_of_the_configuration_are_followed(
    configured: tuple[Cluster, Path], rng: random.Random
) -> None:
    cluster, directory = configured
    client = cluster.open("ndjson")
    rows = events(rng, 300)
    append(directory / "a.csv", "".join(map(csv_line, rows[:100])))
    status = until(client, "log", lambda status: status["state"] == "waiting")
    assert (status["kind"], status["relations"], status["rows"]) == ("files", ["event"], 0)
    client.register(EVENTS)
    total = client.subscribe("total")
    total.until_equal(totals(rows[:100]))
    for at, name in [(100, "a"), (150, "b"), (200, "c"), (250, "a")]:
        append(directory / f"{name}.csv", "".join(map(csv_line, rows[at : at + 50])))
    total.until_equal(totals(rows))
    assert client.read("event") == Counter(rows)
    status = until(client, "log", lambda status: status["rows"] == 300 and status["lag_bytes"] == 0)
    assert (status["state"], status["bad_rows"], status.get("error")) == ("running", 0, None)
    owners = {each["worker"] for each in status["partitions"]}
    assert len(owners) == min(3, cluster.workers), "partitions are dealt to the workers of their process"
    client.call("detach", name="log")
    assert source(client, "log") is None


@on_some_shapes
def test_a_file_is_attached_and_detached_by_any_process(
    cluster: Cluster, client: Wire, tmp_path: Path, rng: random.Random
) -> None:
    log = tmp_path / "log.ndjson"
    rows = events(rng, 40)
    append(log, "".join(json.dumps(row) + "\n" for row in rows[:20]))
    client.register(EVENTS)
    attached = client.call(
        "attach", name="log", source={"kind": "files", "path": str(log), "relation": "event"}
    )
    assert attached.keys() == {"time"}
    event = client.subscribe("event")
    until_rows(event, 20)
    other = cluster.open("ndjson", 0)
    with pytest.raises(Refused, match=r"cannot attach source \"log\": process . has one of that name"):
        other.call("attach", name="log", source={"kind": "files", "path": "x", "relation": "event"})
    detached = other.call("detach", name="log")
    assert detached.keys() == {"time"} and detached["time"] >= event.time
    assert source(other, "log") is None
    append(log, json.dumps(rows[20]) + "\n")
    with pytest.raises(Refused, match='no source "log" is attached'):
        other.call("detach", name="log")
    assert client.read("event") == Counter(rows[:20]), "rows stay, and nothing is read any more"
    # Attached again it begins at the beginning: the relation is a multiset and shows it.
    client.call("attach", name="log", source={"kind": "files", "path": str(log), "relation": "event"})
    until_rows(event, 41)
    assert event.contents == Counter(rows[:20]) + Counter(rows[:21])


@on_some_shapes
def test_a_name_that_many_fight_over_is_whose_it_was_last(
    cluster: Cluster, client: Wire, tmp_path: Path, rng: random.Random
) -> None:
    log = tmp_path / "log.csv"
    described = {"kind": "files", "path": str(log), "relation": "latest"}
    client.register(LATEST)
    latest = client.subscribe("latest")
    processes = 2 * cluster.workers * list(range(cluster.processes))
    fighters = [cluster.open("ndjson", process) for process in processes]
    for number in range(30):
        asked = []
        for fighter in rng.sample(4 * fighters, 4 * len(fighters)):
            if rng.random() < 0.5:
                asked.append((fighter, fighter.start("attach", name="log", source=described)))
            else:
                asked.append((fighter, fighter.start("detach", name="log")))
        for fighter, request in asked:
            with contextlib.suppress(Refused):
                fighter.finish(request)
        with contextlib.suppress(Refused):
            client.call("detach", name="log")
        assert source(client, "log") is None, "it goes on, though it was detached"
        client.call("attach", name="log", source=described)
        append(log, f"{number},a\n")
        latest.until_equal(Counter({(each, "a"): 1 for each in range(number + 1)}))


@on_one_shape
@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"kind": "files", "relation": "r"}, "source 'x': object missing required field `path`"),
        ({"kind": "magic"}, "source 'x', field `kind`: invalid value 'magic'"),
        (
            {"kind": "files", "path": "p", "relation": "r", "a": 1},
            "source 'x': object contains unknown field `a`",
        ),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(
    client: Wire, document: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refused) as caught:
        client.call("attach", name="x", source=document)
    assert (caught.value.code, caught.value.message) == ("incorrect", message)
    assert source(client, "x") is None


@on_some_shapes
def test_a_bad_row_is_named_and_the_rest_comes_once_it_is_mended(client: Wire, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    append(log, "1,a\ntwo,b\n3,c\n")
    client.register(LATEST)
    client.call("attach", name="log", source={"kind": "files", "path": str(log), "relation": "latest"})
    latest = client.subscribe("latest")
    status = until(client, "log", lambda status: status["state"] == "failed")
    assert status["error"] == f"{log}, line 2, column 'k': \"two\" is not a number (64 bits, signed)"
    assert status["retry_seconds"] > 0
    latest.until_equal(Counter({(1, "a"): 1}))
    log.write_text("1,a\n222,b\n3,c\n")
    latest.until_equal(Counter({(1, "a"): 1, (222, "b"): 1, (3, "c"): 1}))


@on_one_shape
def test_bad_rows_are_left_out_and_counted_where_that_is_wished(client: Wire, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    append(log, "1,a\ntwo,b\n3\n4,d\n")
    client.register(LATEST)
    described = {"kind": "files", "path": str(log), "relation": "latest", "on_bad": "skip"}
    client.call("attach", name="log", source=described)
    client.subscribe("latest").until_equal(Counter({(1, "a"): 1, (4, "d"): 1}))
    status = until(client, "log", lambda status: status["bad_rows"] == 2)
    assert status["state"] == "running" and "line 2" in status["bad_row"]


@on_some_shapes
def test_a_relation_that_is_registered_again_is_fed_from_the_beginning(client: Wire, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    append(log, "1,a\n2,b\n")
    client.register(LATEST, "m")
    client.call("attach", name="log", source={"kind": "files", "path": str(log), "relation": "latest"})
    client.subscribe("latest").until_equal(Counter({(1, "a"): 1, (2, "b"): 1}))
    client.call("unregister", name="m")
    append(log, "3,c\n")
    until(client, "log", lambda status: status["state"] == "waiting")
    client.register(LATEST, "m")
    client.subscribe("latest").until_equal(Counter({(1, "a"): 1, (2, "b"): 1, (3, "c"): 1}))


@on_one_shape
def test_a_source_for_a_derived_relation_says_so(client: Wire, tmp_path: Path) -> None:
    client.register(EVENTS)
    described = {"kind": "files", "path": str(tmp_path / "x"), "relation": "total"}
    client.call("attach", name="log", source=described)
    status = until(client, "log", lambda status: "error" in status)
    assert status["error"] == "relation 'total' is derived: a source can only feed an input"


@on_some_shapes
def test_rotated_files_lose_no_line(client: Wire, tmp_path: Path, rng: random.Random) -> None:
    log, rows = tmp_path / "log.csv", events(rng, 500)
    client.register(EVENTS)
    client.call("attach", name="log", source={"kind": "files", "path": str(log), "relation": "event"})
    event = client.subscribe("event")
    for at in range(0, 500, 50):
        append(log, "".join(map(csv_line, rows[at : at + 50])))
        if rng.random() < 0.5:
            # Only what is there is moved: a file that comes and goes between two looks was never seen.
            until_rows(event, at + 50)
            log.rename(tmp_path / f"log.csv.{at}")
    until_rows(event, 500)
    assert event.contents == Counter(rows)


@on_some_shapes
def test_a_source_stops_reading_while_the_engine_is_behind(client: Wire, tmp_path: Path) -> None:
    # A queue of next to nothing: each piece waits for the one before it to take effect, and nothing is lost.
    log = tmp_path / "log.csv"
    append(log, "".join(f"{n},value {n}\n" for n in range(100_000)))
    client.register(LATEST)
    described = {"kind": "files", "path": str(log), "relation": "latest", "queue_bytes": 1}
    client.call("attach", name="log", source=described)
    until_rows(client.subscribe("latest"), 100_000)
    status = until(client, "log", lambda status: status["rows"] == 100_000)
    assert status["transactions"] > 1 and status["partitions"][0]["held_bytes"] == 0

"""Every request of the protocol, the form of its reply, and the error for each mistake a client can make."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from .cluster import Cluster
from .wire import ENCODINGS, Refused, Wire

BASE = """
    .decl n(x: number, s: symbol, u: unsigned, f: float, b: bool)
    .input n
    .decl d(x: number)
    d(x) :- n(x, _, _, _, _).
    .output d
"""
GOOD = [1, "a", 2, 1.5, True]


@pytest.fixture(params=ENCODINGS)
def client(cluster: Cluster, request: pytest.FixtureRequest) -> Wire:
    client = cluster.open(request.param)
    client.register(BASE, "base")
    return client


# --- replies ------------------------------------------------------------------------------------------------


def test_hello_says_who_answers(cluster: Cluster) -> None:
    clients = [
        cluster.open(encoding, process) for process in range(cluster.processes) for encoding in ENCODINGS
    ]
    for index, client in enumerate(clients):
        info = client.info
        assert info.keys() == {
            "version",
            "server",
            "worker",
            "workers",
            "process",
            "processes",
            "time",
            "history",
        }
        assert (info["version"], info["workers"], info["processes"]) == (1, cluster.size, cluster.processes)
        assert info["process"] == index // len(ENCODINGS)
        assert 0 <= info["worker"] < cluster.size
        assert info["worker"] // cluster.workers == info["process"]
        assert info["history"] == clients[0].info["history"]


def test_connections_are_dealt_over_the_workers_in_turn(cluster: Cluster) -> None:
    owners = [cluster.open(encoding).owner for encoding in ENCODINGS * 2]
    assert len(set(owners)) == cluster.workers
    if cluster.workers > 1:
        assert all(one != two for one, two in itertools.pairwise(owners)), owners


def test_plain_http_requests_do_not_count_in_the_dealing(cluster: Cluster) -> None:
    from .test_http import get

    if cluster.workers == 1:
        return
    first = cluster.open().owner
    assert get(cluster, "/health/live").status == 200
    assert cluster.open().owner != first


def test_hello_may_be_left_out(cluster: Cluster) -> None:
    for encoding in ENCODINGS:
        assert cluster.open(encoding, hello=False).call("ping")["time"] >= 0


def test_register_describes_the_relations(client: Wire) -> None:
    reply = client.register(BASE, "base")
    assert reply.keys() == {"name", "relations", "time"}
    assert reply["name"] == "base"
    types = [("x", "number"), ("s", "symbol"), ("u", "unsigned"), ("f", "float"), ("b", "bool")]
    assert sorted(reply["relations"], key=lambda relation: str(relation["name"])) == [
        {"name": "d", "kind": "derived", "columns": [{"name": "x", "type": "number"}]},
        {"name": "n", "kind": "input", "columns": [{"name": name, "type": each} for name, each in types]},
    ]


def test_the_identical_program_is_the_same_module(client: Wire) -> None:
    client.insert("n", GOOD)
    spaced = "// a comment\n" + BASE.replace("\n", "\n\n")
    assert client.register(spaced, "base")["name"] == "base"
    assert client.read("d") == {(1,): 1}
    client.call("unregister", name="base")
    with pytest.raises(Refused, match="not-found"):
        client.read("d")


def test_a_module_without_a_name_is_named_by_its_contents(client: Wire) -> None:
    program = ".decl only(x: number)\nonly(x) :- d(x)."
    one, two = client.register(program), client.register(program)
    assert one["name"] == two["name"]
    client.call("unregister", name=one["name"])


def test_unregister_takes_a_relation_or_a_module(client: Wire) -> None:
    client.register(".decl e(x: number)\ne(x) :- d(x).", "top")
    with pytest.raises(Refused) as refused:
        client.call("unregister", name="base")
    assert refused.value.code == "conflict"
    assert client.call("unregister", name="e").keys() == {"time"}
    client.call("unregister", name="base")
    with pytest.raises(Refused, match="not-found"):
        client.call("unregister", name="base")


def test_read_describes_columns_and_rows(client: Wire) -> None:
    client.insert("n", GOOD, [2, "b", 3, -0.5, False])
    reply = client.call("read", relation="n")
    assert reply.keys() == {"columns", "rows", "time"}
    assert [column["name"] for column in reply["columns"]] == ["x", "s", "u", "f", "b"]
    assert sorted(reply["rows"]) == [GOOD, [2, "b", 3, -0.5, False]]
    assert len(client.call("read", relation="n", limit=1)["rows"]) == 1
    assert client.call("read", relation="n", limit=0)["rows"] == []
    assert client.call("read", relation="n", where={"s": "b", "x": 2})["rows"] == [[2, "b", 3, -0.5, False]]


def test_explain_gives_a_tree(client: Wire) -> None:
    assert client.call("explain", relation="d")["plan"]


def test_explain_analyzes_what_all_workers_hold(client: Wire, cluster: Cluster) -> None:
    client.register(
        ".decl e(x: number, y: number)\n.input e\n"
        ".decl two(x: number, z: number)\ntwo(x, z) :- e(x, y), e(y, z).",
        "analyzed",
    )
    client.insert("e", *([x, x + 1] for x in range(100)), wait="visible")
    client.delete("e", [0, 1], wait="visible")
    plan = client.call("explain", relation="two", analyze=True)["plan"]
    join = plan["inputs"][0]
    assert join["op"] == "join"
    assert join["stats"]["out"] == 100  # 99 pairs came, one went
    assert len(join["stats"]["worker_micros"]) == len(client.call("status")["workers"])
    assert join["rules"] == [{"text": "two(x, z) :- e(x, y), e(y, z).", "line": 4, "column": 1}]
    read = [each for side in join["inputs"] for each in side["arrangements"]]
    # The relation itself is arranged by one of the two keys.
    assert {str(each["by"]) for each in read} == {"None", "['y']"}
    assert all(each["rows"] >= 99 for each in read)
    kept = plan["arrangements"][0]
    assert kept["by"] is None and kept["rows"] >= 98
    assert plan["text"].count("ms;") >= 2
    with pytest.raises(Refused, match="field `analyze`"):
        client.call("explain", relation="two", analyze=1)
    client.call("unregister", name="analyzed")


def test_status_says_what_there_is(client: Wire, cluster: Cluster) -> None:
    status = client.call("status")
    assert {"workers", "clients", "relations", "time", "tunables"} <= status.keys()
    assert [relation["name"] for relation in status["relations"]] == ["d", "n"]


def test_tune_changes_every_worker(client: Wire, cluster: Cluster) -> None:
    before = client.call("tune")
    other = cluster.open(process=cluster.processes - 1)
    after = client.call("tune", emit_rows=12345)
    assert after == {**before, "emit_rows": 12345}
    assert other.call("tune") == after
    client.call("tune", emit_rows=before["emit_rows"])
    with pytest.raises(Refused, match="incorrect"):
        client.call("tune", no_such_tunable=1)


def test_ping_gives_the_time(client: Wire) -> None:
    time = client.insert("n", GOOD)
    assert client.call("ping")["time"] >= time


@pytest.mark.parametrize("value", [None, "text", 1.5, ["a", 1], {"a": 1}, True])
def test_ids_come_back_as_they_are(client: Wire, value: Any) -> None:
    reply = client.raw({"id": value, "op": "ping"})
    assert reply["id"] == value
    assert "ok" in reply


def test_a_missing_id_is_null(client: Wire) -> None:
    assert client.raw({"op": "ping"})["id"] is None


def test_values_round_trip(cluster: Cluster) -> None:
    clients = cluster.clients(*ENCODINGS)
    clients[0].register(BASE, "base")
    rows = [
        (2**63 - 1, "", 2**64 - 1, 1e308, True),
        (-(2**63), 'ünïcödé 🎉 "quoted" \\ \n\t\u0000', 0, -1e-308, False),
        (0, "seven b", 1, 3.0, True),
        (1, "eight by", 2**63, 0.1, True),
        (2, "x" * 5000, 2**32, 1e16, False),
    ]
    for writer in clients:
        writer.insert("n", *rows)
        for reader in clients:
            assert reader.read("n") == dict.fromkeys(rows, 1)
            subscription = reader.subscribe("n", progress=True)
            subscription.until(writer.transact())
            assert subscription.contents == dict.fromkeys(rows, 1)
            reader.unsubscribe(subscription)
        writer.delete("n", *rows)
        assert writer.read("n") == {}


def test_special_floats(cluster: Cluster) -> None:
    text, binary = cluster.clients("ndjson", "msgpack")
    text.register(".decl f(v: float)\n.input f")
    text.insert("f", ["NaN"], ["inf"], ["-inf"], [-0.0], [0.0], [3])
    assert sorted(map(repr, text.read("f"))) == sorted(
        map(repr, [("NaN",), ("inf",), ("-inf",), (0.0,), (3.0,)])
    )
    assert sorted(repr(value) for (value,) in binary.read("f")) == sorted(
        ["nan", "inf", "-inf", "0.0", "3.0"]
    )
    binary.delete("f", [float("nan")], [float("inf")], [float("-inf")], [-0.0], [3.0])
    assert text.read("f") == {}


def test_nullary_relations(cluster: Cluster) -> None:
    one, two = cluster.clients("ndjson", "msgpack")
    one.register(".decl on()\n.input on\n.decl off()\noff() :- !on().\n.output off")
    subscription = two.subscribe("off", progress=True)
    assert subscription.until(one.transact()) == {(): 1}
    assert subscription.until(one.insert("on", [])) == {}
    assert two.read("on") == {(): 1}
    assert subscription.until(one.delete("on", [])) == {(): 1}


# --- mistakes -----------------------------------------------------------------------------------------------


def transact(**change: Any) -> dict[str, Any]:
    return {"op": "transact", "changes": [change]}


MISTAKES: list[tuple[str, dict[str, Any], str, str]] = [
    ("no op", {}, "incorrect", "op"),
    ("op of a wrong type", {"op": 7}, "incorrect", "op"),
    ("unknown op", {"op": "dance"}, "incorrect", "dance"),
    ("unknown field", {"op": "ping", "loud": True}, "incorrect", "loud"),
    ("hello without version", {"op": "hello"}, "incorrect", "version"),
    ("unknown version", {"op": "hello", "version": 99}, "unsupported", "99"),
    ("register without program", {"op": "register"}, "incorrect", "program"),
    ("program of a wrong type", {"op": "register", "program": 3}, "incorrect", "program"),
    ("transact without changes", {"op": "transact"}, "incorrect", "changes"),
    ("changes of a wrong type", {"op": "transact", "changes": {}}, "incorrect", "changes"),
    ("change without relation", transact(insert=[]), "incorrect", "relation"),
    ("change with an unknown field", transact(relation="n", upsert=[]), "incorrect", "upsert"),
    ("unknown wait", {"op": "transact", "changes": [], "wait": "long"}, "incorrect", "wait"),
    ("key of a wrong type", {"op": "transact", "changes": [], "key": 1}, "incorrect", "key"),
    ("read of an unknown relation", {"op": "read", "relation": "nope"}, "not-found", "nope"),
    ("subscribe to an unknown relation", {"op": "subscribe", "relation": "nope"}, "not-found", "nope"),
    ("explain of an unknown relation", {"op": "explain", "relation": "nope"}, "not-found", "nope"),
    ("unregister of an unknown name", {"op": "unregister", "name": "nope"}, "not-found", "nope"),
    ("unsubscribe of an unknown sub", {"op": "unsubscribe", "sub": 424242}, "not-found", "424242"),
    ("transact into an unknown relation", transact(relation="nope", insert=[]), "not-found", "nope"),
    ("transact into a derived relation", transact(relation="d", insert=[[1]]), "incorrect", "d"),
    ("where an unknown column", {"op": "read", "relation": "n", "where": {"zz": 1}}, "incorrect", "zz"),
    ("where a wrong type", {"op": "read", "relation": "n", "where": {"x": "one"}}, "incorrect", "x"),
    ("a negative limit", {"op": "read", "relation": "n", "limit": -1}, "incorrect", "limit"),
    ("snapshot as a number", {"op": "subscribe", "relation": "n", "snapshot": 1}, "incorrect", "snapshot"),
    ("since without history", {"op": "subscribe", "relation": "n", "since": 1}, "incorrect", "history"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "named"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_mistakes_are_answered_and_the_connection_stays(
    client: Wire, fields: dict[str, Any], code: str, named: str
) -> None:
    reply = client.raw({"id": "mistake", **fields})
    assert reply["id"] == "mistake"
    assert reply["error"]["code"] == code, reply
    assert named in reply["error"]["message"], reply
    assert client.insert("n", GOOD) and client.read("d") == {(1,): 1}


MISFITS: list[tuple[list[Any], str]] = [
    (["one", "a", 2, 1.5, True], "x"),
    ([1.0, "a", 2, 1.5, True], "x"),
    ([None, "a", 2, 1.5, True], "x"),
    ([True, "a", 2, 1.5, True], "x"),
    ([1, 5, 2, 1.5, True], "s"),
    ([1, "a", -2, 1.5, True], "u"),
    ([1, "a", "2", 1.5, True], "u"),
    ([1, "a", 2, "much", True], "f"),
    ([1, "a", 2, 1.5, 1], "b"),
    ([1, "a", 2, 1.5, "true"], "b"),
    ([1, "a", 2, 1.5, [True]], "b"),
]


@pytest.mark.parametrize(("row", "column"), MISFITS, ids=[f"{m[1]}={m[0]}" for m in MISFITS])
def test_a_value_that_does_not_fit_is_named(client: Wire, row: list[Any], column: str) -> None:
    with pytest.raises(Refused) as refused:
        client.insert("n", GOOD, GOOD, row)
    assert refused.value.code == "incorrect"
    for part in ("n", "2", column):
        assert part in refused.value.message, refused.value
    assert client.read("n") == {}


@pytest.mark.parametrize("row", [[], [1], [*GOOD, 1], {"x": 1}, 7, None], ids=repr)
def test_a_row_of_another_shape_is_refused(client: Wire, row: Any) -> None:
    with pytest.raises(Refused) as refused:
        client.call("transact", changes=[{"relation": "n", "insert": [GOOD, row]}])
    assert refused.value.code == "incorrect"
    assert "1" in refused.value.message, refused.value


PROGRAM_ERRORS: list[tuple[str, str, tuple[int, int] | None]] = [
    (".decl q(x: number", "incorrect", None),
    (".decl q(x: nomber)", "incorrect", (1, 12)),
    (".decl q(x: number)\nq(y) :- n(x, _, _, _, _).", "incorrect", (2, 3)),
    (".decl q(x: number)\nq(x) :- nn(x, _, _, _, _).", "incorrect", (2, 9)),
    (".decl q(x: number)\nq(x) :- n(x, _).", "incorrect", (2, 9)),
    (".decl q(x: symbol)\nq(x) :- n(x, _, _, _, _).", "incorrect", None),
    (".decl q(x: number)\nq(x) :- d(x), !q(x).", "incorrect", None),
    (".decl q(x: number)\nq(x) :- !d(x).", "incorrect", None),
    ("p(x) :- d(x).", "incorrect", (1, 1)),
    (".decl q(x: number)\nq(x, x) :- d(x).", "incorrect", None),
    (".decl q(x: number)\nq(c) :- c = count : { q(_) }.", "incorrect", None),
    ('.decl q(x: number)\nq(x) :- d(x), x < "a".', "incorrect", None),
    ("@", "incorrect", (1, 1)),
    (".decl q(x: number)\nq($) :- d(_).", "unsupported", (2, 3)),
    (".decl d(x: symbol)", "conflict", None),
    ("d(1).", "conflict", None),
]


@pytest.mark.parametrize(("program", "code", "at"), PROGRAM_ERRORS, ids=[repr(p[0]) for p in PROGRAM_ERRORS])
def test_errors_in_programs(cluster: Cluster, program: str, code: str, at: tuple[int, int] | None) -> None:
    client = cluster.open()
    client.register(BASE, "base")
    with pytest.raises(Refused) as refused:
        client.register(program)
    error = refused.value.error
    assert error["code"] == code, error
    if code == "incorrect":
        assert "at" in error, error
    if at is not None:
        assert (error["at"]["line"], error["at"]["column"]) == at, error
    assert len(client.call("status")["relations"]) == 2


def test_a_misspelt_relation_is_answered_with_the_nearest(client: Wire) -> None:
    client.register(".decl person(x: symbol)\n.input person", "people")
    with pytest.raises(Refused) as refused:
        client.register(".decl r(x: symbol)\nr(x) :- pearson(x).")
    assert "person" in refused.value.error["hint"]
    with pytest.raises(Refused) as refused:
        client.read("pearson")
    assert "person" in refused.value.error["hint"]


def test_another_program_under_the_same_name_is_a_conflict(client: Wire) -> None:
    with pytest.raises(Refused) as refused:
        client.register(".decl q(x: number)\nq(x) :- d(x).", "base")
    assert refused.value.code == "conflict"
    assert "base" in refused.value.message


def test_mistakes_in_a_pipeline_do_not_disturb_their_neighbours(client: Wire) -> None:
    good = {"relation": "n", "insert": [GOOD]}
    numbers = [
        client.start("transact", changes=[good]),
        client.start("dance"),
        client.start("transact", changes=[{"relation": "n", "insert": [[1]]}]),
        client.start("read", relation="d"),
    ]
    assert client.finish(numbers[0])["time"] >= 0
    for number in numbers[1:3]:
        with pytest.raises(Refused, match="incorrect"):
            client.finish(number)
    assert client.finish(numbers[3])["rows"] == [[1]]

"""`docs/protocol.md` sentence by sentence, where no other file has a test of it."""

from __future__ import annotations

import itertools
import json
import math
import struct
from collections import Counter
from typing import Any

import msgpack
import pytest

from .cluster import Cluster
from .wire import ENCODINGS, Refused, Wire

pytestmark = pytest.mark.parametrize("slot", [(1, 2), (2, 2)], indirect=True, ids=["1x2", "2x2"])

BATCH_BYTES = 256 << 10
BASE = """
    .decl n(x: number, s: symbol, u: unsigned, f: float, b: bool)
    .input n
    .decl on()
    .input on
    .decl kept(k: number, v: symbol) upsert(k)
    .input kept
    .decl log(k: number, text: symbol) raw
    .input log
"""


@pytest.fixture(params=ENCODINGS)
def client(cluster: Cluster, request: pytest.FixtureRequest) -> Wire:
    client = cluster.open(request.param)
    client.register(BASE, "base")
    return client


def is_binary(client: Wire) -> bool:
    return client.encoding in ("msgpack", "ws-binary")


# --- values -------------------------------------------------------------------------------------------------


ROWS: list[tuple[int, str, int, float, bool]] = [
    (1, "a", 1, 1.5, True),
    (-(2**63), "eight by", 2**64 - 1, math.inf, False),
    (2**63 - 1, "", 0, -math.inf, True),
    (0, "ü\u0000🎉 and more than a word", 2**63, 0.0, False),
    (7, "seven b", 7, 1e308, True),
]


def sent(client: Wire, row: tuple[Any, ...]) -> list[Any]:
    """A row as this client must write it: JSON has no infinity."""
    return [as_sent(client, value) for value in row]


def as_sent(client: Wire, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value) and not is_binary(client):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def test_where_selects_by_a_value_of_every_type(client: Wire, cluster: Cluster) -> None:
    reader = cluster.open(client.encoding, cluster.processes - 1)
    client.insert("n", *(sent(client, row) for row in ROWS))
    for column, name in enumerate("xsufb"):
        for value in {row[column] for row in ROWS}:
            where = {name: as_sent(client, value)}
            expected = Counter(tuple(sent(client, row)) for row in ROWS if row[column] == value)
            assert reader.read("n", where=where) == expected, where
            subscription = reader.subscribe("n", where=where, progress=True)
            subscription.until(client.transact())
            assert subscription.contents == expected, where
            reader.unsubscribe(subscription)


def test_where_of_several_columns_and_of_what_is_not_there(client: Wire) -> None:
    client.insert("n", *(sent(client, row) for row in ROWS))
    assert client.read("n", where={"b": True, "u": 7}) == {ROWS[4]: 1}
    assert client.read("n", where={"b": False, "u": 7}) == {}
    assert client.read("n", where={"s": "a text that nobody has ever sent before"}) == {}
    assert client.read("n", where={}, limit=3).total() == 3


def test_a_filtered_subscription_follows_updates_of_an_upsert_relation(client: Wire) -> None:
    ones, others = (client.subscribe("kept", where={"v": v}, progress=True) for v in ("one", "other"))
    client.insert("kept", (1, "one"), (2, "other"))
    time = client.insert("kept", (1, "other"))
    assert others.until(time) == {(1, "other"): 1, (2, "other"): 1}
    assert ones.until(time) == {}
    assert ones.steps[-1].changes == {(1, "one"): -1}


def test_floats_are_compared_as_the_page_says(cluster: Cluster) -> None:
    text, binary = cluster.clients("ndjson", "msgpack")
    text.register(BASE)
    binary.insert("n", [1, "", 0, math.nan, True], [1, "", 0, -math.nan, True], [2, "", 0, -0.0, True])
    text.insert("n", [1, "", 0, "NaN", True], [2, "", 0, 0, True], [3, "", 0, 2**64, True])
    assert text.read("n", where={"f": "NaN"}) == {(1, "", 0, "NaN", True): 1}
    assert text.read("n", where={"f": -0.0}) == {(2, "", 0, 0.0, True): 1}
    assert [repr(row[3]) for row in binary.read("n", where={"f": math.nan})] == ["nan"]
    assert binary.read("n", where={"x": 3}) == {(3, "", 0, float(2**64), True): 1}


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("[9223372036854775808, \"\", 0, 0, true]", "x"),
        ("[-9223372036854775809, \"\", 0, 0, true]", "x"),
        ("[1e2, \"\", 0, 0, true]", "x"),
        ("[0, \"\", 18446744073709551616, 0, true]", "u"),
        ("[0, \"\", 1.0, 0, true]", "u"),
        ("[0, \"\", 0, 1e400, true]", "f"),
        ("[0, \"\", 0, \"Infinity\", true]", "f"),
        ("[0, \"\", 0, true, true]", "f"),
        ("[0, \"\\ud800\", 0, 0, true]", "s"),
        ("[0, null, 0, 0, true]", "s"),
        ("[0, \"\", 0, 0, null]", "b"),
    ],
)  # fmt: skip
def test_json_values_at_the_edges_are_refused(cluster: Cluster, row: str, column: str) -> None:
    client = cluster.open()
    client.register(BASE)
    text = '{"id": "e", "op": "transact", "changes": [{"relation": "n", "insert": [' + row + "]}]}\n"
    error = client.raw_bytes(text.encode())["error"]
    assert error["code"] == "incorrect"
    assert "row 0" in error["message"] and f"`{column}`" in error["message"], error
    assert client.read("n") == {}


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (b"\xcf\x80\0\0\0\0\0\0\0", "x"),
        (b"\xcb\x3f\xf0\0\0\0\0\0\0", "x"),
        (b"\xff", "u"),
        (b"\xc4\x01a", "s"),
        (b"\xc0", "f"),
        (b"\xd6\xff\0\0\0\0", "x"),
    ],
    ids=["2^63", "a float", "-1", "bin", "nil", "a timestamp"],
)
def test_messagepack_values_at_the_edges_are_refused(cluster: Cluster, value: bytes, column: str) -> None:
    client = cluster.open("msgpack")
    client.register(BASE)
    fields = [msgpack.packb(each) for each in (1, "", 0, 0.0, True)]
    fields["xsufb".index(column)] = value
    body = msgpack.packb({"id": "e", "op": "transact"})
    change = b"\x82" + msgpack.packb("relation") + msgpack.packb("n")
    change += msgpack.packb("insert") + b"\x91\x95" + b"".join(fields)
    body = b"\x83" + body[1:] + msgpack.packb("changes") + b"\x91" + change
    error = client.raw_bytes(struct.pack(">I", len(body)) + body)["error"]
    assert error["code"] == "incorrect"
    assert "row 0" in error["message"] and f"`{column}`" in error["message"], error
    assert client.read("n") == {}


def test_integers_may_have_any_width_in_messagepack(cluster: Cluster) -> None:
    client = cluster.open("msgpack")
    client.register(BASE)
    narrow = [b"\x05", b"\xcc\x05", b"\xcd\0\x05", b"\xce\0\0\0\x05", b"\xcf" + b"\0" * 7 + b"\x05"]
    signed = [b"\xd0\x05", b"\xd1\0\x05", b"\xd2\0\0\0\x05", b"\xd3" + b"\0" * 7 + b"\x05"]
    for number, x in enumerate(narrow + signed):
        row = b"\x95" + x + b"\xa0" + x + msgpack.packb(number) + b"\xc3"
        body = b"\x83\xa2id\xa1e\xa2op\xa8transact\xa7changes\x91\x82\xa8relation\xa1n\xa6insert\x91" + row
        assert "ok" in client.raw_bytes(struct.pack(">I", len(body)) + body), x
    assert client.read("n") == {(5, "", 5, float(number), True): 1 for number in range(9)}


def test_messagepack_text_that_is_not_utf8_is_malformed(cluster: Cluster) -> None:
    client = cluster.open("msgpack")
    client.register(BASE)
    row = b"\x95\x01\xa1\xff\x00\x00\xc3"
    body = b"\x83\xa2id\xa1e\xa2op\xa8transact\xa7changes\x91\x82\xa8relation\xa1n\xa6insert\x91" + row
    assert client.raw_bytes(struct.pack(">I", len(body)) + body)["error"]["code"] == "incorrect"
    assert client.read("n") == {}


def test_a_row_of_a_nullary_relation_is_an_empty_array(client: Wire) -> None:
    with pytest.raises(Refused, match="incorrect"):
        client.insert("on", [1])
    subscription = client.subscribe("on", progress=True)
    assert subscription.until(client.insert("on", [], [])) == {(): 1}
    assert client.call("read", relation="on")["columns"] == []
    assert subscription.until(client.delete("on", [])) == {}


# --- requests -----------------------------------------------------------------------------------------------


IDS: list[Any] = [
    0,
    -1,
    2**64 - 1,
    -(2**63),
    1e300,
    "",
    "ü",
    [],
    {},
    [[[]], {"a": [None]}],
    False,
    "x" * 5000,
]


@pytest.mark.parametrize("value", IDS, ids=lambda value: repr(value)[:20])
def test_any_value_may_be_an_id(client: Wire, value: Any) -> None:
    for message in ({"id": value, "op": "ping"}, {"op": "dance", "id": value}, {"op": "read", "id": value}):
        client.stream.send(message)
        reply = client.stream.receive()
        assert reply["id"] == value and type(reply["id"]) is type(value)
        assert ("ok" in reply) == (message["op"] == "ping")


def test_ids_that_only_messagepack_has(cluster: Cluster) -> None:
    client = cluster.open("msgpack")
    for value in (b"\0\xff", msgpack.ExtType(5, b"abc"), {1: [b"x"]}):
        body = msgpack.packb({"id": value, "op": "ping"})
        client.stream.send_bytes(struct.pack(">I", len(body)) + body)
        (length,) = struct.unpack(">I", client.stream._take(4))  # type: ignore[union-attr]
        assert msgpack.unpackb(client.stream._take(length), strict_map_key=False)["id"] == value  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"id": "d", "op": "ping", "op": "ping"}', "op"),
        ('{"id": "d", "op": "ping", "id": "e"}', "id"),
        ('{"id": "d", "op": "read", "relation": "n", "relation": "n"}', "relation"),
        ('{"id": "d", "op": "read", "relation": "n", "where": {"x": 1, "x": 1}}', "x"),
        (
            '{"id": "d", "op": "transact", "changes": [{"relation": "n", "insert": [], "insert": []}]}',
            "insert",
        ),
        ('{"id": "d", "op": "transact", "changes": [], "changes": []}', "changes"),
    ],
)
def test_a_field_given_twice_is_incorrect(cluster: Cluster, text: str, named: str) -> None:
    client = cluster.open()
    client.register(BASE)
    error = client.raw_bytes(text.encode() + b"\n")["error"]
    assert (error["code"], named in error["message"]) == ("incorrect", True), error


@pytest.mark.parametrize("message", [[], [1], 1, -1.5, None, True, "ping", {}], ids=repr)
def test_what_is_no_map_is_no_request(client: Wire, message: Any) -> None:
    reply = client.raw(message)
    assert (reply["id"], reply["error"]["code"]) == (None, "incorrect")
    client.call("ping")


def test_optional_fields_may_be_null(client: Wire) -> None:
    client.call("hello", version=1, token=None)
    client.call("transact", changes=[{"relation": "n", "insert": None, "delete": []}], key=None, wait=None)
    assert client.call("read", relation="n", where=None, limit=None)["rows"] == []
    subscription = client.subscribe("n", where=None)
    client.unsubscribe(subscription)


def test_changes_without_rows_have_a_time_and_no_effect(client: Wire) -> None:
    subscription = client.subscribe("n", progress=True)
    times = [
        client.transact(),
        client.transact({"relation": "n"}),
        client.transact({"relation": "n", "insert": []}, {"relation": "n", "delete": []}),
        client.transact({"relation": "on", "insert": []}, {"relation": "n", "insert": []}, wait="visible"),
    ]
    assert times == sorted(times)
    subscription.until(times[-1])
    assert [step.snapshot for step in subscription.steps] == [True]


def test_fields_may_come_in_any_order(cluster: Cluster) -> None:
    client = cluster.open()
    client.register(BASE)
    change = {"insert": [[1, "a", 2, 0.5, True]], "relation": "n"}
    parts = {"changes": [change], "wait": "visible", "op": "transact", "id": "any"}
    for order in itertools.permutations(parts):
        assert "ok" in client.raw({name: parts[name] for name in order}), order
    wrong = {**parts, "changes": [{"insert": [["one", "a", 2, 0.5, True]], "relation": "n"}]}
    for order in itertools.permutations(wrong):
        error = client.raw({name: wrong[name] for name in order})["error"]
        assert "`x`" in error["message"], (order, error)


def test_hello_may_come_again_and_says_the_same(client: Wire) -> None:
    again = client.call("hello", version=1)
    assert {**again, "time": 0} == {**client.info, "time": 0}
    for version in (0, 2, 2**40):
        with pytest.raises(Refused) as refused:
            client.call("hello", version=version)
        assert refused.value.code == "unsupported"


def test_positions_count_characters_and_lines_from_one(client: Wire) -> None:
    for program, at in (
        ('.decl a(x: symbol)\na("üüü🎉"), b.', (2, 13)),
        ("// ü\r\n.decl p(x: nomber)", (2, 12)),
        ("\n\n  .decl p(x: nomber)", (3, 14)),
    ):
        with pytest.raises(Refused) as refused:
            client.register(program)
        error = refused.value.error
        assert (error["at"]["line"], error["at"]["column"]) == at, error


def test_an_unknown_relation_in_a_field_is_not_found_and_in_a_program_incorrect(client: Wire) -> None:
    with pytest.raises(Refused) as refused:
        client.register(".decl q(x: number)\nq(x) :- nope(x).")
    assert refused.value.code == "incorrect"
    for op in ("read", "subscribe", "explain"):
        with pytest.raises(Refused) as refused:
            client.call(op, relation="nope")
        assert refused.value.code == "not-found"
    with pytest.raises(Refused) as refused:
        client.transact({"relation": "n", "insert": [[1, "a", 2, 0.5, True]]}, {"relation": "nope"})
    assert refused.value.code == "not-found"
    assert client.read("n") == {}


def test_a_refused_request_says_whether_trying_again_helps(client: Wire) -> None:
    for op, fields in (("dance", {}), ("read", {"relation": "nope"}), ("hello", {"version": 9})):
        with pytest.raises(Refused) as refused:
            client.call(op, **fields)
        assert refused.value.error["retry"] is False


def test_a_key_is_for_one_content_whatever_its_encoding(cluster: Cluster) -> None:
    clients = cluster.clients(*ENCODINGS)
    clients[0].register(BASE)
    changes = [{"relation": "log", "insert": [[1, "a text of some length"]], "delete": [[2, "b"]]}]
    turned = [{"delete": [[2, "b"]], "relation": "log", "insert": [[1, "a text of some length"]]}]
    replies = [
        client.call("transact", changes=changes if number % 2 else turned, key="one content")
        for number, client in enumerate(clients)
    ]
    assert len({reply["time"] for reply in replies}) == 1
    assert [reply.get("deduplicated", False) for reply in replies] == [False, True, True, True]
    for other in (
        [{"relation": "log", "insert": [[1, "a text of some length"]]}],
        [{"relation": "log", "insert": [[2, "b"]], "delete": [[1, "a text of some length"]]}],
        [],
    ):
        with pytest.raises(Refused, match="conflict"):
            clients[1].call("transact", changes=other, key="one content")


# --- subscriptions ------------------------------------------------------------------------------------------


def test_sub_numbers_are_never_used_again(client: Wire) -> None:
    numbers = []
    for _ in range(5):
        one, other = client.subscribe("n"), client.subscribe("log")
        numbers += [one.sub, other.sub]
        client.unsubscribe(one)
        client.unsubscribe(other)
        with pytest.raises(Refused, match="not-found"):
            client.call("unsubscribe", sub=one.sub)
    assert len(set(numbers)) == len(numbers)


def test_a_subscription_belongs_to_its_connection(client: Wire, cluster: Cluster) -> None:
    stranger = cluster.open()
    subscription = client.subscribe("n", progress=True)
    with pytest.raises(Refused, match="not-found"):
        stranger.call("unsubscribe", sub=subscription.sub)
    row = (1, "a", 2, 0.5, True)
    assert subscription.until(stranger.insert("n", row)) == {row: 1}


def test_every_part_of_a_snapshot_says_so_and_is_no_larger_than_a_batch(cluster: Cluster) -> None:
    writer = cluster.open("msgpack")
    writer.register(BASE)
    rows = [[k, f"a text that takes some room, number {k:06}"] for k in range(12_000)]
    live = [cluster.open(encoding) for encoding in ENCODINGS]
    subscriptions = [each.subscribe("log", progress=True) for each in live]
    time = writer.insert("log", *rows)
    for each, subscription in zip(live, subscriptions, strict=True):
        parts = until_whole(each, subscription.sub)
        assert all("snapshot" not in part and part["time"] == time for part in parts)
        late = cluster.open(each.encoding)
        late.stream.send({"id": "s", "op": "subscribe", "relation": "log"})
        reply = late.stream.receive()["ok"]
        snapshot = until_whole(late, reply["sub"])
        assert all(part["snapshot"] is True and part["time"] == reply["time"] for part in snapshot)
        for message in (parts, snapshot):
            assert len(message) > 1
            assert all(part.get("more", False) for part in message[:-1]) and "more" not in message[-1]
            sizes = [len(msgpack.packb(part) if is_binary(each) else json.dumps(part)) for part in message]
            # Cut at the size, give or take a row.
            assert max(sizes) < 2 * BATCH_BYTES, sizes
            assert sorted(row for part in message for row, _ in part["changes"]) == rows


def until_whole(client: Wire, sub: int) -> list[dict[str, Any]]:
    """The messages of the next step that has rows, as they are."""
    parts: list[dict[str, Any]] = []
    while not parts or parts[-1].get("more"):
        message = client.stream.receive()
        assert message["sub"] == sub, message
        if message.get("changes"):
            parts.append(message)
    return parts


def test_one_websocket_gets_each_push_in_the_encoding_of_its_subscribe(cluster: Cluster) -> None:
    client = cluster.open("ws-text")
    client.register(BASE)
    socket_ = client.stream.websocket  # type: ignore[union-attr]
    socket_.send(json.dumps({"id": "t", "op": "subscribe", "relation": "n"}))
    socket_.send_binary(msgpack.packb({"id": "b", "op": "subscribe", "relation": "n"}))
    seen: dict[tuple[int, Any], list[dict[str, Any]]] = {}
    subs: dict[int, int] = {}
    change = {"relation": "n", "insert": [[1, "", 0, 0, True]]}
    socket_.send(json.dumps({"id": "w", "op": "transact", "changes": [change]}))
    while len(seen.get((2, subs.get(2)), ())) < 2 or len(seen.get((1, subs.get(1)), ())) < 2:
        opcode, data = socket_.recv_data()
        message = json.loads(data) if opcode == 1 else msgpack.unpackb(data)
        if message.get("id") in ("t", "b"):
            assert opcode == (1 if message["id"] == "t" else 2)
            subs[opcode] = message["ok"]["sub"]
        elif "sub" in message:
            assert message["sub"] == subs[opcode], "a push in another encoding than its subscribe"
            seen.setdefault((opcode, message["sub"]), []).append(message)


def test_an_unknown_history_is_a_resync(client: Wire) -> None:
    row = (1, "a", 2, 0.5, True)
    client.insert("n", row)
    client.stream.send({"id": "s", "op": "subscribe", "relation": "n", "since": 0, "history": "no such"})
    reply, message = client.stream.receive()["ok"], client.stream.receive()
    assert reply["resync"] is True and reply["history"] == client.info["history"]
    assert (message["sub"], message["resync"], message["snapshot"]) == (reply["sub"], True, True)
    assert (message["time"], message["changes"]) == (reply["time"], [[list(row), 1]])


def test_unsubscribing_in_the_same_breath_leaves_nothing(client: Wire) -> None:
    """The reply to `unsubscribe` is the last word, wherever in its course the subscription is."""
    client.insert("log", *((k, "a text that takes some room") for k in range(3_000)))
    for number in range(10):
        pending = [client.start("subscribe", relation="log", progress=bool(number % 2))]
        changes = [[{"relation": "log", "insert": [[k, "x"]]}] for k in range(number)]
        pending += [client.start("transact", changes=each) for each in changes]
        subscription = client.subscriptions[client.finish(pending[0])["sub"]]
        # Forgotten with the reply, so that whatever follows for it fails the test.
        client.unsubscribe(subscription)
        for each in pending[1:]:
            client.finish(each)
        client.call("ping")


def test_progress_of_all_times_reaches_a_subscriber_of_nothing_that_changes(
    client: Wire, cluster: Cluster
) -> None:
    writer = cluster.open("msgpack", cluster.processes - 1)
    subscription = client.subscribe("on", progress=True)
    pending = [
        writer.start("transact", changes=[{"relation": "log", "insert": [[k, ""]]}]) for k in range(50)
    ]
    last = max(writer.finish(each)["time"] for each in pending)
    subscription.until(last)
    assert [step.snapshot for step in subscription.steps] == [True]

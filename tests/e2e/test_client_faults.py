"""What clients may do wrong, on purpose or by accident: rows of `docs/reliability.md` without another test.

A witness is served throughout, and nothing of a message that never came whole takes effect.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from .cluster import Cluster
from .wire import ENCODINGS, PATIENCE, PREAMBLE, Closed, Wire

pytestmark = pytest.mark.parametrize("slot", [(1, 2)], indirect=True, ids=["1x2"])

PROGRAM = """
    .decl e(x: number)
    .input e
    .decl tenth(x: number, y: number)
    tenth(x, 10 / x) :- e(x).
    .decl read(x: number)
    read(to_number(s)) :- text(s).
    .decl text(s: symbol)
    .input text
"""
HANDSHAKE_SECONDS = 5
MESSAGE_SECONDS = 10
PINGS_PER_SECOND = 1_000
MOST_FRAGMENTS = 1 << 17


@pytest.fixture(autouse=True)
def witness(cluster: Cluster) -> Iterator[Wire]:
    """Another client, which must go on being served while the test misbehaves."""
    witness = cluster.open("msgpack")
    witness.register(PROGRAM, "witness")
    subscription = witness.subscribe("e", progress=True)
    yield witness
    time = witness.insert("e", [1], [2])
    assert subscription.until(time) == witness.read("e")
    assert {(1,), (2,)} <= set(subscription.contents)


def dial(cluster: Cluster, data: bytes) -> socket.socket:
    connection = socket.create_connection(cluster.addresses[0], timeout=PATIENCE)
    connection.sendall(data)
    return connection


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)
KEY = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"


def test_who_does_not_finish_a_handshake_or_a_message_is_closed(cluster: Cluster) -> None:
    """All at once, so that the test takes no longer than the longest of the deadlines."""
    unfinished = {
        "nothing": (b"", HANDSHAKE_SECONDS),
        "half a preamble": (PREAMBLE[:2], HANDSHAKE_SECONDS),
        "half a head": (UPGRADE, HANDSHAKE_SECONDS),
        "half a line": (b'{"id": 1, "op": "tra', MESSAGE_SECONDS),
        "half a message": (PREAMBLE + struct.pack(">I", 500) + b"\x83\xa2id", MESSAGE_SECONDS),
        "half a frame": (UPGRADE + KEY + b"\r\n" + b"\x81\xfe\x01\xf4\0\0\0\0{", MESSAGE_SECONDS),
        "a fragment": (UPGRADE + KEY + b"\r\n" + b"\x01\x81\0\0\0\0{", MESSAGE_SECONDS),
    }
    begun = time.monotonic()
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for name, (data, seconds) in unfinished.items():
            connection = stack.enter_context(dial(cluster, data))
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, (name, seconds))
        while selector.get_map():
            ready = selector.select(PATIENCE)
            assert ready, f"still open: {[key.data[0] for key in selector.get_map().values()]}"
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                try:
                    closed = not key.fileobj.recv(1 << 16)
                except ConnectionResetError:
                    closed = True
                if closed:
                    name, seconds = key.data
                    # Not before its time: a slow client is no broken one.
                    assert time.monotonic() - begun > seconds - 1, name
                    selector.unregister(key.fileobj)


def closing_code(client: Wire) -> int | None:
    with pytest.raises(Closed) as closed:
        while True:
            client.stream.receive()
    return closed.value.code


def test_a_flood_of_pings_closes_a_websocket_with_1008(cluster: Cluster) -> None:
    client = cluster.open("ws-text")
    ping = b"\x89\x80\0\0\0\0"
    # They all come at once, or the server has closed before they were sent.
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        client.stream.socket.sendall(ping * PINGS_PER_SECOND * 20)
    with pytest.raises((Closed, ConnectionResetError)) as closed:
        while True:
            client.stream.receive()
    assert getattr(closed.value, "code", None) in (1008, None)


def test_a_flood_of_fragments_closes_a_websocket_with_1008(cluster: Cluster) -> None:
    client = cluster.open("ws-text")
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        client.stream.socket.sendall(b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * MOST_FRAGMENTS)
    assert closing_code(client) in (1008, None)


def test_no_compression_is_agreed_on(cluster: Cluster) -> None:
    head = UPGRADE + KEY + b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    with dial(cluster, head) as connection:
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += connection.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"extensions" not in answer.lower()
        # A frame that says it is compressed is one with a reserved bit.
        connection.sendall(b"\xc1\x81\0\0\0\0x")
        close = b""
        while part := connection.recv(1 << 16):
            close += part
        assert close[:1] == b"\x88" and struct.unpack(">H", close[2:4]) == (1002,)


def test_a_row_whose_derivation_fails_is_dropped_and_counted(cluster: Cluster, witness: Wire) -> None:
    before = witness.call("status")["counters"]["dropped_rows"]
    time = witness.insert("e", [0], [5], wait="visible")
    witness.insert("text", ["7"], ["seven"], wait="visible")
    assert witness.read("tenth") == {(5, 2): 1}
    assert witness.read("read") == {(7,): 1}
    # Every worker reports its own count, a little later than it counts.
    while witness.call("status")["counters"]["dropped_rows"] < before + 2:
        time = witness.transact()
    assert time > 0


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_subscriber_lost_in_the_middle_of_a_batch_comes_back_to_exact_contents(
    cluster: Cluster, witness: Wire, encoding: str
) -> None:
    # More than a message holds, in the most compact encoding as well.
    rows = [[10**15 + k] for k in range(60_000)]
    lost = cluster.open(encoding)
    info = lost.info
    subscription = lost.subscribe("e", progress=True)
    number = witness.start("transact", changes=[{"relation": "e", "insert": rows}])
    # One part of the step is in, most of it isn't.
    while subscription.whole:
        lost.pump()
    lost.stream.socket.close()
    witness.finish(number)
    again = cluster.open(encoding)
    assert again.info["history"] == info["history"]
    resumed = again.subscribe("e", progress=True, since=subscription.reached, history=info["history"])
    # Either the changes since then, on top of what was whole, or a snapshot that says so.
    if not resumed.snapshot:
        resumed.contents.update(subscription.contents)
    assert resumed.until(again.transact()) == dict.fromkeys(map(tuple, rows), 1)
    witness.delete("e", *rows)

"""Bytes that are no message: what is answered, which connections live on, and that nobody else notices."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator

import msgpack
import pytest

from .cluster import Cluster
from .wire import ENCODINGS, PATIENCE, PREAMBLE, Closed, Wire

PROGRAM = ".decl e(x: number)\n.input e"
LIMIT = 16 << 20


@pytest.fixture
def witness(cluster: Cluster) -> Iterator[Wire]:
    """Another client, which must go on being served while the test misbehaves."""
    witness = cluster.open("msgpack")
    witness.register(PROGRAM, "witness")
    subscription = witness.subscribe("e", progress=True)
    yield witness
    assert subscription.until(witness.insert("e", [1], [2])) == {(1,): 1, (2,): 1}
    assert witness.read("e") == {(1,): 1, (2,): 1}


def dial(cluster: Cluster) -> socket.socket:
    return socket.create_connection(cluster.addresses[0], timeout=PATIENCE)


def drain(connection: socket.socket) -> bytes:
    """Everything up to the server's close."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            data += part
    return data


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize(
    "first",
    [
        b"hello there\r\n",
        b"\x00" * 8,
        b"\xff" * 8,
        PREAMBLE[:3] + b"\x02",
        b"SSH-2.0-x\r\n",
        b"[1]\n",
        b"\n\n\n\n\n",
    ],
    ids=repr,
)
def test_bytes_of_no_protocol_get_one_error_line_and_the_door(cluster: Cluster, first: bytes) -> None:
    with dial(cluster) as connection:
        connection.sendall(first)
        if first.strip() == b"":
            return
        lines = drain(connection).splitlines()
    assert len(lines) == 1, lines
    assert json.loads(lines[0])["error"]["code"] == "incorrect"


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("split", range(1, 12))
def test_a_first_message_may_come_byte_by_byte(cluster: Cluster, split: int) -> None:
    body = msgpack.packb({"id": 1, "op": "ping"})
    for data in (b'{"id": 1, "op": "ping"}\n', PREAMBLE + struct.pack(">I", len(body)) + body):
        with dial(cluster) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(data[:split])
            for byte in data[split:]:
                connection.sendall(bytes([byte]))
            assert b"time" in connection.recv(1 << 16)


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("length", [1, 5, 20, 60])
def test_a_client_that_vanishes_in_the_middle_of_a_message_leaves_nothing(
    cluster: Cluster, encoding: str, length: int
) -> None:
    client = cluster.open(encoding)
    message = {"id": 1, "op": "transact", "changes": [{"relation": "e", "insert": [[100 + length]]}]}
    if encoding.startswith("ws"):
        # A masked frame whose header promises more than follows.
        header = bytes([0x81 if encoding == "ws-text" else 0x82, 0x80 | 126]) + struct.pack(">H", 500)
        client.stream.socket.sendall((header + b"\0" * 600)[: length + 1])
    else:
        data = client.stream.encode(message)  # type: ignore[union-attr]
        client.stream.socket.sendall(data[: min(length, len(data) - 1)])
    client.stream.socket.close()


@pytest.mark.usefixtures("witness")
def test_vanishing_at_every_byte_of_a_handshake(cluster: Cluster) -> None:
    request = (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: " + b"A" * 22 + b"==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    for length in range(len(request) + 1):
        with dial(cluster) as connection:
            connection.sendall(request[:length])
    for length in range(len(PREAMBLE) + 1):
        with dial(cluster) as connection:
            connection.sendall(PREAMBLE[:length])


MALFORMED_JSON = [
    b"{",
    b'{"id": 1,}',
    b'{"id": 1 "op": "ping"}',
    b'{"op": "\xff"}',
    b'{"op": nope}',
    b'{"op": "ping"}}',
    b"{" * 1000,
]
MALFORMED_MESSAGEPACK = [
    b"",
    b"\xc1",
    b"\x93\x01",
    b"\x81\xa2id",
    b"\x05",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\x81" * 1000,
]


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_malformed_messages_keep_the_connection(cluster: Cluster, encoding: str) -> None:
    client = cluster.open(encoding)
    binary = encoding in ("msgpack", "ws-binary")
    for data in MALFORMED_MESSAGEPACK if binary else MALFORMED_JSON:
        if encoding == "ws-text" and b"\xff" in data:
            continue  # invalid UTF-8 in a text frame is WebSocket's own error, tested below
        frame = {
            "msgpack": struct.pack(">I", len(data)) + data,
            "ndjson": data + b"\n",
        }.get(encoding, data)
        reply = client.raw_bytes(frame)
        assert reply["error"]["code"] == "incorrect", (data, reply)
    assert client.insert("e", [1]) >= 0


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_random_bytes_inside_intact_framing(cluster: Cluster, encoding: str, rng: object) -> None:
    client = cluster.open(encoding)
    for _ in range(50):
        data = os.urandom(40).replace(b"\n", b"x")
        if encoding == "ws-text":
            data = data.hex().encode()
        frame = {"msgpack": struct.pack(">I", len(data)) + data, "ndjson": data + b"\n"}.get(encoding, data)
        assert client.raw_bytes(frame)["error"]["code"] == "incorrect"
    client.call("ping")


@pytest.mark.usefixtures("witness")
def test_deeply_nested_values_are_refused(cluster: Cluster) -> None:
    client = cluster.open("ndjson")
    for depth in (100, 10_000, 1_000_000):
        text = '{"id": "deep", "op": "transact", "changes": ' + "[" * depth + "]" * depth + "}\n"
        assert client.raw_bytes(text.encode())["error"]["code"] == "incorrect"


@pytest.mark.usefixtures("witness")
def test_lines_may_end_in_crlf_and_be_empty(cluster: Cluster) -> None:
    client = cluster.open("ndjson")
    assert "ok" in client.raw_bytes(b'\r\n\n{"id": "x", "op": "ping"}\r\n\r\n')


@pytest.mark.usefixtures("witness")
def test_a_declared_length_over_the_limit_is_refused_before_the_body(cluster: Cluster) -> None:
    with dial(cluster) as connection:
        connection.sendall(PREAMBLE + struct.pack(">I", LIMIT + 1))
        data = drain(connection)
    assert msgpack.unpackb(data[4:])["error"]["code"] == "too-large"


@pytest.mark.usefixtures("witness")
def test_a_line_over_the_limit_is_refused(cluster: Cluster) -> None:
    client = cluster.open("ndjson")
    # The server may close, and the kernel report it, while this is still being sent.
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        client.stream.send_bytes(b'{"op": "' + b"x" * (LIMIT + (1 << 20)))
    data = bytes(client.stream.buffer) + drain(client.stream.socket)  # type: ignore[union-attr]
    assert data == b"" or json.loads(data)["error"]["code"] == "too-large"


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("encoding", ["ws-text", "ws-binary"])
def test_a_websocket_message_over_the_limit_closes_with_1009(cluster: Cluster, encoding: str) -> None:
    client = cluster.open(encoding)
    opcode = 0x81 if encoding == "ws-text" else 0x82
    client.stream.socket.sendall(bytes([opcode, 0x80 | 127]) + struct.pack(">Q", LIMIT + 1) + b"\0\0\0\0")
    with pytest.raises(Closed) as closed:
        while True:
            client.pump()
    assert closed.value.code == 1009


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x81\0\0\0\0\xff", 1007),
        (b"\xf1\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x81\x01a", 1002),
        (b"\x89\xfe\x00\x80\0\0\0\0" + b"\0" * 128, 1002),
    ],
    ids=["bad UTF-8", "reserved bits", "reserved opcode", "not masked", "long ping"],
)
def test_frames_that_break_websocket_close_it(cluster: Cluster, frame: bytes, code: int) -> None:
    client = cluster.open("ws-text")
    client.stream.socket.sendall(frame)
    with pytest.raises(Closed) as closed:
        while True:
            client.pump()
    assert closed.value.code == code


@pytest.mark.usefixtures("witness")
def test_websocket_messages_may_come_in_fragments_with_pings_between(cluster: Cluster) -> None:
    client = cluster.open("ws-text", hello=False)
    body = b'{"id": "x", "op": "ping"}'

    def frame(first: int, payload: bytes) -> bytes:
        return bytes([first, 0x80 | len(payload)]) + b"\0\0\0\0" + payload

    client.stream.socket.sendall(
        frame(0x01, body[:5]) + frame(0x89, b"are you there") + frame(0x00, body[5:9]) + frame(0x80, body[9:])
    )
    assert "ok" in client.next_unsolicited()


@pytest.mark.usefixtures("witness")
def test_one_websocket_may_speak_both_encodings(cluster: Cluster) -> None:
    client = cluster.open("ws-text")
    websocket = client.stream.websocket  # type: ignore[union-attr]
    websocket.send_binary(msgpack.packb({"id": "b", "op": "ping"}))
    opcode, data = websocket.recv_data()
    assert (opcode, msgpack.unpackb(data)["id"]) == (2, "b")
    websocket.send(json.dumps({"id": "t", "op": "ping"}))
    opcode, data = websocket.recv_data()
    assert (opcode, json.loads(data)["id"]) == (1, "t")


@pytest.mark.usefixtures("witness")
def test_a_read_over_the_limit_is_too_large_and_the_connection_stays(cluster: Cluster) -> None:
    client = cluster.open("msgpack")
    client.register(".decl big(k: number, s: symbol) raw\n.input big", "big")
    for k in range(5):
        client.insert("big", *((k * 1000 + i, "x" * 4000 + str(i)) for i in range(1000)))
    reply = client.raw({"id": "r", "op": "read", "relation": "big"})
    assert reply["error"]["code"] == "too-large"
    assert len(client.read("big", limit=10)) == 10

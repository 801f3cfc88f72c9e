"""`docs/protocol.md` sentence by sentence, on streams of bytes, HTTP and WebSockets."""

from __future__ import annotations

import http.client
import json
import socket
import struct

import pytest
import websocket

from .cluster import Cluster
from .wire import PATIENCE, PREAMBLE, Closed, Stream

pytestmark = pytest.mark.parametrize("slot", [(1, 2), (2, 2)], indirect=True, ids=["1x2", "2x2"])

BASE = """
    .decl n(x: number, s: symbol, u: unsigned, f: float, b: bool)
    .input n
    .decl log(k: number, text: symbol) raw
    .input log
"""


# --- streams of bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ndjson", "msgpack"])
def test_a_whole_conversation_may_come_byte_by_byte(cluster: Cluster, encoding: str) -> None:
    stream = Stream(cluster.addresses[0], encoding)
    requests = [
        {"id": 1, "op": "register", "program": BASE, "name": "base"},
        {"id": 2, "op": "transact", "changes": [{"relation": "n", "insert": [[1, "ü", 2, 0.5, True]]}]},
        {"id": 3, "op": "read", "relation": "n"},
        {"id": 4, "op": "subscribe", "relation": "n"},
    ]
    for byte in b"".join(map(stream.encode, requests)):
        stream.send_bytes(bytes([byte]))
    messages = {message.get("id"): message for message in (stream.receive() for _ in range(5))}
    assert messages[3]["ok"]["rows"] == [[1, "ü", 2, 0.5, True]]
    assert messages[None]["changes"] == [[[1, "ü", 2, 0.5, True], 1]]
    assert all("ok" in messages[number] for number in (1, 2, 4))
    stream.close()


@pytest.mark.parametrize("encoding", ["ndjson", "msgpack"])
def test_a_client_that_has_said_all_gets_all_answers(cluster: Cluster, encoding: str) -> None:
    """As `printf … | nc` does: everything is sent, the sending side closed, then read to the end."""
    stream = Stream(cluster.addresses[0], encoding)
    requests = [
        {"id": 1, "op": "register", "program": BASE, "name": "base"},
        *(
            {"id": k, "op": "transact", "changes": [{"relation": "log", "insert": [[k, "x"]]}]}
            for k in range(2, 40)
        ),
        {"id": 40, "op": "read", "relation": "log"},
    ]
    stream.send_bytes(b"".join(map(stream.encode, requests)))
    stream.socket.shutdown(socket.SHUT_WR)
    replies = {}
    with pytest.raises(Closed):
        while True:
            reply = stream.receive()
            replies[reply["id"]] = reply
    assert sorted(replies) == list(range(1, 41))
    assert len(replies[40]["ok"]["rows"]) == 38
    stream.close()


def test_a_last_line_needs_its_end(cluster: Cluster) -> None:
    stream = Stream(cluster.addresses[0], "ndjson")
    stream.send_bytes(b'{"id": 1, "op": "ping"}\n{"id": 2, "op": "ping"}')
    stream.socket.shutdown(socket.SHUT_WR)
    assert "ok" in stream.receive()
    last = stream.receive()
    assert (last["id"], last["error"]["code"]) == (None, "incorrect")
    with pytest.raises(Closed):
        stream.receive()
    stream.close()


def test_the_preamble_may_be_cut_anywhere_and_lengths_may_be_zero(cluster: Cluster) -> None:
    stream = Stream(cluster.addresses[0], "ndjson")
    stream.binary = True
    for byte in PREAMBLE:
        stream.send_bytes(bytes([byte]))
    stream.send_bytes(struct.pack(">I", 0) + stream.encode({"id": 1, "op": "ping"}))
    assert stream.receive()["error"]["code"] == "incorrect"
    assert "ok" in stream.receive()
    stream.close()


# --- HTTP ---------------------------------------------------------------------------------------------------


def exchange(cluster: Cluster, text: bytes) -> bytes:
    """Everything that is answered to some bytes."""
    with socket.create_connection(cluster.addresses[0], timeout=PATIENCE) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
    return answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_not_allowed(cluster: Cluster, method: str) -> None:
    connection = http.client.HTTPConnection(*cluster.addresses[0], timeout=PATIENCE)
    connection.request(method, "/")
    response = connection.getresponse()
    assert (response.status, response.getheader("allow")) == (405, "GET, HEAD")
    connection.close()


@pytest.mark.parametrize("path", ["/", "/metrics", "/health/ready", "/nothing"])
def test_head_is_get_without_the_body(cluster: Cluster, path: str) -> None:
    answers = []
    for method in (b"GET", b"HEAD"):
        answer = exchange(
            cluster,
            method + b" " + path.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        )
        head, _, body = answer.partition(b"\r\n\r\n")
        answers.append(
            (head.split(b"\r\n")[0], sorted(line.split(b":")[0] for line in head.split(b"\r\n")[1:]), body)
        )
    (got, got_fields, _), (headed, headed_fields, body) = answers
    assert (got, got_fields, body) == (headed, headed_fields, b"")


def test_requests_may_follow_one_another_on_a_connection(cluster: Cluster) -> None:
    request = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    answer = exchange(cluster, request * 3)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3


def test_the_echo_is_off_unless_asked_for(cluster: Cluster) -> None:
    socket_ = websocket.create_connection(f"ws://127.0.0.1:{cluster.addresses[0][1]}/echo", timeout=PATIENCE)
    socket_.send(json.dumps({"id": "e", "op": "ping"}))
    assert "ok" in json.loads(socket_.recv())
    socket_.close()


def test_a_websocket_may_be_opened_on_any_path(cluster: Cluster) -> None:
    for path in ("/", "/any/path?with=query", "/metrics"):
        url = f"ws://127.0.0.1:{cluster.addresses[0][1]}{path}"
        socket_ = websocket.create_connection(url, timeout=PATIENCE)
        socket_.send(json.dumps({"id": "e", "op": "ping"}))
        assert "ok" in json.loads(socket_.recv())
        socket_.close()

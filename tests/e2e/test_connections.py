"""Limits of connections as they are set, and connections that do nothing."""

from __future__ import annotations

import os
import re
import resource
import selectors
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
import websocket

from .cluster import Cluster, Process
from .test_http import get
from .wire import PATIENCE, PREAMBLE, Closed, Refused, Wire

IDLE = int(os.environ.get("IDLE_CONNECTIONS", "300"))
"""How many idle connections are opened; `make torture` has 10,000."""
PINGS = (b'{"op":"ping"}\n', struct.pack(">I", 9) + msgpack.packb({"op": "ping"}))
PROGRAM = ".decl e(x: number)\n.input e"


@pytest.fixture(scope="module")
def strict() -> Iterator[Cluster]:
    """A server with limits so tight that a test can meet them."""
    options = ["--limit=max_connections=8", "--limit=max_message_bytes=2000"]
    options += ["--tune=connection_subscriptions=2", "--tune=transaction_rows=3"]
    cluster = Cluster(1, 1, *options)
    cluster.open().register(PROGRAM, "p")
    cluster.close_clients()
    yield cluster
    cluster.kill()


def alone(strict: Cluster) -> Wire:
    """A client, once the server has seen all others leave."""
    while True:
        try:
            client = strict.open()
        except (Refused, Closed):
            continue
        while client.call("status")["clients"] != 1:
            pass
        return client


def test_one_connection_too_many_is_busy_and_the_others_go_on(strict: Cluster) -> None:
    held = [alone(strict), *(strict.open() for _ in range(7))]
    with Wire(strict.addresses[0], hello=False) as refused:
        error = refused.raw({"op": "ping"})["error"]
        assert (error["code"], error["message"], error["retry"]) == ("busy", "too many connections", True)
    for client in held:
        client.call("ping")
    strict.close_clients()
    alone(strict).close()


def test_one_subscription_too_many_is_busy(strict: Cluster) -> None:
    with alone(strict) as client:
        first = client.subscribe("e")
        client.subscribe("e")
        with pytest.raises(Refused, match="busy: cannot subscribe to e: this connection has 2 subscriptions"):
            client.subscribe("e")
        client.unsubscribe(first)
        client.subscribe("e")


def test_one_row_too_many_is_too_large_and_none_is_inserted(strict: Cluster) -> None:
    with Wire(strict.addresses[0]) as client:
        with pytest.raises(Refused, match="too-large: a transaction may have 3 rows"):
            client.insert("e", [1], [2], [3], [4])
        assert client.read("e") == {}
        client.insert("e", [1], [2], [3])
        client.delete("e", [1], [2], [3])


def test_a_message_over_the_limit_that_is_set(strict: Cluster) -> None:
    with Wire(strict.addresses[0]) as client:
        answer = client.raw({"id": "x", "op": "register", "program": " " * 3000})
        assert answer["error"]["code"] == "too-large"


@pytest.fixture
def hasty(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A server with one limit set, that of the test's parameter."""
    process = Process(["--listen", "127.0.0.1:0", "--limit", request.param], {})
    yield process.wait_listening()
    process.kill()


@pytest.mark.parametrize("hasty", ["handshake_seconds=0.2"], indirect=True)
def test_a_connection_that_says_nothing_is_closed_in_time(hasty: tuple[str, int]) -> None:
    with socket.create_connection(hasty, PATIENCE) as silent:
        assert b"did not say what it is" in silent.makefile("rb").read()


@pytest.mark.parametrize("hasty", ["idle_ping_seconds=0.4"], indirect=True)
def test_a_websocket_without_a_sign_of_life_is_asked_for_one_and_closed(hasty: tuple[str, int]) -> None:
    with Wire(hasty, "ws-text", hello=False) as silent:
        # One frame after the other, without the answers that the library would give.
        frames = [silent.stream.websocket.recv_frame() for _ in range(2)]  # type: ignore[union-attr]
    seen = [(frame.opcode, bytes(frame.data)) for frame in frames]
    assert seen == [
        (websocket.ABNF.OPCODE_PING, b""),
        (websocket.ABNF.OPCODE_CLOSE, (1008).to_bytes(2, "big")),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "max_conections=5"], "no limit 'max_conections'; there are max_message_bytes"),
        (["--limit", "max_connections=many"], "is not name=number"),
        (["--limit", "max_connections=-5"], ">= 0 - at `$.limits[...]`"),
        (["--limit", "handshake_seconds=1e300"], "between 0 and a year"),
    ],
)
def test_a_limit_that_cannot_be_is_said_clearly(options: list[str], message: str) -> None:
    process = Process(["--listen", "127.0.0.1:0", *options], {})
    assert process.wait(PATIENCE) == 2
    output = " ".join("".join(process.output).split())
    assert message in output, output


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
@pytest.mark.timeout(900)
def test_many_idle_connections_cost_little_and_harm_nobody() -> None:
    """All are answered, keep their places, and hold no buffers; the others' requests are served as before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + 500:
        pytest.skip(f"{IDLE} connections need more than the {hard} descriptors allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, IDLE + 500)), hard))
    cluster = Cluster(1, 2)
    idle: list[socket.socket] = []
    try:
        pid, client = cluster.members[0].popen.pid, cluster.open("msgpack")
        client.register(PROGRAM)
        client.insert("e", [0])
        before = resident(pid)
        with selectors.DefaultSelector() as answers:
            for number in range(IDLE):
                connection = socket.create_connection(cluster.addresses[0], PATIENCE)
                idle.append(connection)
                connection.sendall(PINGS[number % 2] if number % 2 == 0 else PREAMBLE + PINGS[1])
                answers.register(connection, selectors.EVENT_READ)
            waiting = len(idle)
            while waiting:
                ready = answers.select(PATIENCE)
                assert ready, f"{waiting} of {IDLE} connections got no answer"
                for key, _ in ready:
                    assert b"time" in key.fileobj.recv(1000)  # type: ignore[union-attr]
                    answers.unregister(key.fileobj)
                    waiting -= 1
        assert client.call("status")["clients"] == IDLE + 1
        grown = resident(pid) - before
        print(f"{IDLE} idle connections, {grown / IDLE / 1024:.1f} KiB each")
        # What the process takes once, however many there are, counts most where there are few.
        assert grown < 16 * 1024 * IDLE + (16 << 20)
        for number in range(1, 50):
            client.insert("e", [number])
        assert len(client.read("e")) == 50
        samples = get(cluster, "/metrics").body.decode()  # type: ignore[attr-defined]
        owned = [int(n) for n in re.findall(r'^dataflow_connections\{worker="\d+"\} (\d+)', samples, re.M)]
        assert abs(owned[0] - owned[1]) <= 2, "dealt in turn"
        for number in range(0, IDLE, max(1, IDLE // 51)):
            connection = idle[number]
            connection.sendall(PINGS[number % 2])
            assert b"time" in connection.recv(1000)
    finally:
        for connection in idle:
            connection.close()
        cluster.kill()

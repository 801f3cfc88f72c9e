"""Real sockets on the loopback: framed TCP and WebSocket carry the same conversation."""

import socket
import subprocess
import sys

import pytest
import trio
import trio_websocket

from dataflow_serve.client import open_client
from dataflow_serve.client._transport import Address
from dataflow_serve.errors import ConnectionClosed, ForbiddenError, LocalProtocolError, UnavailableError
from dataflow_serve.protocol import Encoding, Hello, Ping, Pong, decode_request, encode_message
from tests.unit.scripted_server import ScriptedServer, server_info


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("df://host:7", Address("df", "host", 7)),
        ("df://host", Address("df", "host", 6262)),
        ("df://[::1]:7", Address("df", "::1", 7)),
        ("df://to%2Fken@host:7", Address("df", "host", 7, token="to/ken")),
        ("ws://host/path", Address("ws", "host", 6262, "/path")),
    ],
)
def test_addresses_are_urls(url: str, address: Address) -> None:
    parsed = Address.parse(url)
    assert parsed == address
    assert Address.parse(str(parsed), parsed.token) == address
    assert "token" not in str(parsed)
    assert Address.parse(url, "other").token == "other"


def test_other_schemes_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match=r"such as df://"):
        Address.parse("https://host")


async def test_tcp_without_delay() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def serve() -> None:
        async with await listeners[0].accept() as stream:
            server = ScriptedServer(stream)
            await server.hello()
            await server.expect(Ping)
            await server.reply(Pong(3))
            await server.expect_hangup()
        await listeners[0].aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_client(f"df://127.0.0.1:{port}") as db:
            assert await db.ping() == 3
            assert db._session.link is not None
            stream = db._session.link._transport._stream  # type: ignore[attr-defined]
            assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def answering(request: trio_websocket.WebSocketRequest) -> None:
    """A WebSocket that says hello, answers a ping with a large message and closes with a reason."""
    if dict(request.headers).get(b"authorization") != b"Bearer secret":
        await request.reject(401)
        return
    connection = await request.accept()
    for expected, body in ((Hello, server_info()), (Ping, Pong(3))):
        payload = await connection.get_message()
        assert isinstance(payload, bytes)
        number, word = decode_request(payload, Encoding.MESSAGEPACK)
        assert isinstance(word, expected)
        await connection.send_message(encode_message((number, body), Encoding.MESSAGEPACK))
    await connection.get_message()
    await connection.aclose(1012, "the cluster restarts")


async def serve_websocket(handler: object, *, task_status: trio.TaskStatus[int]) -> None:
    """Listen until cancelled; the port is what starting gives."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, handler, "127.0.0.1", 0, None)
        task_status.started(server.port)


async def test_websocket() -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_websocket, answering)
        async with open_client(f"ws://secret@127.0.0.1:{port}", reconnect=False) as db:
            assert db.info.workers == 2
            assert await db.ping() == 3
            with pytest.raises(ConnectionClosed, match="code 1012: the cluster restarts"):
                await db.ping()
        nursery.cancel_scope.cancel()


async def test_a_websocket_refused_for_its_token() -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_websocket, answering)
        with pytest.raises(ForbiddenError, match="refuses this client"):
            async with open_client(f"ws://wrong@127.0.0.1:{port}"):
                raise AssertionError("refused")
        nursery.cancel_scope.cancel()


async def test_something_else_that_listens_is_no_server() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def serve() -> None:
        async with await listeners[0].accept() as stream:
            await stream.receive_some()
            await stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")
        await listeners[0].aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises((UnavailableError, ConnectionClosed), match="hello got no answer"):
            async with open_client(f"df://127.0.0.1:{port}"):
                raise AssertionError("no server")


def test_what_websockets_need_is_loaded_where_one_is_wanted() -> None:
    program = "import sys, dataflow_serve.cli; sys.exit('trio_websocket' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)

"""A server that does what a test says, line by line, at the other end of a stream in memory."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import trio
import trio.testing

from dataflow_serve.client import Client, Framing, LengthPrefixed
from dataflow_serve.client._session import Session
from dataflow_serve.client._transport import StreamTransport, Transport
from dataflow_serve.client._trio import _running
from dataflow_serve.errors import UnavailableError
from dataflow_serve.protocol import (
    PREAMBLE,
    Changes,
    Column,
    Encoding,
    Ended,
    ErrorBody,
    Failure,
    Hello,
    Reached,
    ReplyBody,
    Request,
    ServerInfo,
    Subscribe,
    Subscribed,
    decode_request,
    encode_message,
)

R = TypeVar("R", bound=Request)

KNOWS = (Column("x", "symbol"), Column("y", "symbol"))


def server_info(history: Any = "h1") -> ServerInfo:
    """What the scripted server says about itself."""
    return ServerInfo(1, "scripted 0", 0, 2, 0, 1, 10, history)


class ScriptedServer:
    """One connection's server end: `expect` requests, then answer and push."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        """Take the server's end of a stream."""
        self.stream = stream
        self._framing = LengthPrefixed()
        self._preamble_seen = False
        self._last_id: Any = None

    async def expect(self, kind: type[R]) -> R:
        """The next request, which must be a ``kind``."""
        while (payload := self._framing.next_payload()) is None:
            data = bytes(await self.stream.receive_some())
            assert data, f"the client hung up; expected {kind.__name__}"
            if not self._preamble_seen:
                assert data.startswith(PREAMBLE)
                data, self._preamble_seen = data[len(PREAMBLE) :], True
            if data:
                self._framing.feed(data)
        self._last_id, request = decode_request(payload[0], Encoding.MESSAGEPACK)
        assert isinstance(request, kind), f"expected {kind.__name__}, got {request}"
        return request

    async def expect_hangup(self) -> None:
        """The client closes the connection."""
        with suppress(trio.BrokenResourceError):
            assert await self.stream.receive_some() == b""

    @property
    def last_id(self) -> Any:
        """The id of the request that `expect` gave last."""
        return self._last_id

    async def reply(self, body: ReplyBody, to: Any = None) -> None:
        """Answer a request, the last one unless told which."""
        await self.send((self._last_id if to is None else to, body))

    async def refuse(self, code: str, message: str, *, retry: bool = False) -> None:
        """Answer the last request with an error."""
        await self.send(Failure(self._last_id, ErrorBody(code, message, retry)))

    async def send(self, *messages: Failure | Changes | Reached | Ended | tuple[Any, ReplyBody]) -> None:
        """Send messages, in one go."""
        frames = [self._framing.wrap(encode_message(message, Encoding.MESSAGEPACK)) for message in messages]
        await self.stream.send_all(b"".join(frames))

    async def hello(self, history: Any = "h1") -> Hello:
        """Greet a client."""
        request = await self.expect(Hello)
        await self.reply(server_info(history))
        return request

    async def subscription(
        self, sub: int = 1, time: int = 10, *, history: Any = "h1", resync: bool = False
    ) -> Subscribe:
        """Let the client subscribe to a relation with `KNOWS`'s columns."""
        request = await self.expect(Subscribe)
        await self.reply(Subscribed(sub, KNOWS, time, history, resync))
        return request


class Network:
    """Where clients dial, and the test picks up the other end."""

    def __init__(self, pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]) -> None:
        """Connections are made by ``pair``."""
        self._pair = pair
        self._calls, self._picked_up = trio.open_memory_channel[ScriptedServer](100)
        self.greets = False
        self.refuses = False

    async def dial(self, nursery: trio.Nursery) -> tuple[Transport, Framing]:
        """What the client calls for a connection."""
        await trio.lowlevel.checkpoint()
        if self.refuses:
            raise UnavailableError("nobody there", retry=True)
        ours, theirs = self._pair()
        server = ScriptedServer(theirs)
        self._calls.send_nowait(server)
        if self.greets:
            nursery.start_soon(server.hello)
        return StreamTransport(ours), LengthPrefixed()

    async def pick_up(self) -> ScriptedServer:
        """The next connection that a client made."""
        return await self._picked_up.receive()


@asynccontextmanager
async def opened(
    *,
    reconnect: bool = False,
    ping_interval: float = math.inf,
    pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]] = trio.testing.memory_stream_pair,
) -> AsyncIterator[tuple[Client, ScriptedServer, Network]]:
    """A client that has said hello, and its server. Later connections are for the test to greet."""
    network = Network(pair)
    network.greets = True
    session = Session("df://scripted", network.dial, "secret", reconnect, ping_interval)
    async with _running(session) as client:
        network.greets = False
        yield client, await network.pick_up(), network

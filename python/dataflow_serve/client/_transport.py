"""Ways to a server: addresses, and the two kinds of trio connection that carry the protocol."""

from __future__ import annotations

import abc
import os
import ssl
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import trio
import trio_websocket

from dataflow_serve.client._framing import (
    MAX_MESSAGE_BYTES,
    Framing,
    LengthPrefixed,
    WebSocketMessages,
)
from dataflow_serve.client._tls import client_context, explain_tls
from dataflow_serve.errors import DataflowError, ForbiddenError, LocalProtocolError, UnavailableError
from dataflow_serve.protocol import DEFAULT_PORT

__all__ = ["Address", "StreamTransport", "Transport", "WebSocketTransport"]

# Large reads decide the throughput of both transports: they bound how often a byte crosses the event loop.
RECEIVE_BYTES = 256 * 1024
ENCRYPTED = ("dfs", "wss")
"""The schemes that go through TLS."""


Socket: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Transport(trio.abc.AsyncResource):
    """An open connection that moves whole frames out and chunks in."""

    @abc.abstractmethod
    async def send(self, frames: Sequence[bytes]) -> None:
        """Send all frames, in order. Cancelling may leave part of a frame sent: close the transport then."""

    @abc.abstractmethod
    async def receive(self) -> bytes | str:
        """What came next; ``b""`` at the end. Cancelling loses nothing."""


class StreamTransport(Transport):
    """Frames over any trio stream: a socket, TLS over one, or memory."""

    def __init__(self, stream: trio.abc.Stream, where: str = "the other end") -> None:
        """Take the stream over; ``where`` it leads is for messages."""
        self._stream = stream
        self._where = where

    async def send(self, frames: Sequence[bytes]) -> None:
        """Send all frames in one go; see `Transport.send`."""
        await self._stream.send_all(b"".join(frames))

    async def receive(self) -> bytes | str:
        """Read one chunk; see `Transport.receive`.

        Raises:
            DataflowError: TLS failed; a server that wants another certificate says so only now.
        """
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                raise explain_tls(self._where, error.__cause__) from error
            raise

    async def aclose(self) -> None:
        """Close the stream; cancelling closes it as well, only less politely."""
        await self._stream.aclose()


class WebSocketTransport(Transport):
    """Frames as binary WebSocket messages."""

    def __init__(self, socket: trio_websocket.WebSocketConnection, stream: trio.abc.Stream) -> None:
        """Take over the connection and the stream that it runs on."""
        self._socket = socket
        self._stream = stream

    async def send(self, frames: Sequence[bytes]) -> None:
        """Send a message a frame; see `Transport.send`."""
        for frame in frames:
            await self._socket.send_message(frame)

    async def receive(self) -> bytes | str:
        """Read one message; see `Transport.receive`."""
        while True:
            try:
                message: bytes | str = await self._socket.get_message()
            except trio_websocket.ConnectionClosed as closed:
                if closed.reason is not None and closed.reason.code in (1000, 1001):
                    return b""
                raise trio.BrokenResourceError(_spelled(closed)) from closed
            # An empty message says nothing, and would read as the end.
            if message:
                return message

    async def aclose(self) -> None:
        """Close with the closing handshake; cancelling skips it."""
        try:
            await self._socket.aclose()
        finally:
            # When it was cancelled, or the peer closed first, the WebSocket leaves this to others.
            await trio.aclose_forcefully(self._stream)


def _spelled(closed: trio_websocket.ConnectionClosed) -> str:
    if closed.reason is None:
        return "the WebSocket broke off"
    text = f"the server closed the WebSocket with code {closed.reason.code}"
    return f"{text}: {closed.reason.reason}" if closed.reason.reason else text


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and how to talk to it."""

    scheme: str
    host: str
    port: int
    path: str = "/"
    token: str | None = None
    context: ssl.SSLContext | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, url: str, token: str | None = None, context: ssl.SSLContext | None = None) -> Address:
        """Read ``df://[token@]host[:port]`` or ``ws://[token@]host[:port][/path]``; ``dfs``, ``wss`` for TLS.

        Raises:
            LocalProtocolError: it is none of these.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("df", "dfs", "ws", "wss"):
            raise LocalProtocolError(
                f"cannot connect to {url!r}",
                "Give an address such as df://127.0.0.1:6262 or ws://127.0.0.1:6262; dfs, wss for TLS.",
            )
        if context is not None and parts.scheme not in ENCRYPTED:
            raise LocalProtocolError(
                f"cannot connect to {url!r} with TLS", f"Write {parts.scheme}s:// for a connection with TLS."
            )
        try:
            port = parts.port or DEFAULT_PORT
        except ValueError as error:
            raise LocalProtocolError(f"cannot connect to {url!r}: {error}") from error
        secret = token if token is not None else parts.username and urllib.parse.unquote(parts.username)
        return cls(parts.scheme, parts.hostname or "127.0.0.1", port, parts.path or "/", secret, context)

    @property
    def is_websocket(self) -> bool:
        """Whether messages go through a WebSocket."""
        return self.scheme.startswith("ws")

    def __str__(self) -> str:
        """The address as an URL, without its token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = self.path if self.is_websocket and self.path != "/" else ""
        return f"{self.scheme}://{host}:{self.port}{path}"

    async def dial(self, nursery: trio.Nursery) -> tuple[Transport, Framing]:
        """Open a connection; tasks that it needs run in ``nursery``.

        Cancelling leaves no connection behind.

        Raises:
            UnavailableError: nobody answers there, or not with this protocol, or it can't be trusted.
            ForbiddenError: the server wants another token or certificate.
        """
        try:
            # trio sets TCP_NODELAY on the sockets that it wraps: a small request never waits for the
            # acknowledgement of an earlier one.
            plain = await trio.open_tcp_stream(self.host, self.port)
            stream = await self._encrypted(plain) if self.scheme in ENCRYPTED else plain
            if self.is_websocket:
                return await self._open_websocket(nursery, stream), WebSocketMessages()
            return StreamTransport(stream, str(self)), LengthPrefixed()
        except trio_websocket.ConnectionRejected as error:
            raise _rejection(self, error) from error
        except (OSError, trio_websocket.HandshakeError, trio_websocket.ConnectionClosed) as error:
            raise UnavailableError(
                f"cannot reach a server at {self}: {_why(error)}",
                "Start one with `dataflow-serve`, or check the address.",
                retry=True,
            ) from error

    async def _encrypted(self, stream: trio.SocketStream) -> Socket:
        """Shake hands; messages say where they end, so that nobody has to wait for a goodbye."""
        context = self.context or client_context()
        encrypted = trio.SSLStream(stream, context, server_hostname=self.host, https_compatible=True)
        try:
            await encrypted.do_handshake()
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error.__cause__, ssl.SSLError):
                raise explain_tls(str(self), error.__cause__) from error
            raise UnavailableError(f"cannot reach a server at {self}: it broke off", retry=True) from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return encrypted

    async def _open_websocket(self, nursery: trio.Nursery, stream: Socket) -> WebSocketTransport:
        try:
            return WebSocketTransport(await nursery.start(self._attend_websocket, stream), stream)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def _attend_websocket(
        self, stream: Socket, *, task_status: trio.TaskStatus[trio_websocket.WebSocketConnection]
    ) -> None:
        """Run the WebSocket's own task, which reports a refusal to its nursery rather than to its caller."""
        headers = [] if self.token is None else [(b"Authorization", b"Bearer " + self.token.encode())]
        try:
            async with trio.open_nursery() as nursery:
                socket = await trio_websocket.wrap_client_stream(
                    nursery,
                    stream,
                    f"{self.host}:{self.port}",
                    self.path,
                    extra_headers=headers,
                    max_message_size=MAX_MESSAGE_BYTES,
                    receive_buffer_size=RECEIVE_BYTES,
                )
                task_status.started(socket)
        except BaseExceptionGroup as group:
            raise _innermost(group) from group


def _rejection(address: Address, error: trio_websocket.ConnectionRejected) -> DataflowError:
    if error.status_code in (401, 403):
        return ForbiddenError(f"the server at {address} refuses this client", "Give it a valid token.")
    busy = error.status_code == 503
    return UnavailableError(f"{address} answers with HTTP status {error.status_code}", retry=busy)


def _why(error: BaseException) -> str:
    """The reason in the system's words: trio wraps an attempt for each address that a name has."""
    cause = _innermost(error.__cause__ or error)
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno).lower()
    return str(cause) or type(cause).__name__


def _innermost(error: BaseException) -> BaseException:
    """The first single error of a group; what was cancelled because of it doesn't count."""
    while isinstance(error, BaseExceptionGroup):
        _, others = error.split(trio.Cancelled)
        error = (others or error).exceptions[0]
    return error

"""Ways to a server: addresses, and the plain or encrypted streams that carry the protocol."""

from __future__ import annotations

import abc
import os
import ssl
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from dataflow_serve.client._framing import (
    Framing,
    LengthPrefixed,
    WebSocketMessages,
)
from dataflow_serve.client._tls import client_context, explain_tls
from dataflow_serve.errors import LocalProtocolError, UnavailableError
from dataflow_serve.protocol import DEFAULT_PORT

__all__ = ["Address", "StreamTransport", "Transport", "innermost", "unreachable"]

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
        except OSError as error:
            raise unreachable(self, error) from error
        if not self.is_websocket:
            return StreamTransport(stream, str(self)), LengthPrefixed()
        # Only here: loading it takes a tenth of the time in which a command starts, and few need it.
        from dataflow_serve.client._websocket import open_websocket

        return await open_websocket(self, nursery, stream), WebSocketMessages()

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


def unreachable(address: Address, error: BaseException) -> UnavailableError:
    """The error for a server that can't be connected to."""
    return UnavailableError(
        f"cannot reach a server at {address}: {_why(error)}",
        "Start one with `dataflow-serve`, or check the address.",
        retry=True,
    )


def _why(error: BaseException) -> str:
    """The reason in the system's words: trio wraps an attempt for each address that a name has."""
    cause = innermost(error.__cause__ or error)
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno).lower()
    return str(cause) or type(cause).__name__


def innermost(error: BaseException) -> BaseException:
    """The first single error of a group; what was cancelled because of it doesn't count."""
    while isinstance(error, BaseExceptionGroup):
        _, others = error.split(trio.Cancelled)
        error = (others or error).exceptions[0]
    return error

"""Through a WebSocket; loaded only where one is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import trio
import trio_websocket

from dataflow_serve.client._framing import MAX_MESSAGE_BYTES
from dataflow_serve.client._transport import (
    RECEIVE_BYTES,
    Address,
    Socket,
    Transport,
    innermost,
    unreachable,
)
from dataflow_serve.errors import DataflowError, ForbiddenError, UnavailableError

__all__ = ["WebSocketTransport", "open_websocket"]


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


async def open_websocket(address: Address, nursery: trio.Nursery, stream: Socket) -> WebSocketTransport:
    """Shake hands over a connected stream; what the WebSocket needs runs in ``nursery``.

    Cancelling closes the stream.

    Raises:
        UnavailableError: nobody answers there, or not with this protocol.
        ForbiddenError: the server wants another token.
    """
    try:
        return WebSocketTransport(await nursery.start(_attend, address, stream), stream)
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if isinstance(error, trio_websocket.ConnectionRejected):
            raise _rejection(address, error) from error
        if isinstance(error, OSError | trio_websocket.HandshakeError | trio_websocket.ConnectionClosed):
            raise unreachable(address, error) from error
        raise


async def _attend(
    address: Address, stream: Socket, *, task_status: trio.TaskStatus[trio_websocket.WebSocketConnection]
) -> None:
    """Run the WebSocket's own task, which reports a refusal to its nursery rather than to its caller."""
    headers = [] if address.token is None else [(b"Authorization", b"Bearer " + address.token.encode())]
    try:
        async with trio.open_nursery() as nursery:
            socket = await trio_websocket.wrap_client_stream(
                nursery,
                stream,
                f"{address.host}:{address.port}",
                address.path,
                extra_headers=headers,
                max_message_size=MAX_MESSAGE_BYTES,
                receive_buffer_size=RECEIVE_BYTES,
            )
            task_status.started(socket)
    except BaseExceptionGroup as group:
        raise innermost(group) from group


def _rejection(address: Address, error: trio_websocket.ConnectionRejected) -> DataflowError:
    if error.status_code in (401, 403):
        return ForbiddenError(f"the server at {address} refuses this client", "Give it a valid token.")
    busy = error.status_code == 503
    return UnavailableError(f"{address} answers with HTTP status {error.status_code}", retry=busy)

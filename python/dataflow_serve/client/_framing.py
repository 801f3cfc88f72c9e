"""Where messages begin and end: bytes in, payloads out, no socket.

Each framing turns what a transport delivers into payloads with their encoding, and wraps payloads for
sending. "Not complete yet" is an ordinary answer (None).
"""

from __future__ import annotations

from collections import deque
from typing import Protocol, TypeAlias

from dataflow_serve.errors import RemoteProtocolError
from dataflow_serve.protocol import PREAMBLE, Encoding

__all__ = ["Framing", "LengthPrefixed", "Lines", "Payload", "WebSocketMessages"]

Payload: TypeAlias = tuple[bytes, Encoding]

MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Default bound on what one message of a server may hold; a longer one breaks the connection."""

# Consumed bytes are cut off the front of a buffer only once there are this many: cutting moves all the rest.
_COMPACT_AT = 256 * 1024


class Framing(Protocol):
    """One way to delimit messages on a connection."""

    @property
    def preamble(self) -> bytes:
        """What a client sends before its first message."""
        ...

    @property
    def encoding(self) -> Encoding:
        """What requests are encoded in."""
        ...

    @property
    def midway(self) -> bool:
        """Whether part of a message is waiting for the rest."""
        ...

    def wrap(self, payload: bytes) -> bytes:
        """A payload ready for the transport."""
        ...

    def feed(self, data: bytes | str) -> None:
        """Take what the transport delivered."""
        ...

    def next_payload(self) -> Payload | None:
        """The next whole message, or None until more was fed.

        Raises:
            RemoteProtocolError: the framing is lost; the connection is of no more use.
        """
        ...


class LengthPrefixed:
    """MessagePack behind a 4-byte big-endian length: what the client speaks on plain TCP."""

    preamble = PREAMBLE
    encoding = Encoding.MESSAGEPACK

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        """Refuse messages that announce more than ``max_message_bytes``."""
        self._limit = max_message_bytes
        self._buffer = bytearray()
        self._start = 0

    @property
    def midway(self) -> bool:
        """Whether part of a message is waiting for the rest."""
        return len(self._buffer) > self._start

    def wrap(self, payload: bytes) -> bytes:
        """Put the length before the payload."""
        return len(payload).to_bytes(4, "big") + payload

    def feed(self, data: bytes | str) -> None:
        """Take bytes as they come."""
        assert isinstance(data, bytes)
        if self._start >= _COMPACT_AT or self._start == len(self._buffer):
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def next_payload(self) -> Payload | None:
        """The next whole message; one over the limit is refused by its length, before its bytes are here."""
        body = self._start + 4
        if len(self._buffer) < body:
            return None
        length = int.from_bytes(self._buffer[self._start : body], "big")
        if length > self._limit:
            raise RemoteProtocolError(f"the server announced a message of {length} bytes, over {self._limit}")
        if len(self._buffer) < body + length:
            return None
        with memoryview(self._buffer) as whole:
            payload = bytes(whole[body : body + length])
        self._start = body + length
        return payload, Encoding.MESSAGEPACK


class Lines:
    """JSON, one message a line; empty lines mean nothing."""

    preamble = b""
    encoding = Encoding.JSON

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        """Refuse lines longer than ``max_message_bytes``."""
        self._limit = max_message_bytes
        self._buffer = bytearray()
        self._start = 0
        self._searched = 0

    @property
    def midway(self) -> bool:
        """Whether part of a line is waiting for the rest."""
        return bool(self._buffer[self._start :].strip())

    def wrap(self, payload: bytes) -> bytes:
        """End the line; JSON text never holds a bare newline."""
        return payload + b"\n"

    def feed(self, data: bytes | str) -> None:
        """Take bytes as they come."""
        assert isinstance(data, bytes)
        if self._start >= _COMPACT_AT or self._start == len(self._buffer):
            del self._buffer[: self._start]
            self._searched -= self._start
            self._start = 0
        self._buffer += data

    def next_payload(self) -> Payload | None:
        """The next line that says something."""
        while (end := self._buffer.find(b"\n", self._searched)) >= 0:
            line = bytes(self._buffer[self._start : end]).strip()
            self._start = self._searched = end + 1
            self._check(len(line))
            if line:
                return line, Encoding.JSON
        self._searched = len(self._buffer)
        self._check(self._searched - self._start)
        return None

    def _check(self, length: int) -> None:
        if length > self._limit:
            raise RemoteProtocolError(f"the server sent a line of more than {self._limit} bytes")


class WebSocketMessages:
    """Payloads of WebSocket messages, which are delimited already: text is JSON, binary is MessagePack."""

    preamble = b""
    encoding = Encoding.MESSAGEPACK

    def __init__(self) -> None:
        """Start with nothing received; the WebSocket layer bounds the length of a message."""
        self._waiting: deque[Payload] = deque()

    @property
    def midway(self) -> bool:
        """Messages arrive whole."""
        return False

    def wrap(self, payload: bytes) -> bytes:
        """The WebSocket layer does the framing."""
        return payload

    def feed(self, data: bytes | str) -> None:
        """Take the payload of one message."""
        if isinstance(data, str):
            self._waiting.append((data.encode(), Encoding.JSON))
        else:
            self._waiting.append((data, Encoding.MESSAGEPACK))

    def next_payload(self) -> Payload | None:
        """The next message, if one waits."""
        return self._waiting.popleft() if self._waiting else None

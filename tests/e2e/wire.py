"""A client of its own for the tests: blocking, small, written from `docs/protocol.md` and nothing else.

It shares no code with the package, so that a mistake made alike on both sides of the wire still shows.
Besides sending and receiving it checks, on every message that a subscription gets, what the protocol promises
of it.
"""

from __future__ import annotations

import base64
import datetime
import itertools
import json
import socket
import ssl
import struct
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgpack
import websocket

# What values are in Python, the tests and the package have in common.
from dataflow_serve.values import Branch

PREAMBLE = b"\xdfFL\x01"
ENCODINGS = ("ndjson", "msgpack", "ws-text", "ws-binary")
PATIENCE = 30.0
"""Seconds after which a message that doesn't come is a failure; nothing waits this long when all is well."""

SERVER_NAME = "localhost"
"""What the certificates of servers in the tests are for."""

Row = tuple[Any, ...]
Contents = Counter[Row]


def spelled(value: Any, encoding: str) -> Any:
    """Values that the two encodings write differently, as this one does."""
    binary = encoding in ("msgpack", "ws-binary")
    match value:
        case dict():
            return {name: spelled(each, encoding) for name, each in value.items()}
        case list() | tuple():
            return [spelled(each, encoding) for each in value]
        case datetime.datetime():
            return value if binary else value.isoformat(timespec="microseconds").replace("+00:00", "Z")
        case uuid.UUID():
            return value.bytes if binary else str(value)
        case bytes() if not binary:
            return base64.b64encode(value).decode()
        case Branch(name, values):
            return {f"${name}": [spelled(each, encoding) for each in values]}
    return value


def understood(value: Any, kind: str, encoding: str, defined: dict[str, Any] | None = None) -> Any:
    """A value of a column of that type, from what one encoding makes of it.

    ``defined`` are the definitions of types that came with it; records become tuples.
    """
    if (definition := (defined or {}).get(kind)) is not None:
        if "record" in definition:
            return None if value is None else _fields(value, definition["record"], encoding, defined)
        ((name, values),) = value.items()
        assert name.startswith("$"), value
        return Branch(name[1:], _fields(values, definition["branches"][name[1:]], encoding, defined))
    binary = encoding in ("msgpack", "ws-binary")
    match kind:
        case "instant":
            return value if binary else datetime.datetime.fromisoformat(value)
        case "uuid":
            return uuid.UUID(bytes=value) if binary else uuid.UUID(value)
        case "bytes":
            return value if binary else base64.b64decode(value)
    return value


def _fields(values: list[Any], fields: list[Any], encoding: str, defined: Any) -> tuple[Any, ...]:
    return tuple(
        understood(value, field["type"], encoding, defined)
        for value, field in zip(values, fields, strict=True)
    )


class Refused(Exception):
    """The server's answer was an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('code')}: {error.get('message')} ({error})")
        self.error = error
        self.code: str = error["code"]
        self.message: str = error["message"]


class Closed(Exception):
    """The server closed the connection; `code` is the WebSocket close code, if there was one."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__(f"closed by the server (code {code})")
        self.code = code


def packed(message: Any) -> bytes:
    """A message in MessagePack."""
    data = msgpack.packb(spelled(message, "msgpack"), datetime=True)
    assert isinstance(data, bytes)
    return data


# --- one message out, one message in ------------------------------------------------------------------------


class Stream:
    """A TCP connection in one of the two framings."""

    def __init__(self, address: tuple[str, int], encoding: str, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=SERVER_NAME)
        self.binary = encoding == "msgpack"
        self.buffer = bytearray()
        if self.binary:
            self.socket.sendall(PREAMBLE)

    def encode(self, message: Any) -> bytes:
        """The bytes of one message with its framing."""
        if self.binary:
            body = packed(message)
            return struct.pack(">I", len(body)) + body
        return json.dumps(spelled(message, "ndjson")).encode() + b"\n"

    def send(self, message: Any) -> None:
        self.send_bytes(self.encode(message))

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> Any:
        if self.binary:
            (length,) = struct.unpack(">I", self._take(4))
            return msgpack.unpackb(self._take(length), timestamp=3)
        while (end := self.buffer.find(b"\n")) < 0:
            self._more()
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return json.loads(line)

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._more()
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def _more(self) -> None:
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionResetError as error:
            raise Closed from error
        if not data:
            raise Closed
        self.buffer += data

    def close(self) -> None:
        self.socket.close()


class WebSocket:
    """A WebSocket that speaks text or binary messages."""

    def __init__(self, address: tuple[str, int], encoding: str, tls: ssl.SSLContext | None = None) -> None:
        scheme = "ws" if tls is None else "wss"
        options = {"context": tls, "server_hostname": SERVER_NAME}
        self.websocket = websocket.create_connection(
            f"{scheme}://{address[0]}:{address[1]}/", timeout=PATIENCE, sslopt=options
        )
        self.socket: socket.socket = self.websocket.sock
        self.binary = encoding == "ws-binary"

    def send(self, message: Any) -> None:
        if self.binary:
            self.websocket.send_binary(packed(message))
        else:
            self.websocket.send(json.dumps(spelled(message, "ws-text")))

    def send_bytes(self, data: bytes) -> None:
        """The payload of one message of this connection's kind, as it is."""
        if self.binary:
            self.websocket.send_binary(data)
        else:
            self.websocket.send(data, opcode=websocket.ABNF.OPCODE_TEXT)

    def receive(self) -> Any:
        try:
            opcode, data = self.websocket.recv_data()
        except (websocket.WebSocketConnectionClosedException, ConnectionResetError) as error:
            raise Closed from error
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise Closed(struct.unpack(">H", data[:2])[0] if len(data) >= 2 else None)
        if opcode == websocket.ABNF.OPCODE_BINARY:
            assert self.binary, "the server answered a text message with a binary one"
            return msgpack.unpackb(data, timestamp=3)
        assert not self.binary, "the server answered a binary message with a text one"
        return json.loads(data)

    def close(self) -> None:
        self.websocket.close(timeout=0)
        # Where the server's close frame came first, the library leaves the socket open.
        self.websocket.shutdown()


# --- what a subscription received ---------------------------------------------------------------------------


@dataclass
class Step:
    """The changes of one time, all parts together."""

    time: int
    changes: dict[Row, int] = field(default_factory=dict)
    snapshot: bool = False


@dataclass
class Subscription:
    """What arrived for one subscription, checked against the protocol's promises as it arrives."""

    wire: Wire
    sub: int
    relation: str
    time: int
    snapshot: bool
    progress: bool
    described: dict[str, Any]
    steps: list[Step] = field(default_factory=list)
    contents: Contents = field(default_factory=Counter)
    reached: int = -1
    ended: dict[str, Any] | None = None
    end_time: int | None = None
    _part: Step | None = None

    def feed(self, message: dict[str, Any]) -> None:
        """Take in one pushed message."""
        assert self.ended is None, f"a message after the end of {self.relation}: {message}"
        if "error" in message:
            assert message.keys() <= {"sub", "error", "time"}, message
            self.ended, self.end_time = message["error"], message.get("time")
        elif "progress" in message:
            assert message.keys() == {"sub", "progress"}, message
            assert self.progress, "progress wasn't asked for"
            assert self._part is None, "progress within a step"
            assert message["progress"] >= max(self.reached, self.time), message
            self.reached = message["progress"]
        else:
            self._feed_changes(message)

    def _feed_changes(self, message: dict[str, Any]) -> None:
        assert message.keys() <= {"sub", "time", "changes", "snapshot", "resync", "more"}, message
        time, is_snapshot = message["time"], message.get("snapshot", False)
        if self._part is None:
            self._part = Step(time, {}, is_snapshot)
            if message.get("resync"):
                assert is_snapshot, "a resync is a snapshot"
                self.contents.clear()
            elif self.snapshot and not self.steps:
                assert is_snapshot, f"the first step of {self.relation} is no snapshot: {message}"
                assert time == self.time, f"snapshot of time {time}, but the reply said {self.time}"
            else:
                assert not is_snapshot, f"a second snapshot of {self.relation} without resync"
                assert time > max(self.reached, self.time), f"{time} after {self.reached}, since {self.time}"
        part = self._part
        assert (time, is_snapshot) == (part.time, part.snapshot), "the parts of a step differ"
        for row, difference in message["changes"]:
            key = self.wire.row(row, self.described)
            assert isinstance(difference, int) and difference != 0, f"difference {difference}"
            assert key not in part.changes, f"{key} twice in the step of time {time}"
            part.changes[key] = difference
        if not message.get("more"):
            assert part.changes or is_snapshot, "an empty step"
            self._apply(part)

    def _apply(self, step: Step) -> None:
        for row, difference in step.changes.items():
            self.contents[row] += difference
            assert self.contents[row] >= 0, f"{row} of {self.relation} is there {self.contents[row]} times"
            if not self.contents[row]:
                del self.contents[row]
        self.steps.append(step)
        self.reached = max(self.reached, step.time)
        self._part = None

    @property
    def whole(self) -> bool:
        """Whether what arrived last was the end of a step."""
        return self._part is None

    def until(self, time: int) -> Contents:
        """Wait until all changes up to `time` are in; needs progress unless the relation changes then."""
        while self.reached < time or self._part is not None:
            self._raise_if_ended()
            self.wire.pump()
        return self.contents

    def until_equal(self, expected: Contents) -> None:
        """Wait until the contents are `expected`, at whatever time."""
        while self.contents != expected or self._part is not None:
            self._raise_if_ended()
            self.wire.pump()

    def until_step(self, count: int) -> None:
        """Wait until that many steps are in, the snapshot being one."""
        while len(self.steps) < count or self._part is not None:
            self._raise_if_ended()
            self.wire.pump()

    def until_ended(self) -> dict[str, Any]:
        """Wait for the error that ends the subscription."""
        while self.ended is None:
            self.wire.pump()
        return self.ended

    def _raise_if_ended(self) -> None:
        if self.ended is not None:
            raise Refused(self.ended)


# --- a client -----------------------------------------------------------------------------------------------


class Wire:
    """One client: requests, replies in any order, subscriptions."""

    def __init__(
        self,
        address: tuple[str, int],
        encoding: str = "ndjson",
        *,
        hello: bool = True,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.encoding = encoding
        self.stream: Stream | WebSocket = (WebSocket if encoding.startswith("ws") else Stream)(
            address, encoding, tls
        )
        self.subscriptions: dict[int, Subscription] = {}
        self.unsolicited: list[dict[str, Any]] = []
        self._ids = itertools.count(1)
        self._replies: dict[Any, dict[str, Any]] = {}
        self._subscribes: dict[Any, dict[str, Any]] = {}
        try:
            self.info: dict[str, Any] = self.hello(token) if hello else {}
        except BaseException:
            self.close()
            raise

    def hello(self, token: str | None = None) -> dict[str, Any]:
        """Greet the server, with a token where there is one."""
        return self.call("hello", version=1, **({} if token is None else {"token": token}))

    @property
    def owner(self) -> int:
        """The worker that owns this connection."""
        return int(self.info["worker"])

    def start(self, op: str, **fields: Any) -> int:
        """Send a request without waiting for its reply."""
        number = next(self._ids)
        if op == "subscribe":
            self._subscribes[number] = fields
        self.stream.send({"id": number, "op": op, **fields})
        return number

    def finish(self, number: int) -> dict[str, Any]:
        """Wait for the reply to a request that was started."""
        while number not in self._replies:
            self.pump()
        return self._result(self._replies.pop(number))

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """A request and its reply."""
        return self.finish(self.start(op, **fields))

    def raw(self, message: Any) -> dict[str, Any]:
        """Send any message at all; the next reply that answers no request of ours is taken as its answer."""
        self.stream.send(message)
        return self.next_unsolicited()

    def raw_bytes(self, data: bytes) -> dict[str, Any]:
        """The same with bytes that are the server's to decode."""
        self.stream.send_bytes(data)
        return self.next_unsolicited()

    def next_unsolicited(self) -> dict[str, Any]:
        """The next reply whose id isn't one of ours."""
        while not self.unsolicited:
            self.pump()
        return self.unsolicited.pop(0)

    def pump(self) -> None:
        """Receive one message and put it where it belongs."""
        message = self.stream.receive()
        assert isinstance(message, dict), f"a message is a map, not {message!r}"
        if "sub" in message and "id" not in message:
            assert message["sub"] in self.subscriptions, f"a message for no subscription: {message}"
            self.subscriptions[message["sub"]].feed(message)
            return
        assert message.keys() in ({"id", "ok"}, {"id", "error"}), message
        number = message["id"]
        if "error" in message:
            check_error(message["error"])
        if not isinstance(number, int) or isinstance(number, bool):
            self.unsolicited.append(message)
            return
        assert number not in self._replies, f"a second reply to {number}"
        if number in self._subscribes:
            asked = self._subscribes.pop(number)
            if "ok" in message:
                self._subscribed(asked, message["ok"])
        self._replies[number] = message

    def _subscribed(self, asked: dict[str, Any], ok: dict[str, Any]) -> None:
        assert ok["sub"] not in self.subscriptions, f"sub {ok['sub']} isn't new on its connection"
        self.subscriptions[ok["sub"]] = Subscription(
            self,
            ok["sub"],
            asked["relation"],
            ok["time"],
            asked.get("snapshot", True) and ("since" not in asked or ok.get("resync", False)),
            asked.get("progress", False),
            ok,
        )

    def row(self, row: list[Any], described: dict[str, Any]) -> Row:
        """A row of a message, its values as Python has them; ``described`` is the reply with its columns."""
        return tuple(
            understood(value, column["type"], self.encoding, described.get("types"))
            for value, column in zip(row, described["columns"], strict=True)
        )

    @staticmethod
    def _result(message: dict[str, Any]) -> dict[str, Any]:
        if "error" in message:
            raise Refused(message["error"])
        ok = message["ok"]
        assert isinstance(ok, dict)
        return ok

    # --- the requests that tests make most

    def register(self, program: str, name: str | None = None) -> dict[str, Any]:
        return self.call("register", program=program, **({} if name is None else {"name": name}))

    def transact(self, *changes: dict[str, Any], **fields: Any) -> int:
        return int(self.call("transact", changes=list(changes), **fields)["time"])

    def insert(self, relation: str, *rows: Iterable[Any], **fields: Any) -> int:
        return self.transact({"relation": relation, "insert": [list(row) for row in rows]}, **fields)

    def delete(self, relation: str, *rows: Iterable[Any], **fields: Any) -> int:
        return self.transact({"relation": relation, "delete": [list(row) for row in rows]}, **fields)

    def read(self, relation: str, **fields: Any) -> Contents:
        answer = self.call("read", relation=relation, **fields)
        return Counter(self.row(row, answer) for row in answer["rows"])

    def subscribe(self, relation: str, **fields: Any) -> Subscription:
        return self.subscriptions[self.call("subscribe", relation=relation, **fields)["sub"]]

    def unsubscribe(self, subscription: Subscription) -> int:
        time = self.call("unsubscribe", sub=subscription.sub)["time"]
        del self.subscriptions[subscription.sub]
        return int(time)

    def close(self) -> None:
        self.stream.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


CODES = frozenset(
    [
        "incorrect",
        "not-found",
        "conflict",
        "forbidden",
        "unsupported",
        "busy",
        "too-large",
        "interrupted",
        "unavailable",
        "fault",
    ]
)


def check_error(error: dict[str, Any]) -> None:
    """Whether an error body is one that the protocol has."""
    assert {"code", "message", "retry"} <= error.keys() <= {"code", "message", "retry", "hint", "at"}, error
    assert error["code"] in CODES, error
    assert isinstance(error["message"], str) and error["message"], error
    assert isinstance(error["retry"], bool), error
    if "at" in error:
        assert error["at"].keys() == {"line", "column"}, error
        assert min(error["at"].values()) >= 1, error

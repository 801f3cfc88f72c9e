"""Who is turned away is counted, each once and by the reason."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import websocket

from .cluster import Cluster, Process, wait_formed
from .test_access import WRONG_TOKENS_ALLOWED, dial_websocket, entry
from .wire import PATIENCE, Closed, Refused, Wire

MAX_CONNECTIONS = 12
MAX_OF_ADDRESS = 3
# Long enough for whoever means to say something.
HANDSHAKE_SECONDS = 3

Address = tuple[str, int]

_own_addresses = (f"127.0.{high}.{low}" for high, low in itertools.product(range(1, 255), range(1, 255)))


def dial(address: Address, source: str | None = None) -> socket.socket:
    """A connection, from an address of its own unless it says from which."""
    return socket.create_connection(address, PATIENCE, (source or next(_own_addresses), 0))


def hello(connection: socket.socket, token: str | None = "the-reader") -> str:
    """What a client is told first: `ok` or the code of an error."""
    request = {"op": "hello", "version": 1} | ({} if token is None else {"token": token})
    connection.sendall(json.dumps(request).encode() + b"\n")
    reply = json.loads(connection.makefile().readline())
    return "ok" if "ok" in reply else str(reply["error"]["code"])


def until_closed(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        while connection.recv(4096):
            pass


class Scraper:
    """Asks for the figures on one connection, which is there from the beginning."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection = http.client.HTTPConnection(*address, timeout=PATIENCE)

    def _figures(self, name: str) -> dict[str, int]:
        self._connection.request("GET", "/metrics", headers={"Authorization": "Bearer the-reader"})
        text = self._connection.getresponse().read().decode()
        found = re.findall(rf'^dataflow_{name}\{{\w+="(\w+)"\}} (\d+)$', text, re.MULTILINE)
        return {label: int(count) for label, count in found}

    def turned_away(self) -> Counter[str]:
        """How many, by reason."""
        return Counter(self._figures("turned_away_total"))

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def until_alone(self) -> None:
        """Wait until the server has seen all others leave."""
        deadline = time.monotonic() + PATIENCE
        while (found := self._figures("connections")) != {"0": 1}:
            assert time.monotonic() < deadline, found


@pytest.fixture(scope="module")
def scraper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraper]:
    """A server with tokens and narrow limits, as `docs/security.md` describes them."""
    config = tmp_path_factory.mktemp("turned-away") / "server.toml"
    config.write_text(
        f"{entry('the-reader', 'reader')}\n[limits]\nmax_connections = {MAX_CONNECTIONS}\n"
        f"max_connections_per_address = {MAX_OF_ADDRESS}\nlimit_loopback = true\n"
        f"handshake_seconds = {HANDSHAKE_SECONDS}\n"
    )
    cluster = Cluster(1, 1, "--config", str(config), token="the-reader")
    with contextlib.closing(Scraper(cluster.addresses[0])) as scraper:
        yield scraper
    cluster.kill()


def says_nothing(address: Address) -> None:
    with dial(address) as connection:
        until_closed(connection)


def speaks_no_protocol(address: Address) -> None:
    with dial(address) as connection:
        connection.sendall(b"\x00\x01\x02\x03\n")
        until_closed(connection)


def shakes_hands_where_there_is_no_certificate(address: Address) -> None:
    with dial(address) as connection:
        connection.sendall(b"\x16\x03\x01\x00\x20\x01" + bytes(31))
        until_closed(connection)


def has_no_token(address: Address) -> None:
    with dial(address) as connection:
        assert hello(connection, None) == "forbidden"
        until_closed(connection)


def asks_before_it_says_who_it_is(address: Address) -> None:
    with dial(address) as connection:
        connection.sendall(b'{"op": "read", "relation": "e"}\n')
        until_closed(connection)


def has_a_wrong_token(address: Address) -> None:
    with dial(address) as connection:
        assert hello(connection, "wrong") == "forbidden"
        until_closed(connection)


def upgrades(**options: object) -> Callable[[Address], None]:
    def upgrade(address: Address) -> None:
        with dial(address) as connection, pytest.raises(websocket.WebSocketBadStatusException):
            dial_websocket(address, socket=connection, **options)

    return upgrade


def asks_for_figures(address: Address) -> None:
    with dial(address) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        until_closed(connection)


def is_one_too_many_of_its_address(address: Address) -> None:
    source = next(_own_addresses)
    with contextlib.ExitStack() as held:
        for _ in range(MAX_OF_ADDRESS):
            assert hello(held.enter_context(dial(address, source))) == "ok"
        assert hello(held.enter_context(dial(address, source))) == "busy"


def is_one_too_many(address: Address) -> None:
    with contextlib.ExitStack() as held:
        # One of those who may be there asks for figures.
        for _ in range(MAX_CONNECTIONS - 1):
            assert hello(held.enter_context(dial(address))) == "ok"
        assert hello(held.enter_context(dial(address))) == "busy"


def guesses(address: Address) -> None:
    source = next(_own_addresses)
    for _ in range(WRONG_TOKENS_ALLOWED):
        with dial(address, source) as connection:
            assert hello(connection, "a guess") == "forbidden"
            until_closed(connection)
    with dial(address, source) as connection:
        assert hello(connection) == "busy"
        until_closed(connection)


@pytest.mark.parametrize(
    ("visit", "counted"),
    [
        (says_nothing, {"slow_handshake": 1}),
        (speaks_no_protocol, {"protocol": 1}),
        (shakes_hands_where_there_is_no_certificate, {"tls": 1}),
        (has_no_token, {"no_token": 1}),
        (asks_before_it_says_who_it_is, {"no_token": 1}),
        (asks_for_figures, {"no_token": 1}),
        (has_a_wrong_token, {"wrong_token": 1}),
        (upgrades(header=["Authorization: Bearer wrong"]), {"wrong_token": 1}),
        (upgrades(host="evil.example"), {"host": 1}),
        (upgrades(origin="http://evil.example"), {"origin": 1}),
        (is_one_too_many_of_its_address, {"too_many_of_address": 1}),
        (is_one_too_many, {"too_many": 1}),
        (guesses, {"wrong_token": WRONG_TOKENS_ALLOWED, "backoff": 1}),
    ],
    ids=lambda case: case.__name__ if callable(case) else "",
)
def test_who_is_turned_away_is_counted(
    scraper: Scraper, visit: Callable[[Address], None], counted: dict[str, int]
) -> None:
    scraper.until_alone()
    before = scraper.turned_away()
    # What has never happened is there as well, as a zero.
    assert {"too_many", "no_descriptors", "plaintext"} <= before.keys()
    visit(scraper.address)
    assert scraper.turned_away() - before == Counter(counted)


def test_who_is_let_in_is_not_counted(scraper: Scraper) -> None:
    scraper.until_alone()
    address, before = scraper.address, scraper.turned_away()
    with dial(address) as connection:
        assert hello(connection) == "ok"
    with dial(address) as connection:
        # Its token may come with its first message.
        opened = dial_websocket(address, socket=connection)
        opened.send('{"op": "hello", "version": 1, "token": "the-reader"}')
        assert "ok" in json.loads(opened.recv())
    with dial(address) as connection:
        dial_websocket(address, socket=connection, header=["Authorization: Bearer the-reader"]).shutdown()
    assert scraper.turned_away() == before


def test_without_descriptors_newcomers_are_told_and_the_others_go_on() -> None:
    shell = ["sh", "-c", 'ulimit -n 100 && exec "$@"', "sh"]
    process = Process(["--listen", "127.0.0.1:0"], {}, prefix=shell)
    try:
        address = process.wait_listening()
        wait_formed(address)
        with contextlib.closing(Scraper(address)) as scraper, contextlib.ExitStack() as stack:
            scraper.until_alone()
            held: list[Wire] = []
            while not scraper.turned_away()["no_descriptors"]:
                # One that is turned away may be so before it has said anything.
                with contextlib.suppress(Refused, Closed, ConnectionError):
                    held.append(stack.enter_context(Wire(address)))
            assert 10 < len(held) < 100
            with dial(address) as connection:
                reply = json.loads(connection.makefile().readline())
                assert reply["error"]["code"] == "busy" and reply["error"]["retry"]
            for client in held:
                client.call("ping")
            stack.close()
            scraper.until_alone()
            Wire(address).close()
    finally:
        process.kill()
        print("".join(process.output))


def test_figures_are_described(scraper: Scraper) -> None:
    """Each reason has a line in the page about operating."""
    page = Path(__file__).parents[2].joinpath("docs", "operating.md").read_text()
    for reason in scraper.turned_away():
        assert f"`{reason}`" in page, reason

"""Clusters of two and three hosts: cut off, slow, lossy, late, with clocks of their own.

Hosts are network namespaces. Where those aren't permitted each test says so and is skipped, as is what needs
a program that isn't there. The delay of a link comes from toxiproxy if `toxiproxy-server` is there, otherwise
from a relay in this file; which of them it was is printed.
"""

from __future__ import annotations

import contextlib
import datetime
import heapq
import http.client
import itertools
import json
import secrets
import shutil
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Process, free_ports, wait_formed
from tests.e2e.test_generations import last_words, until_said
from tests.e2e.wire import PATIENCE, Closed, Subscription, Wire

from .network import Network, NotPermittedError, missing

MESH, CLIENTS = 7301, 6262
PROGRAM = ".decl e(x: symbol, y: number)\n.input e"
SUSPECT_SECONDS = 5.0
SLACK_SECONDS = 3.0
"""What a busy machine may take for itself."""

pytestmark = pytest.mark.timeout(120)


class Hosts:
    """A process on each host of a network, all of them one cluster."""

    def __init__(
        self, network: Network, directory: Path, prefixes: dict[int, list[str]] | None = None
    ) -> None:
        self.network = network
        self._hosts = directory / "hosts"
        self._hosts.write_text("".join(f"{network.address(h)}:{MESH}\n" for h in range(network.hosts)))
        self._environment = {"DATAFLOW_SERVE_SECRET": secrets.token_hex(16)}
        self._prefixes = prefixes or {}
        self._clients: list[Wire] = []
        self.processes: dict[int, Process] = {}

    def start(self, *hosts: int) -> None:
        """Start the processes of these hosts."""
        for host in hosts:
            options = ["--listen", f"{self.network.address(host)}:{CLIENTS}", "-h", str(self._hosts)]
            options += ["-n", str(self.network.hosts), "-p", str(host), "--insecure"]
            prefix = [*self.network.prefix(host), *self._prefixes.get(host, [])]
            self.processes[host] = Process(options, self._environment, prefix=prefix)
        for host in hosts:
            self.processes[host].wait_listening()

    def address(self, host: int) -> tuple[str, int]:
        """Where a host's process takes clients."""
        return self.network.address(host), CLIENTS

    def client(self, host: int, encoding: str = "ndjson") -> Wire:
        """A client on the same host."""
        with self.network.inside(host):
            client = Wire(self.address(host), encoding)
        self._clients.append(client)
        return client

    def wait_formed(self) -> None:
        """Wait until every host's process is part of one cluster."""
        for host in self.processes:
            with self.network.inside(host):
                wait_formed(self.address(host))

    def watch(self) -> list[Subscription]:
        """Fill the cluster, with a subscriber on each host."""
        clients = [self.client(host, "ws-text" if host else "ndjson") for host in self.processes]
        clients[0].register(PROGRAM, "program")
        subscriptions = [client.subscribe("e") for client in clients]
        time = [client.insert("e", [f"of host {host}", host]) for host, client in enumerate(clients)][-1]
        for subscription in subscriptions:
            subscription.until(time)
            assert len(subscription.contents) == len(clients)
        return subscriptions

    def close(self) -> None:
        """End everything."""
        for client in self._clients:
            with contextlib.suppress(OSError, Closed):
                client.close()
        for host, process in self.processes.items():
            process.kill()
            print(f"--- host {host}\n{''.join(process.output)}")


@pytest.fixture
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hosts]:
    """A cluster's hosts, as many as the parameter says, with nothing running yet."""
    try:
        network = Network(request.param)
    except NotPermittedError as error:
        pytest.skip(f"no network namespaces: {error}")
    cluster = Hosts(network, tmp_path)
    try:
        yield cluster
    finally:
        cluster.close()
        network.close()


two = pytest.mark.parametrize("hosts", [2], indirect=True, ids=["2 hosts"])
three = pytest.mark.parametrize("hosts", [3], indirect=True, ids=["3 hosts"])
both = pytest.mark.parametrize("hosts", [2, 3], indirect=True, ids=["2 hosts", "3 hosts"])


def all_noticed(subscriptions: list[Subscription], cut: float) -> None:
    """Every subscriber is told, and in time."""
    for subscription in subscriptions:
        assert last_words(subscription)["code"] == "interrupted"
        assert time.monotonic() - cut < SUSPECT_SECONDS + SLACK_SECONDS


@both
def test_a_host_that_is_cut_off_is_noticed_by_all_and_comes_back(hosts: Hosts) -> None:
    everybody = range(hosts.network.hosts)
    hosts.start(*everybody)
    hosts.wait_formed()
    histories = set()
    for cut_off in (1, 0):
        subscriptions = hosts.watch()
        histories.add(subscriptions[0].wire.info["history"])
        cut = time.monotonic()
        hosts.network.unplug(cut_off)
        all_noticed(subscriptions, cut)
        # Neither side goes on by itself, however many they are.
        for host in everybody:
            for other in everybody:
                if (other == cut_off) != (host == cut_off):
                    with hosts.network.inside(host):
                        until_said(hosts.address(host), f"process {other} at")
        hosts.network.replug(cut_off)
        hosts.wait_formed()
    histories.add(hosts.watch()[0].wire.info["history"])
    assert len(histories) == 3


@three
def test_two_hosts_that_lose_each_other_end_it_for_the_third(hosts: Hosts) -> None:
    hosts.start(0, 1, 2)
    hosts.wait_formed()
    subscriptions = hosts.watch()
    cut = time.monotonic()
    hosts.network.part(1, 2)
    all_noticed(subscriptions, cut)
    with hosts.network.inside(0):
        # It misses nobody itself, and says who misses whom.
        until_said(hosts.address(0), "process 1 has no link with process 2")
    hosts.network.part(1, 2, apart=False)
    hosts.wait_formed()
    hosts.watch()


@two
def test_a_host_that_starts_late_is_waited_for(hosts: Hosts) -> None:
    hosts.start(0)
    # Once after 5 s and once after 10 s.
    hosts.processes[0].wait_said(f"process 1 at {hosts.network.address(1)}:{MESH}", times=2)
    hosts.start(1)
    hosts.wait_formed()
    hosts.watch()


@two
def test_a_narrow_link_slows_the_cluster_down_and_nothing_else(hosts: Hosts) -> None:
    hosts.network.shape(1, "2mbit")
    hosts.start(0, 1)
    hosts.wait_formed()
    subscription = hosts.watch()[1]
    client = hosts.client(0)
    rows = [[f"row {number} of a transaction that is rather large", number] for number in range(20_000)]
    began = time.monotonic()
    subscription.until(client.insert("e", *rows))
    assert len(subscription.contents) == len(rows) + 2
    took = time.monotonic() - began
    assert took > 1, "a megabyte over 2 Mbit/s"
    print(f"20,000 rows over 2 Mbit/s: {took:.1f} s")
    # Heartbeats get through all the while: it is still the first generation.
    assert hosts.client(1).info["history"] == client.info["history"]


@two
def test_lost_packets_lose_nothing(hosts: Hosts) -> None:
    if missing("iptables"):
        pytest.skip("iptables is missing")
    try:
        for host in (0, 1):
            hosts.network.lose(host, 0.02)
    except NotPermittedError as error:
        pytest.skip(f"no loss of packets: {error}")
    hosts.start(0, 1)
    hosts.wait_formed()
    subscriptions = hosts.watch()
    clients = [subscription.wire for subscription in subscriptions]
    last = 0
    for number in range(200):
        last = clients[number % 2].insert("e", [f"a text that is long: {number}", number])
    for subscription in subscriptions:
        subscription.until(last)
        assert len(subscription.contents) == 202
    assert hosts.client(0).info["history"] == clients[0].info["history"]


def wall_clock(**settings: str) -> list[str]:
    """What a process is started by whose wall clock is its own."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is missing")
    # The kernel, which ends time-outs, knows nothing of a monotonic clock that is faked.
    settings |= {"LD_PRELOAD": str(library), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return ["env", *(f"{name}={value}" for name, value in settings.items())]


def test_clocks_an_hour_apart_make_no_difference(tmp_path: Path) -> None:
    wall_clock_ahead = wall_clock(FAKETIME="+3600s")
    try:
        network = Network(2)
    except NotPermittedError as error:
        pytest.skip(f"no network namespaces: {error}")
    cluster = Hosts(network, tmp_path, {1: wall_clock_ahead})
    try:
        cluster.start(0, 1)
        cluster.wait_formed()
        subscription = cluster.watch()[0]
        client = cluster.client(1)
        first = subscription.reached
        took = []
        for number in range(50):
            began = time.monotonic()
            subscription.until(client.insert("e", [f"row {number}", number]))
            took.append(time.monotonic() - began)
        assert statistics.median(took) < 1, "a clock that counts would cost an hour"
        assert subscription.reached - first < 1000, "times are a count of what happened"
    finally:
        cluster.close()
        network.close()


# --- delay --------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_makes_no_difference(tmp_path: Path) -> None:
    """An hour ahead, then two hours back, while clients of both processes write."""
    clock, hosts = tmp_path / "clock", tmp_path / "hosts"
    clock.write_text("+0")
    jumping = wall_clock(FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_NO_CACHE="1")
    hosts.write_text("".join(f"127.0.0.1:{port}\n" for port in free_ports(2)))
    options = ["--listen", "127.0.0.1:0", "-n", "2", "-h", str(hosts)]
    logging = {"DATAFLOW_SERVE_LOG": "info", "DATAFLOW_SERVE_LOG_FORMAT": "json"}
    processes = [
        Process([*options, "-p", "0"], {}),
        Process([*options, "-p", "1"], logging, prefix=jumping),
    ]

    def ahead() -> float:
        """How far the clock of the second process is ahead of this one's, by its log."""
        clients[0].call("tune", emit_rows=1000)
        tuned.append(None)
        processes[1].wait_said('"tuned"', len(tuned))
        last = [line for line in processes[1].output if '"tuned"' in line][-1]
        told = datetime.datetime.fromisoformat(json.loads(last)["timestamp"])
        return (told - datetime.datetime.now(datetime.UTC)).total_seconds()

    clients: list[Wire] = []
    tuned: list[None] = []
    try:
        for process in processes:
            address = process.wait_listening()
            wait_formed(address)
            clients.append(Wire(address))
        clients[0].register(PROGRAM, "program")
        subscriptions = [client.subscribe("e") for client in clients]
        for jump, hours in (("+0", 0), ("+3600", 1), ("-3600", -1)):
            clock.write_text(jump)
            assert abs(ahead() - 3600 * hours) < 600
            for number in range(50):
                time = clients[number % 2].insert("e", [f"{jump} {number}", number])
                for subscription in subscriptions:
                    subscription.until(time)
        assert [len(subscription.contents) for subscription in subscriptions] == [150, 150]
    finally:
        for client in clients:
            client.close()
        for each in processes:
            each.kill()
            print("".join(each.output))


class Relay:
    """Passes bytes on to `target` after a delay, both ways."""

    def __init__(self, target: tuple[str, int], seconds: float) -> None:
        self._target, self._seconds = target, seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(one)
            try:
                two = socket.create_connection(self._target, PATIENCE)
            except OSError:
                # It isn't there yet; whoever wants it comes again.
                one.close()
                continue
            self._open.append(two)
            for each in (one, two):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink in ((one, two), (two, one)):
                self._pass_on(source, sink)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        waiting: list[tuple[float, int, bytes]] = []
        arrived = threading.Condition()
        numbers = itertools.count()

        def receive() -> None:
            data = b"-"
            while data:
                try:
                    data = source.recv(1 << 16)
                except OSError:
                    data = b""
                with arrived:
                    heapq.heappush(waiting, (time.monotonic() + self._seconds, next(numbers), data))
                    arrived.notify()

        def send() -> None:
            while True:
                with arrived:
                    arrived.wait_for(lambda: waiting)
                    due, _, data = heapq.heappop(waiting)
                    while (left := due - time.monotonic()) > 0:
                        arrived.wait(left)
                try:
                    if not data:
                        sink.shutdown(socket.SHUT_WR)
                        return
                    sink.sendall(data)
                except OSError:
                    return

        for body in (receive, send):
            threading.Thread(target=body, daemon=True).start()

    def close(self) -> None:
        """Close every connection."""
        self._listener.close()
        for each in self._open:
            each.close()


class Toxiproxy:
    """The same by toxiproxy."""

    def __init__(self, target: tuple[str, int], seconds: float) -> None:
        api, self.port = free_ports(2)
        self._popen = subprocess.Popen(
            ["toxiproxy-server", "-host", "127.0.0.1", "-port", str(api)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._wait(api)
            upstream = f"{target[0]}:{target[1]}"
            proxy = {
                "name": "mesh",
                "listen": f"127.0.0.1:{self.port}",
                "upstream": upstream,
                "enabled": True,
            }
            self._post(api, "/proxies", proxy)
            for stream in ("upstream", "downstream"):
                toxic = {
                    "type": "latency",
                    "stream": stream,
                    "attributes": {"latency": round(seconds * 1000)},
                }
                self._post(api, "/proxies/mesh/toxics", toxic)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _wait(port: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), PATIENCE).close()
                return
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "toxiproxy-server doesn't listen"

    @staticmethod
    def _post(port: int, path: str, body: dict[str, object]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            assert response.status in (200, 201), response.read()
        finally:
            connection.close()

    def close(self) -> None:
        """End it."""
        self._popen.kill()
        self._popen.wait()


def test_latency_is_a_small_multiple_of_the_links(tmp_path: Path) -> None:
    """Two processes whose mesh links take 20 ms each way."""
    one_way = 0.020
    ports = free_ports(2)
    kind = Toxiproxy if shutil.which("toxiproxy-server") else Relay
    relay = kind(("127.0.0.1", ports[0]), one_way)
    processes = []
    try:
        for process, to_first in enumerate((ports[0], relay.port)):
            hosts = tmp_path / f"hosts{process}"
            hosts.write_text(f"127.0.0.1:{to_first}\n127.0.0.1:{ports[1]}\n")
            options = ["--listen", "127.0.0.1:0", "-n", "2", "-p", str(process), "-h", str(hosts)]
            processes.append(Process(options, {"DATAFLOW_SERVE_SECRET": "between us"}))
        addresses = [process.wait_listening() for process in processes]
        for address in addresses:
            wait_formed(address)
        for index, address in enumerate(addresses):
            with Wire(address) as client:
                if index == 0:
                    client.register(PROGRAM, "program")
                for wait in ("sequenced", "visible"):
                    took = []
                    for number in range(40):
                        began = time.monotonic()
                        client.insert("e", [f"{wait} {index}", number], wait=wait)
                        took.append(time.monotonic() - began)
                    links = statistics.median(took) / one_way
                    print(f"{kind.__name__}, process {index}, {wait}: {links:.1f} times the link's 20 ms")
                    # There and back is the least; before it is visible, rows and progress follow.
                    assert 2 <= links < (4 if wait == "sequenced" else 8)
    finally:
        for process in processes:
            process.kill()
            print("".join(process.output))
        relay.close()

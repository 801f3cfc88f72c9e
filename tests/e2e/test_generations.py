"""One generation after another: processes killed, stopped or missing, and strangers on the mesh port."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cluster import Cluster, Process, free_ports, wait_formed
from .sources import until_rows
from .wire import ENCODINGS, PATIENCE, Closed, Refused, Subscription, Wire

PROGRAM = (
    ".decl e(x: symbol, y: symbol)\n.input e\n.decl d(x: symbol, y: symbol)\nd(x, z) :- e(x, y), e(y, z).\n"
    ".output d"
)
LONG = ("a text that is long", "another one that is", "and a third of them")
"""Texts that processes have to tell each other: they don't fit in a word."""

SUSPECT_SECONDS = 5.0
"""The default silence after which a process counts as gone."""


def ready(address: tuple[str, int], path: str = "/health/ready") -> tuple[int, str]:
    """What a probe is told."""
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def last_words(subscription: Subscription) -> dict[str, object]:
    """The error that ends a subscription; its connection then closes, a WebSocket with 1012."""
    client = subscription.wire
    error = subscription.until_ended()
    with pytest.raises(Closed) as closed:
        while True:
            client.pump()
    assert closed.value.code in ((1012,) if client.encoding.startswith("ws") else (None,))
    return error


def unavailable(address: tuple[str, int]) -> str:
    """What a client is told that comes while no generation is formed."""
    with pytest.raises(Refused) as refused:
        Wire(address)
    assert (refused.value.code, refused.value.error["retry"]) == ("unavailable", True)
    return refused.value.message


def use(cluster: Cluster, comment: str = "") -> list[Subscription]:
    """Fill an empty cluster, and watch it from every process; all its parts are needed for that.

    Where Python still had in mind what an earlier generation knew, it would refuse the program.
    """
    clients = cluster.clients(*(ENCODINGS * cluster.processes)[: 2 * cluster.processes])
    clients[0].register(f"{PROGRAM}\n.decl f{comment}(x: symbol)\n.input f{comment}", "program")
    subscriptions = [client.subscribe("d") for client in clients]
    for index, client in enumerate(clients):
        client.insert("e", [LONG[0], f"{index} {LONG[1]}"], [f"{index} {LONG[1]}", LONG[2]])
    for subscription in subscriptions:
        subscription.until_equal({(LONG[0], LONG[2]): 1})  # type: ignore[arg-type]
    return subscriptions


@pytest.fixture(params=[(2, 1), (2, 2), (2, 2, "--io-threads", "1")], ids=["2x1", "2x2", "2x2-io"])
def fresh(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster that is this test's to break."""
    cluster = Cluster(*request.param)
    try:
        yield cluster
    finally:
        cluster.kill()
        print(cluster.report())


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_generation_and_joins_the_next(fresh: Cluster, victim: int) -> None:
    survivor = 1 - victim
    histories = set()
    for generation in range(2):
        subscriptions = use(fresh, str(generation))
        histories.add(subscriptions[0].wire.info["history"])
        killed = time.monotonic()
        fresh.kill_member(victim)
        for subscription in subscriptions[survivor::2]:
            error = last_words(subscription)
            assert (error["code"], error["retry"]) == ("interrupted", True)
            assert f"process {victim}" in str(error["message"])
        assert time.monotonic() - killed < SUSPECT_SECONDS
        host, port = fresh.mesh[victim]
        until_said(fresh.addresses[survivor], f"process {victim} at {host}:{port}")
        status, text = ready(fresh.addresses[survivor])
        assert (status, f"process {victim} at {host}:{port}" in text) == (503, True), text
        fresh.close_clients()
        fresh.restart(victim)
        with Wire(fresh.addresses[survivor]) as client:
            histories.add(client.info["history"])
            assert client.call("status")["relations"] == []
            with pytest.raises(Refused, match="not-found"):
                client.read("d")
    assert len(histories) == 3
    figures = ready(fresh.addresses[survivor], "/metrics")[1].splitlines()
    assert {"dataflow_generations_fallen_total 2", "dataflow_mesh_missing 0"} <= set(figures)
    assert fresh.stop(member=survivor) == [0, 0]


def test_a_stopped_process_is_noticed_and_comes_back_by_itself() -> None:
    cluster = Cluster(3, 1)
    try:
        subscriptions = use(cluster)
        history = subscriptions[0].wire.info["history"]
        stopped = time.monotonic()
        os.kill(cluster.members[1].popen.pid, signal.SIGSTOP)
        noticed = []
        for process in (0, 2):
            error = last_words(subscriptions[process])
            noticed.append(time.monotonic() - stopped)
            assert (error["code"], error["retry"]) == ("interrupted", True)
        # What the machine takes for itself comes on top of the limit.
        assert max(noticed) < SUSPECT_SECONDS + 3, noticed
        for process in (0, 2):
            until_said(cluster.addresses[process], "process 1 at")
        os.kill(cluster.members[1].popen.pid, signal.SIGCONT)
        assert last_words(subscriptions[1])["code"] == "interrupted"
        cluster.close_clients()
        cluster.wait_formed()
        assert use(cluster, "again")[0].wire.info["history"] != history
        assert cluster.stop() == [0, 0, 0]
    finally:
        cluster.kill()
        print(cluster.report())


def test_sources_begin_anew_in_the_next_generation(tmp_path: Path) -> None:
    """Relations have the numbers that they had before, and files are where they were."""
    config, logged, attached = (tmp_path / name for name in ("server.toml", "logged.csv", "attached.csv"))
    config.write_text(
        f'[[source]]\nname = "log"\nkind = "files"\npath = "{logged}"\nrelation = "logged"\nheader = false\n'
    )
    numbers = [1, 2]
    logged.write_text("1\n2\n")
    attached.write_text("one\ntwo\n")
    cluster = Cluster(2, 1, "--config", str(config))

    def filled(names: set[str]) -> None:
        with Wire(cluster.addresses[0]) as client:
            client.register(".decl logged(x: number)\n.input logged")
            client.register(".decl attached(x: symbol)\n.input attached")
            subscription = client.subscribe("logged")
            until_rows(subscription, len(numbers))
            numbers.append(numbers[-1] + 1)
            with logged.open("a") as file:
                file.write(f"{numbers[-1]}\n")
            until_rows(subscription, len(numbers))
            assert subscription.contents == {(number,): 1 for number in numbers}
            if "other" in names:
                until_rows(client.subscribe("attached"), 2)
            assert {each["name"] for each in client.call("status")["sources"]} == names

    try:
        with Wire(cluster.addresses[1]) as other:
            source = {"kind": "files", "path": str(attached), "relation": "attached", "header": False}
            other.call("attach", name="other", source=source)
        filled({"log", "other"})
        # What a client attached is attached anew for as long as the process lives that it was attached to.
        for victim, left in ((0, {"log", "other"}), (1, {"log"})):
            cluster.kill_member(victim)
            cluster.restart(victim)
            filled(left)
        assert cluster.stop() == [0, 0]
    finally:
        cluster.kill()
        print(cluster.report())


HOLDS_THE_GIL = """
import ctypes, sys, threading
from dataflow_serve.server._command import main

def hold(fifo, micros):
    open(fifo).read()
    print("holding", flush=True)
    ctypes.PyDLL(None).usleep(micros)
    print("released", flush=True)

threading.Thread(target=hold, args=(sys.argv.pop(1), int(sys.argv.pop(1))), daemon=True).start()
main()
"""


def test_a_process_whose_python_is_busy_is_not_taken_for_dead(tmp_path: Path) -> None:
    script, fifo, hosts = tmp_path / "serve.py", tmp_path / "fifo", tmp_path / "hosts"
    script.write_text(HOLDS_THE_GIL)
    os.mkfifo(fifo)
    hosts.write_text("".join(f"127.0.0.1:{port}\n" for port in free_ports(2)))
    options = ["--listen", "127.0.0.1:0", "-n", "2", "-h", str(hosts)]
    held = [str(fifo), str(int((SUSPECT_SECONDS + 1) * 1e6))]
    processes = [
        Process([*options, "-p", "0"], {}),
        Process([*held, *options, "-p", "1"], {}, script=script),
    ]
    try:
        addresses = [process.wait_listening() for process in processes]
        for address in addresses:
            wait_formed(address)
        with Wire(addresses[0]) as client, Wire(addresses[1]) as other:
            client.register(".decl e(x: number)\n.input e")
            fifo.write_text("now")
            processes[1].wait_said("holding")
            # Transactions, reads and subscriptions need no Python.
            subscription = other.subscribe("e")
            number = 0
            while not any("released" in line for line in processes[1].output):
                number += 1
                subscription.until((client if number % 2 else other).insert("e", [number]))
            assert number > 10
            with Wire(addresses[1]) as late:
                assert late.info["history"] == client.info["history"]
    finally:
        for process in processes:
            process.kill()
            print("".join(process.output))


def knock(address: tuple[str, int], sent: bytes) -> bytes:
    """What somebody hears on the mesh port who sends this and then waits; it is closed within 2 s."""
    with socket.create_connection(address, PATIENCE) as stranger:
        stranger.settimeout(PATIENCE)
        began = time.monotonic()
        heard = b""
        try:
            stranger.sendall(sent)
            while more := stranger.recv(4096):
                heard += more
        except ConnectionError:
            pass
        assert time.monotonic() - began < 2 + 1, "it should be closed within 2 s"
        return heard


GREETING = b"DFmesh\x00\x02"
STRANGERS = {
    "0xFF": b"\xff" * 8,
    "silence": b"",
    "http": b"GET / HTTP/1.1\r\nHost: mesh\r\n\r\n",
    "half a greeting": GREETING + b"\x01" + bytes(20),
    "a greeting and no proof": GREETING + b"\x01" + bytes(56),
    "a greeting and a wrong proof": GREETING + b"\x01" + bytes(56) + bytes(32),
    "a lot": b"\xff" * (1 << 20),
}


def test_strangers_on_the_mesh_port_disturb_nobody() -> None:
    cluster = Cluster(2, 1)
    try:
        subscription = use(cluster)[1]
        client = subscription.wire
        for name, sent in STRANGERS.items():
            for address in cluster.mesh:
                heard = knock(address, sent)
                assert (name.startswith("a greeting")) == bool(heard), name
            subscription.until(client.insert("e", [name, "b"], ["b", f"{name} {LONG[0]}"]))
        with Wire(cluster.addresses[0]) as other:
            assert other.info["history"] == client.info["history"]
        assert cluster.stop() == [0, 0]
    finally:
        cluster.kill()
        print(cluster.report())


def test_strangers_do_not_delay_the_start(tmp_path: Path) -> None:
    ports = free_ports(2)
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"127.0.0.1:{port}\n" for port in ports))
    options = ["--listen", "127.0.0.1:0", "-n", "2", "-h", str(hosts)]
    environment = {"DATAFLOW_SERVE_SECRET": "between us"}
    first = Process([*options, "-p", "0"], environment)
    second: Process | None = None
    strangers: list[socket.socket] = []
    try:
        address = first.wait_listening()
        # More than there is room for, all of them silent or in the middle of something.
        for index in range(150):
            stranger = socket.create_connection(("127.0.0.1", ports[0]), PATIENCE)
            stranger.sendall(list(STRANGERS.values())[index % 5])
            strangers.append(stranger)
        second = Process([*options, "-p", "1"], environment)
        wait_formed(address)
        wait_formed(second.wait_listening())
    finally:
        for stranger in strangers:
            stranger.close()
        for process in filter(None, (first, second)):
            process.kill()
            print("".join(process.output))


def test_another_secret_is_said_on_both_sides(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"127.0.0.1:{port}\n" for port in free_ports(2)))
    options = ["--listen", "127.0.0.1:0", "-n", "2", "-h", str(hosts)]
    processes = [
        Process([*options, "-p", str(index)], {"DATAFLOW_SERVE_SECRET": secret})
        for index, secret in enumerate(("one", "another"))
    ]
    try:
        addresses = [process.wait_listening() for process in processes]
        until_said(addresses[1], "it does not know the cluster's secret")
        for process in processes:
            process.wait_said("secret")
        assert ready(addresses[0])[0] == 503
    finally:
        for process in processes:
            process.kill()


def until_said(address: tuple[str, int], words: str, *, without: str = "\n") -> None:
    """Wait until clients are told so."""
    deadline = time.monotonic() + PATIENCE
    while words not in (said := unavailable(address)) or without in said:
        assert time.monotonic() < deadline, said


def test_a_process_that_never_comes_is_named(tmp_path: Path) -> None:
    ports = free_ports(3)
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"127.0.0.1:{port}\n" for port in ports))
    options = ["--listen", "127.0.0.1:0", "-n", "3", "-h", str(hosts)]
    # The log is on by default: nothing is set for it.
    processes = [Process([*options, "-p", str(index)], {}) for index in (0, 2)]
    try:
        for process, other in zip(processes, (2, 0), strict=True):
            address = process.wait_listening()
            until_said(address, f"process 1 at 127.0.0.1:{ports[1]}", without=f"process {other} at")
            assert f"process 1 at 127.0.0.1:{ports[1]}" in ready(address)[1]
        for process in processes:
            process.wait_said(f"process 1 at 127.0.0.1:{ports[1]}", times=2)
    finally:
        for process in processes:
            process.kill()

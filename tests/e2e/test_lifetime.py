"""How a cluster comes up and goes down: signals, `shutdown`, latecomers, strangers, idleness."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from .cluster import COMMAND, SHAPES, Cluster, Process, free_ports, wait_formed
from .wire import Closed, Refused, Wire

FEW = [(1, 2), (2, 1)]


def test_a_process_on_its_own_says_that_it_listens_once_it_serves() -> None:
    process = Process(["--listen", "127.0.0.1:0", "-w", "4"], {"DATAFLOW_SERVE_LOG": "info"})
    try:
        with Wire(process.wait_listening()) as client:
            assert client.call("status")["relations"] == []
    finally:
        process.kill()
    said = [line for line in process.output if "listening on" in line or "is formed" in line]
    assert len(said) == 2 and "listening on" in said[1], said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_a_signal_to_any_process_stops_the_cluster(shape: tuple[int, int], number: int) -> None:
    cluster = Cluster(*shape)
    client = cluster.open("ws-text")
    client.register(".decl e(x: number)\n.input e\n.decl d(x: number)\nd(x) :- e(x).\n.output d")
    subscription = client.subscribe("d")
    client.insert("e", *([k] for k in range(1000)))
    codes = cluster.stop(number, member=shape[0] - 1)
    assert codes == [0] * shape[0], cluster.report()
    assert subscription.relation == "d"


@pytest.mark.parametrize("shape", FEW, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_subscribers_are_told_of_a_shutdown(shape: tuple[int, int]) -> None:
    cluster = Cluster(*shape)
    one, two = cluster.clients("ndjson", "ws-binary")
    one.register(".decl e(x: number)\n.input e")
    subscriptions = [client.subscribe("e") for client in (one, two)]
    cluster.members[0].popen.send_signal(signal.SIGTERM)
    for subscription in subscriptions:
        assert subscription.until_ended()["code"] == "interrupted"
    for client in (one, two):
        with pytest.raises(Closed):
            while True:
                client.pump()
    assert cluster.stop() == [0] * shape[0]


@pytest.mark.parametrize("shape", FEW, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_shutdown_on_request(shape: tuple[int, int]) -> None:
    cluster = Cluster(*shape)
    assert cluster.open("msgpack").call("shutdown") == {}
    try:
        assert [member.wait(5) for member in cluster.members] == [0] * shape[0]
    finally:
        cluster.kill()


def test_a_port_in_use_is_said_clearly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        process = Process(["--listen", f"127.0.0.1:{held.getsockname()[1]}"], {})
        assert process.wait(20) not in (0, None)
    output = "".join(process.output)
    assert "in use" in output.lower(), output
    assert "Traceback" not in output


def test_until_the_cluster_is_formed_everything_is_unavailable(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"127.0.0.1:{port}\n" for port in free_ports(2)))
    options = ["--listen", "127.0.0.1:0", "-n", "2", "-h", str(hosts)]
    environment = {"DATAFLOW_SERVE_SECRET": "between us"}
    first = Process([*options, "-p", "0"], environment)
    try:
        address = first.wait_listening()
        with pytest.raises(Refused) as refused:
            Wire(address)
        assert (refused.value.code, refused.value.error["retry"]) == ("unavailable", True)
        second = Process([*options, "-p", "1"], environment)
        try:
            wait_formed(address)
            wait_formed(second.wait_listening())
            first.popen.send_signal(signal.SIGTERM)
            assert [first.wait(5), second.wait(5)] == [0, 0]
        finally:
            second.kill()
    finally:
        first.kill()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads processor time from /proc")
@pytest.mark.parametrize("shape", [(1, 2), (2, 2)], ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_an_idle_cluster_uses_next_to_nothing(shape: tuple[int, int]) -> None:
    """Less than 1 % of a core for each process, with a client, a subscription and a recursion in place."""
    cluster = Cluster(*shape)
    try:
        client = cluster.open()
        client.register(
            ".decl e(x: number, y: number)\n.input e\n.decl p(x: number, y: number)\n"
            "p(x, y) :- e(x, y).\np(x, z) :- p(x, y), e(y, z).\n.output p"
        )
        client.subscribe("p", progress=True).until(client.insert("e", [1, 2], [2, 3]))
        stay_silent(client, 1.0)
        before = [processor_seconds(member.popen.pid) for member in cluster.members]
        start = time.monotonic()
        stay_silent(client, 5.0)
        elapsed = time.monotonic() - start
        used = [
            processor_seconds(member.popen.pid) - one
            for member, one in zip(cluster.members, before, strict=True)
        ]
        assert max(used) / elapsed < 0.01 + 0.02 / elapsed, f"{used} s of processor time in {elapsed:.1f} s"
    finally:
        cluster.kill()


def stay_silent(client: Wire, seconds: float) -> None:
    """Wait until nothing has come for so long."""
    client.stream.socket.settimeout(seconds)
    with pytest.raises(TimeoutError):
        while True:
            client.pump()


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_command_says_what_it_takes() -> None:
    assert COMMAND.exists(), "the package isn't installed in this environment"
    process = Process(["--help"], {})
    assert process.wait(20) == 0
    output = "".join(process.output)
    for option in ("--listen", "-w", "-n", "-p", "-h"):
        assert option in output

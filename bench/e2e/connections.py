"""How fast connections are set up; the memory of an idle one and of a subscriber; the same of a bare one."""

import resource
import socket
import subprocess
import time

from common import SCALE, Client, helper, resident_mb, server

CONNECTIONS = int(5_000 * SCALE)


def ours(workers: int, *arguments: str) -> tuple[float, float, float]:
    """Connections a second with a reply each; bytes of an idle connection and of a subscriber more."""
    with server(workers, *arguments) as running:
        control = Client(running.port)
        control.call("register", program=".decl r(x: number)\n.input r")
        before, started = running.resident_mb(), time.perf_counter()
        clients = []
        for _ in range(CONNECTIONS):
            clients.append(Client(running.port))
            clients[-1].call("ping")
        rate = CONNECTIONS / (time.perf_counter() - started)
        idle = running.resident_mb()
        for client in clients:
            client.call("subscribe", relation="r", snapshot=False)
        subscribed = running.resident_mb()
        for client in clients:
            client.socket.close()
    scale = (1 << 20) / CONNECTIONS
    return rate, (idle - before) * scale, (subscribed - idle) * scale


def bare() -> tuple[float, float]:
    """Connections a second, and bytes of one."""
    process = subprocess.Popen(helper("broadcast"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        before, started = resident_mb(process.pid), time.perf_counter()
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        # The last one is there when it hears the first.
        held[0].sendall(b"x")
        held[-1].recv(1)
        rate = CONNECTIONS / (time.perf_counter() - started)
        memory = resident_mb(process.pid) - before
        for each in held:
            each.close()
    finally:
        process.kill()
        process.wait()
    return rate, memory * (1 << 20) / CONNECTIONS


def main() -> None:
    """Prints a table."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20_000)), hard))
    print(f"| {CONNECTIONS:,} connections | a second | bytes of an idle one | of a subscriber more |")
    print("| --- | --- | --- | --- |")
    for name, arguments in (("ours", ()), ("ours, 1 I/O thread", ("--io-threads", "1"))):
        rate, idle, subscriber = ours(2, *arguments)
        print(f"| {name} | {rate:,.0f} | {idle:,.0f} | {subscriber:,.0f} |", flush=True)
    rate, memory = bare()
    print(f"| bare mio | {rate:,.0f} | {memory:,.0f} | |")


if __name__ == "__main__":
    main()

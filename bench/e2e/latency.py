"""A one-row transaction to the step at a subscriber of another owner, and a bare TCP echo in the same run.

Also with 1, 100 and 1,000 programs registered, all on inputs of their own but the one measured; and what one
connection gets through it then, in transactions of 100 rows.
"""

import socket
import threading
import time

from common import SCALE, Client, percentile, server, transact

ROUNDS = int(3_000 * SCALE)
ROWS = int(200_000 * SCALE)
BATCH = 100
UNDER_WAY = 50
"""Transactions sent before the first one's reply is waited for."""


def program(number: int) -> str:
    """A program with an input of its own."""
    return (
        f".decl in{number}(x: number, y: number)\n.input in{number}\n"
        f".decl out{number}(y: number, x: number)\nout{number}(y, x) :- in{number}(x, y).\n"
        f".output out{number}"
    )


def echo() -> list[float]:
    """Seconds of round trips through a thread that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while data := peer.recv(256):
                    peer.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        with socket.create_connection(listener.getsockname()) as stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            taken = []
            for _ in range(ROUNDS):
                started = time.perf_counter()
                stream.sendall(b"x" * 80)
                stream.recv(256)
                taken.append(time.perf_counter() - started)
        thread.join()
    return taken


def steps(programs: int, workers: int = 2, *arguments: str) -> tuple[list[float], float]:
    """Seconds from sending a transaction to the step on the other connection; and the rows/s of a load."""
    with server(workers, *arguments) as running:
        writer, reader = Client(running.port), Client(running.port)
        for number in range(programs):
            writer.call("register", program=program(number))
        reader.call("subscribe", relation="out0", snapshot=False)
        taken = []
        for row in range(ROUNDS):
            started = time.perf_counter()
            writer.send("transact", **transact("in0", [[row, row]]))
            reader.receive()
            taken.append(time.perf_counter() - started)
            writer.receive()
        reader.socket.close()
        return taken, rate(writer)


def rate(client: Client) -> float:
    """Rows a second through the program measured."""
    started = time.perf_counter()
    for count, start in enumerate(range(ROUNDS, ROUNDS + ROWS, BATCH)):
        if count >= UNDER_WAY:
            client.receive()
        client.send("transact", **transact("in0", [[row, row] for row in range(start, start + BATCH)]))
    for _ in range(min(UNDER_WAY, ROWS // BATCH)):
        client.receive()
    client.call("transact", changes=[{"relation": "in0", "insert": [[-1, -1]]}], wait="visible")
    return ROWS / (time.perf_counter() - started)


def main() -> None:
    """Prints a table."""
    print(f"| {ROUNDS:,} rounds | p50, µs | p99, µs | rows/s |\n| --- | --- | --- | --- |")

    def show(name: str, taken: list[float], rows: str) -> None:
        p50, p99 = (percentile(taken, share) * 1e6 for share in (0.5, 0.99))
        print(f"| {name} | {p50:,.0f} | {p99:,.0f} | {rows} |", flush=True)

    show("TCP echo", echo(), "–")
    for programs in (1, 100, 1000):
        taken, rows = steps(programs)
        show(f"step, {programs:,} programs", taken, f"{rows:,.0f}")


if __name__ == "__main__":
    main()

"""A command's round trip: through a bare sequencer, timely's and ours, and through a server; in turns.

The bare ones run inside ``bench/net``: from pushing a command on worker 0 until worker 0 has it back in
order, idle workers parked as the server's are. The server's is an empty transaction from a client, over TCP.
"""

import json
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import SCALE, Client, helper, percentile

SHAPES = ((1, 1), (1, 2), (2, 1), (2, 2))
COMMANDS = max(200, int(5_000 * SCALE))
REPEATS = 3


def ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return found


def bare(whose: str, processes: int, workers: int) -> tuple[float, float]:
    """Seconds: p50 and p99."""
    arguments = ["sequencer", whose, str(workers), str(COMMANDS)]
    if processes == 1:
        commands = [helper(*arguments)]
    else:
        addresses = [f"127.0.0.1:{port}" for port in ports(processes)]
        epoch = str(time.time())
        commands = [helper(*arguments, epoch, str(index), *addresses) for index in range(processes)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    outputs = [each.communicate()[0] for each in running]
    # Before it, timely says whom it waits for.
    found = json.loads(outputs[0].splitlines()[-1])
    return found["p50"], found["p99"]


def through_a_server(processes: int, workers: int) -> tuple[float, float]:
    """Seconds: p50 and p99."""
    command = [str(Path(sys.executable).with_name("dataflow-serve")), "--listen", "127.0.0.1:0"]
    command += ["-w", str(workers)]
    with tempfile.NamedTemporaryFile("w") as hosts:
        hosts.writelines(f"127.0.0.1:{port}\n" for port in ports(processes))
        hosts.flush()
        environment = {"DATAFLOW_SERVE_SECRET": secrets.token_hex()}
        if processes > 1:
            command += ["-n", str(processes), "-h", hosts.name]
        servers = [
            subprocess.Popen(
                [*command, "-p", str(index)] if processes > 1 else command,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for index in range(processes)
        ]
        try:
            output = servers[0].stdout
            assert output is not None
            client = Client(int(output.readline().rsplit(":", 1)[1]))
            while True:
                try:
                    client.call("ping")
                    break
                except RuntimeError:
                    time.sleep(0.01)
            taken = []
            for _ in range(COMMANDS):
                started = time.perf_counter()
                client.call("transact", changes=[])
                taken.append(time.perf_counter() - started)
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait()
    taken = taken[COMMANDS // 10 :]
    return percentile(taken, 0.5), percentile(taken, 0.99)


def main() -> None:
    """Prints a table of medians."""
    print("| processes × workers | | p50, µs | p99, µs |")
    print("| --- | --- | --- | --- |")
    for processes, workers in SHAPES:
        runs: dict[str, list[tuple[float, float]]] = {"timely's": [], "ours": [], "through a server": []}
        for _ in range(REPEATS):
            runs["timely's"].append(bare("timely", processes, workers))
            runs["ours"].append(bare("ours", processes, workers))
            runs["through a server"].append(through_a_server(processes, workers))
        for name, found in runs.items():
            p50, p99 = (statistics.median(each) * 1e6 for each in zip(*found, strict=True))
            print(f"| {processes}×{workers} | {name} | {p50:,.0f} | {p99:,.0f} |", flush=True)


if __name__ == "__main__":
    main()

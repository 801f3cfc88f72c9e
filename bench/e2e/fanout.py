"""One changing relation to many subscribers, against a bare broadcast on mio and against Redis, in turns.

Subscribers and publisher are one process (``bench/net``, ``fan``), the same for all three. The rate is of
deliveries: messages times subscribers; ``CPU`` is the server's processor time for each of them.
"""

import contextlib
import json
import resource
import shutil
import socket
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator

from common import SCALE, helper, processor_seconds, resident_mb, server

SUBSCRIBERS = (1, 100, 1_000, 2_000)
REPEATS = 3


@contextlib.contextmanager
def ours(workers: int, *arguments: str) -> Iterator[tuple[int, str]]:
    with server(workers, *arguments) as running:
        yield running.process.pid, f"127.0.0.1:{running.port}"


@contextlib.contextmanager
def bare() -> Iterator[tuple[int, str]]:
    process = subprocess.Popen(helper("broadcast"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.pid, f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def redis() -> Iterator[tuple[int, str]]:
    with tempfile.TemporaryDirectory() as directory:
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
        options = ["--port", str(port), "--save", "", "--appendonly", "no", "--dir", directory]
        limit = ["--client-output-buffer-limit", "pubsub", "0", "0", "0", "--maxclients", "10000"]
        command = ["redis-server", *options, *limit]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            while "eady to accept connections" not in process.stdout.readline():
                pass
            yield process.pid, f"127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


RUNS: dict[str, tuple[str, Callable[[], contextlib.AbstractContextManager[tuple[int, str]]]]] = {
    "ours, 1 worker": ("dataflow", lambda: ours(1)),
    "ours, 2 workers": ("dataflow", lambda: ours(2)),
    "ours, 1 worker, 1 I/O thread": ("dataflow", lambda: ours(1, "--io-threads", "1")),
    "bare mio": ("bare", bare),
    "Redis": ("redis", redis),
}


def once(name: str, subscribers: int) -> dict[str, float]:
    """One server with its subscribers."""
    dialect, start = RUNS[name]
    messages = max(20, int(20_000 * SCALE) // (subscribers + 20))
    with start() as (pid, address):
        idle, cpu = resident_mb(pid), processor_seconds(pid)
        command = helper("fan", dialect, address, str(subscribers), str(messages))
        output = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        measured: dict[str, float] = json.loads(output)
        deliveries = subscribers * (5 * messages + messages // 10 + 1)
        measured["cpu"] = (processor_seconds(pid) - cpu) / deliveries
        measured["memory"] = (resident_mb(pid) - idle) * 1024 / subscribers
    return measured


def main() -> None:
    """Prints a table of medians."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 10_000)), hard))
    names = [name for name in RUNS if name != "Redis" or shutil.which("redis-server")]
    if "Redis" not in names:
        print("Redis was not run: there is no redis-server.\n")
    print("| subscribers | | deliveries/s | p50, µs | p99, µs | CPU, µs | set up, /s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for subscribers in SUBSCRIBERS:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(REPEATS):
            for name in names:
                runs[name].append(once(name, subscribers))
        for name, found in runs.items():
            median = {key: statistics.median(run[key] for run in found) for key in found[0]}
            print(
                f"| {subscribers:,} | {name} | {median['rate']:,.0f} | {median['p50'] * 1e6:,.0f} "
                f"| {median['p99'] * 1e6:,.0f} | {median['cpu'] * 1e6:.2f} | {median['set_up']:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

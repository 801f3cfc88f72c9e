"""Clients that trickle, by slowhttptest, which nobody here wrote: the server closes them and goes on serving.

Slow heads, slow bodies and slow reading, some hundreds of connections at once, on the loopback. A client of
the protocol must be answered all the while, and when the trickling ends no connection may be left.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.e2e.cluster import Cluster  # noqa: E402
from tests.e2e.wire import PATIENCE, Wire  # noqa: E402

CONNECTIONS = 300
SECONDS = 30
# What each mode is, and how many of its connections the server must have closed itself before the tool ended;
# a slow reader of a small answer, which waits in the system's buffers, is nobody's burden.
MODES = {
    "slow heads": (CONNECTIONS // 2, "-H", "-i", "1", "-x", "24"),
    "slow bodies": (CONNECTIONS // 2, "-B", "-i", "1", "-s", "8192", "-x", "10"),
    "slow reading": (0, "-X", "-w", "1", "-y", "4", "-n", "1", "-z", "1", "-k", "3"),
}


def trickle(cluster: Cluster, mode: str, directory: str) -> bool:
    """Run one mode; whether the server was reachable all the time and got rid of everybody."""
    host, port = cluster.addresses[0]
    least, *options = MODES[mode]
    before = descriptors(cluster)
    command = ["slowhttptest", *map(str, options), "-c", str(CONNECTIONS), "-r", "100"]
    command += ["-l", str(SECONDS), "-p", "3"]
    command += ["-u", f"http://{host}:{port}/metrics", "-g", "-o", f"{directory}/trickle", "-v", "0"]
    with (
        Wire(cluster.addresses[0]) as client,
        subprocess.Popen(command, stdout=subprocess.DEVNULL) as running,
    ):
        asked = 0
        while running.poll() is None:
            client.insert("e", (asked,))
            asked += 1
    with Path(f"{directory}/trickle.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines, skipinitialspace=True))
    # The last column is what a connection of its own found: 0 where it got no answer in time.
    available = all(int(row["Service Available"]) > 0 for row in rows)
    closed = max((int(row["Closed"]) for row in rows), default=0)
    # A departure is noticed by the worker's next turn, not by the client that left.
    deadline = time.monotonic() + PATIENCE
    while descriptors(cluster) > before and time.monotonic() < deadline:
        os.sched_yield()
    left = descriptors(cluster) - before
    print(
        f"{mode}: {closed} of {CONNECTIONS} seen closed by the server, {asked} transactions answered, "
        f"{'always' if available else 'not always'} available, {left} descriptors left"
    )
    return available and closed >= least and left <= 0


def descriptors(cluster: Cluster) -> int:
    """What the server has open."""
    return sum(len(os.listdir(f"/proc/{member.popen.pid}/fd")) for member in cluster.members)


def main() -> int:
    """0 if everything held."""
    cluster = Cluster(1, 2)
    try:
        with Wire(cluster.addresses[0]) as client, tempfile.TemporaryDirectory() as directory:
            client.register(".decl e(x: number)\n.input e")
            results = [trickle(cluster, mode, directory) for mode in MODES]
            return int(not all(results) or not cluster.alive())
    finally:
        cluster.kill()


if __name__ == "__main__":
    sys.exit(main())

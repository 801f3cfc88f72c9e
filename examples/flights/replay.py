"""Replays a year of departures through a server of two workers, and checks what it derived: `make demo`.

A `dataflow-serve` process is started on a free port. Four clients (two on framed TCP, two on WebSockets, on
both workers) take the departures in turns, batch by batch, in the order of time; cancelled ones are taken
back a while later, and the registry of planes arrives in parts. Two more clients follow the results, each at
the worker that the other isn't at. A process of its own (`pulse.py`) measures meanwhile how long another
client's row takes to a subscriber at the other worker.

DEMO_ROWS= shortens it.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import data
import expected
import trio
from rich.console import Console
from screen import Feed, Screen

import dataflow_serve as ds
from dataflow_serve.client import Client, Progress, View

HERE = Path(__file__).parent
WORKERS = 2
BATCH = 250
CORRECT_AFTER = 20
"""Batches of a client after which it takes its cancelled departures back."""
REGISTRY_PARTS = 4
RESULTS = ("punctuality", "capacity", "connected", "unregistered")


@dataclass
class Replay:
    """How far the replay is, shared by the clients that take turns."""

    batches: list[Sequence[data.Scheduled]]
    total: int
    registry: dict[int, Sequence[tuple[str, str, int]]]
    """Parts of the registry of planes, by the batch before which they come."""
    turns: Iterator[int]
    """The batches that nobody has taken yet; the clients draw from it."""
    started: float = 0.0
    rows: int = 0
    transactions: int = 0
    corrected: int = 0
    day: str = "2013-01-01"
    sent: list[data.Departure] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Rows a second so far."""
        return (self.rows + self.corrected) / max(trio.current_time() - self.started, 1e-9)


async def main() -> int:
    """Run the demo; the exit code says whether all results are right."""
    console = Console()
    limit = os.environ.get("DEMO_ROWS")
    with console.status("reading the departures"):
        scheduled = data.departures(int(limit) if limit else None)
    batches = [scheduled[at : at + BATCH] for at in range(0, len(scheduled), BATCH)]
    planes = data.planes()
    registry = {
        len(batches) * part // REGISTRY_PARTS: planes[part::REGISTRY_PARTS] for part in range(REGISTRY_PARTS)
    }
    replay = Replay(batches, len(scheduled), registry, iter(range(len(batches))))
    async with server() as address, contextlib.AsyncExitStack() as stack:
        console.print(f"dataflow-serve runs with {WORKERS} workers; its page is http://{address}/")
        # Connections are dealt over the workers in turn, so each pair below has a client at either worker.
        urls = [f"df://{address}"] * 2 + [f"ws://{address}"] * 2
        writers = [await stack.enter_async_context(ds.open_client(url)) for url in urls]
        readers = [await stack.enter_async_context(ds.open_client(f"df://{address}")) for _ in range(2)]
        await writers[0].register((HERE / "flights.dl").read_text(), "flights")
        await writers[0].transact(airline=data.airlines())
        feeds = {name: Feed(readers[at % 2].info.worker, View()) for at, name in enumerate(RESULTS)}
        with pulse(address) as latency:
            async with trio.open_nursery() as nursery:
                finished = Finished(RESULTS)
                for at, name in enumerate(RESULTS):
                    await nursery.start(follow, readers[at % 2], name, feeds[name], finished)
                await run(replay, writers, feeds, console)
                last = (await writers[0].transact(wait="visible")).time
                await finished.wait(last)
                elapsed = trio.current_time() - replay.started
                nursery.cancel_scope.cancel()
            figures = latency()
    console.print()
    console.print(
        f"{replay.rows:,} departures in and {replay.corrected:,} cancelled ones out again, "
        f"in {replay.transactions:,} transactions: {elapsed:.1f} s, "
        f"{(replay.rows + replay.corrected) / elapsed:,.0f} rows/s until every subscriber had the last change"
    )
    console.print(
        f"meanwhile, from one row's transact to its step at a subscriber of the other worker: {figures}"
    )
    return judge(replay, feeds, console)


async def run(replay: Replay, writers: Sequence[Client], feeds: dict[str, Feed], console: Console) -> None:
    """Send everything, showing the results as they change."""
    replay.started = trio.current_time()
    with Screen(console, replay.total, feeds) as screen:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show, screen, replay)
            async with trio.open_nursery() as sending:
                for client in writers:
                    sending.start_soon(send, client, replay)
            nursery.cancel_scope.cancel()
        screen.refresh(replay.rows, replay.day, replay.rate)


async def send(client: Client, replay: Replay) -> None:
    """Transact one batch after the other, and later take back what was cancelled."""
    cancelled: list[list[data.Departure]] = []
    for number in replay.turns:
        if number in replay.registry:
            await client.transact(plane=replay.registry[number], wait="sequenced")
            replay.transactions += 1
        batch = replay.batches[number]
        cancelled.append([each.departure for each in batch if each.cancelled])
        taken_back = cancelled.pop(0) if len(cancelled) > CORRECT_AFTER else []
        await client.transact(
            departure=[each.departure for each in batch], delete={"departure": taken_back}, wait="sequenced"
        )
        replay.sent += [each.departure for each in batch if not each.cancelled]
        replay.rows += len(batch)
        replay.corrected += len(taken_back)
        replay.transactions += 1
        replay.day = batch[-1].day
    rest = [departure for each in cancelled for departure in each]
    await client.transact(delete={"departure": rest}, wait="sequenced")
    replay.corrected += len(rest)
    replay.transactions += 1


async def show(screen: Screen, replay: Replay) -> None:
    """Keep the screen up to date."""
    while True:
        screen.refresh(replay.rows, replay.day, replay.rate)
        await trio.sleep(0.2)


class Finished:
    """Up to which time each result has arrived."""

    def __init__(self, names: Sequence[str]) -> None:
        """Nothing has arrived yet."""
        self._times = dict.fromkeys(names, -1)
        self._changed = trio.Condition()

    async def reached(self, name: str, time: int) -> None:
        """Note that everything of `name` up to `time` is there."""
        async with self._changed:
            self._times[name] = time
            self._changed.notify_all()

    async def wait(self, time: int) -> None:
        """Wait until all results have reached `time`."""
        async with self._changed:
            while min(self._times.values()) < time:
                await self._changed.wait()


async def follow(
    client: Client,
    name: str,
    feed: Feed,
    finished: Finished,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Apply every step of a result relation to its view."""
    async with client.subscribe(name, progress=True) as items:
        task_status.started()
        async for item in items:
            feed.view.apply(item)
            if not isinstance(item, Progress):
                feed.steps += 1
                feed.added += sum(diff for _, diff in item.changes if diff > 0)
                feed.removed -= sum(diff for _, diff in item.changes if diff < 0)
            await finished.reached(name, item.time)


def judge(replay: Replay, feeds: dict[str, Feed], console: Console) -> int:
    """Compare the results with the independent computation and say what came out."""
    correct = expected.results(replay.sent, data.airlines(), data.planes())
    found = {name: {tuple(row) for row in feed.view} for name, feed in feeds.items()}
    wrong = expected.differences(found, correct)
    for line in wrong:
        console.print(f"[red]WRONG[/]  {line}")
    if not wrong:
        sizes = ", ".join(f"{name} {len(rows)} rows" for name, rows in correct.items())
        console.print(f"[green]equal to an independent computation in plain Python[/]: {sizes}")
    return 1 if wrong else 0


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[str]:
    """A server on a free port, as its own process; the address it listens at."""
    command = [
        str(Path(sysconfig.get_path("scripts")) / "dataflow-serve"),
        "--listen",
        "127.0.0.1:0",
        "-w",
        str(WORKERS),
    ]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    output = b""
    try:
        while not (found := re.search(rb"listening on ([0-9.]+:[0-9]+)", output)):
            part = await process.stdout.receive_some()
            if not part:
                raise SystemExit(f"the server didn't start:\n{output.decode()}")
            output += part
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_discard, process.stdout)
            yield found[1].decode()
            nursery.cancel_scope.cancel()
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _discard(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some():
        pass


@contextlib.contextmanager
def pulse(address: str) -> Iterator[Callable[[], str]]:
    """Measure latencies in a process of its own for the length of the block; what it gives tells them.

    The block begins when the process measures, however short the block is.
    """
    process = subprocess.Popen(
        [sys.executable, str(HERE / "pulse.py"), address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise SystemExit("the latency probe didn't start")
        # Its standard input closed, it says what it measured and ends.
        yield lambda: process.communicate()[0].strip()
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(trio.run(main))

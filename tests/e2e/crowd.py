"""Many clients at once, each in a thread of its own, who write, read, watch and misbehave, and take notes.

What comes of it is a `History` for `tests/oracle/order.py`, which holds it against one order. Every client
chooses from random numbers of its own, so that a seed gives the same choices, whatever the threads do to one
another.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.oracle.order import PROGRAM, RELATIONS, History, Mark, Read, Request, Row, View, Write

from .cluster import Cluster
from .wire import ENCODINGS, PATIENCE, Refused, Stream, Subscription, Wire

ACCOUNTS = 12
KEYS = 4
DEPTH = 8
"""Requests that a writer sends before it waits for an answer."""

Sent = tuple[int, int, float, Callable[[float, dict[str, Any]], Request]]


class Crowd:
    """Runs everybody and collects what they noted."""

    def __init__(self, cluster: Cluster, seed: str, rounds: int, stop_seconds: float) -> None:
        self.cluster, self.seed, self.rounds, self.stop_seconds = cluster, seed, rounds, stop_seconds
        self.history = History()
        self.numbers = itertools.count()
        self.end: int | None = None
        self.over = threading.Event()
        self._progress = threading.Condition()
        self._writers_left = 0
        self._acknowledged = 0
        self._wires: list[Wire] = []

    def run(self) -> History:
        """Everybody, from an empty cluster to a quiet end."""
        with Wire(self.cluster.addresses[0]) as first:
            first.register(PROGRAM, "order")
        # The even places write; the others have different owners, on all processes.
        writers = [Writer(self, f"writer {n}", n) for n in range(4)]
        watchers = [Watcher(self, f"watcher {n}", n) for n in range(4)]
        sleeper = Watcher(self, "sleeper", 1, asleep=True)
        others = [Passer(self, "passer", 2), Vanisher(self, "vanisher", 0), Churner(self, "churner", 3)]
        self._writers_left = len(writers)
        tasks: list[Callable[[], None]] = [
            each.run for each in (*writers, *watchers, sleeper, *others, Stopper(self))
        ]
        with ThreadPoolExecutor(len(tasks)) as pool:
            futures = [pool.submit(self._guarded, task) for task in tasks]
            try:
                self.wait_for_writers(PATIENCE * 4)
                for future in futures[len(writers) + len(watchers) + 1 :]:
                    future.result(PATIENCE * 4)
                self._look_last()
            except BaseException:
                self._abort()
                # What stopped one of them says more than that the others didn't get on.
                for future in futures:
                    if future.done() and (error := future.exception()) is not None:
                        raise error from None
                raise
            for future in futures:
                future.result(PATIENCE * 4)
        return self.history

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException:
            self._abort()
            raise

    def _abort(self) -> None:
        self.over.set()
        with self._progress:
            self._writers_left = 0
            self._progress.notify_all()
        for wire in self._wires:
            with contextlib.suppress(OSError):
                wire.stream.socket.shutdown(socket.SHUT_RDWR)

    def _look_last(self) -> None:
        with Client(self, "end", self.cluster.processes - 1, "msgpack") as client:
            client.write()
            client.settle()
            self.end = client.time
            # Those who watch notice by the progress of a transaction that follows.
            client.write()
            for relation in RELATIONS:
                client.read(relation)
            client.settle()
        self.over.set()

    def dial(self, process: int, encoding: str) -> Wire:
        """A connection that is cut when something goes wrong."""
        wire = Wire(self.cluster.addresses[process % self.cluster.processes], encoding)
        self._wires.append(wire)
        return wire

    def note(self, request: Request) -> None:
        """Part of the history from now on."""
        self.history.requests.append(request)

    def acknowledged(self) -> None:
        """A writer got an answer."""
        with self._progress:
            self._acknowledged += 1
            self._progress.notify_all()

    def writer_done(self) -> None:
        """A writer has nothing left to do."""
        with self._progress:
            self._writers_left -= 1
            self._progress.notify_all()

    def wait_for_acknowledged(self, count: int) -> bool:
        """Whether the writers are still at it when so many requests have been answered."""
        with self._progress:
            self._progress.wait_for(lambda: self._acknowledged >= count or not self._writers_left)
            return self._writers_left > 0

    def wait_for_writers(self, seconds: float) -> None:
        """All writers are done."""
        with self._progress:
            assert self._progress.wait_for(lambda: not self._writers_left, seconds + self.rounds)


class Client:
    """A connection that notes down what it asks and gets."""

    def __init__(self, crowd: Crowd, name: str, process: int, encoding: str) -> None:
        self.crowd, self.name = crowd, name
        self.rng = random.Random(f"{crowd.seed} {name}")
        self.wire = crowd.dial(process, encoding)
        self.pending: deque[Sent] = deque()
        self.places = itertools.count()
        self.time = -1

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    def start(
        self, op: str, made: Callable[[tuple[Any, ...], dict[str, Any]], Request], **fields: Any
    ) -> None:
        """Send a request; `made` makes a note of it when it is answered."""
        place, sent = next(self.places), time.monotonic()
        number = self.wire.start(op, **fields)

        def noted(answered: float, ok: dict[str, Any]) -> Request:
            return made((self.name, place, sent, answered, ok["time"]), ok)

        self.pending.append((number, place, sent, noted))

    def settle(self, depth: int = 0) -> None:
        """Wait for answers until no more than `depth` are outstanding."""
        while len(self.pending) > depth:
            number, _, _, noted = self.pending.popleft()
            ok = self.wire.finish(number)
            self.time = ok["time"]
            self.crowd.note(noted(time.monotonic(), ok))

    def write(
        self,
        inserts: tuple[Row, ...] = (),
        deletes: tuple[Row, ...] = (),
        registers: tuple[Row, ...] = (),
        **fields: Any,
    ) -> None:
        """Send a transaction."""
        self.start(
            "transact",
            lambda head, _: Write(*head, inserts, deletes, registers),
            changes=changes(inserts, deletes, registers),
            **fields,
        )

    def read(self, relation: str, account: int | None = None) -> None:
        """Send a read, of everything or of one account."""

        def made(head: tuple[Any, ...], ok: dict[str, Any]) -> Request:
            rows = frozenset(map(tuple, ok["rows"]))
            assert len(rows) == len(ok["rows"]), f"a row of {relation} stands twice in a read"
            return Read(*head, relation, account, rows)

        self.start(
            "read", made, relation=relation, **({} if account is None else {"where": {"account": account}})
        )

    def watch(self, relation: str) -> tuple[Subscription, tuple[Any, ...]]:
        """A subscription with progress, and what a note of it begins with."""
        place, sent = next(self.places), time.monotonic()
        subscription = self.wire.subscribe(relation, progress=True)
        return subscription, (self.name, place, sent, time.monotonic(), subscription.time)

    def note_view(self, subscription: Subscription, head: tuple[Any, ...], relation: str) -> None:
        """Note what a subscription was sent so far."""
        steps = tuple((step.time, dict(step.changes)) for step in subscription.steps)
        self.crowd.note(View(*head, relation, steps, subscription.reached))


def changes(
    inserts: tuple[Row, ...] = (), deletes: tuple[Row, ...] = (), registers: tuple[Row, ...] = ()
) -> list[dict[str, Any]]:
    """The field of a transaction."""
    entry = {"insert": [list(row) for row in inserts], "delete": [list(row) for row in deletes]}
    last = {"insert": [list(row) for row in registers]}
    return [
        {"relation": relation, **change}
        for relation, change in (("entry", entry), ("last", last))
        if any(change.values())
    ]


class Writer:
    """Transfers, takes them back, sets registers and looks now and then, several requests at a time."""

    def __init__(self, crowd: Crowd, name: str, place: int) -> None:
        self.crowd, self.name, self.place = crowd, name, place

    def run(self) -> None:
        with Client(self.crowd, self.name, self.place, ENCODINGS[self.place % 4]) as client:
            rng = client.rng
            own: list[tuple[Row, ...]] = []
            for _ in range(self.crowd.rounds):
                chance = rng.random()
                if chance < 0.7:
                    self.write(client, own)
                elif chance < 0.8:
                    client.read("last")
                elif chance < 0.85:
                    client.read("total")
                elif chance < 0.9:
                    client.read("balance")
                elif chance < 0.98:
                    client.read(rng.choice(("entry", "balance")), rng.randrange(ACCOUNTS))
                else:
                    client.read("entry")
                before = len(client.pending)
                client.settle(rng.randrange(DEPTH))
                for _ in range(before - len(client.pending)):
                    self.crowd.acknowledged()
            client.settle()
        self.crowd.writer_done()

    def write(self, client: Client, own: list[tuple[Row, ...]]) -> None:
        rng, inserts, deletes, registers = client.rng, (), (), ()
        if own and rng.random() < 0.4:
            deletes = own.pop(rng.randrange(len(own)))
        if rng.random() < 0.8:
            inserts = transfer(self.crowd, rng.randrange(ACCOUNTS), rng.randrange(ACCOUNTS), rng)
            own.append(inserts)
        if rng.random() < 0.5:
            keys = rng.sample(range(KEYS), rng.randint(1, 3))
            registers = tuple((key, next(self.crowd.numbers)) for key in keys)
        client.write(inserts, deletes, registers)


def transfer(crowd: Crowd, one: int, other: int, rng: random.Random) -> tuple[Row, Row]:
    """Two new entries that add up to nothing."""
    number, amount = 2 * next(crowd.numbers), rng.randint(-50, 50)
    return (number, one, amount), (number + 1, other, -amount)


class Watcher:
    """Watches everything to the end; one that is `asleep` doesn't read before the writers are done."""

    def __init__(self, crowd: Crowd, name: str, place: int, *, asleep: bool = False) -> None:
        self.crowd, self.name, self.place, self.asleep = crowd, name, place, asleep

    def run(self) -> None:
        with Client(self.crowd, self.name, self.place, ENCODINGS[(self.place + 1) % 4]) as client:
            if self.asleep:
                client.wire.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            views = [(relation, *client.watch(relation)) for relation in RELATIONS]
            if self.asleep:
                self.crowd.over.wait()
            while any(not self.seen(subscription) for _, subscription, _ in views):
                client.wire.pump()
            for relation, subscription, head in views:
                client.note_view(subscription, head, relation)

    def seen(self, subscription: Subscription) -> bool:
        """Whether it has come to the end, or was told that it is too slow."""
        if subscription.ended is not None:
            assert self.asleep and subscription.ended["code"] == "busy", subscription.ended
            return True
        end = self.crowd.end
        return end is not None and subscription.reached >= end and subscription.whole


class Passer:
    """Comes, watches one relation for a while, and leaves."""

    def __init__(self, crowd: Crowd, name: str, place: int) -> None:
        self.crowd, self.name, self.place = crowd, name, place

    def run(self) -> None:
        for visit in range(1 + self.crowd.rounds // 10):
            encoding = ENCODINGS[visit % 4]
            with Client(self.crowd, f"{self.name} {visit}", self.place + visit, encoding) as client:
                relation = RELATIONS[visit % 4]
                subscription, head = client.watch(relation)
                client.write()
                client.settle()
                subscription.until(client.time)
                client.note_view(subscription, head, relation)
                if visit % 2:
                    client.start("unsubscribe", lambda head, _: Mark(*head), sub=subscription.sub)
                    client.settle()


class Vanisher:
    """Goes away in the middle of a message, or before the answer, and sometimes asks again elsewhere."""

    def __init__(self, crowd: Crowd, name: str, place: int) -> None:
        self.crowd, self.name, self.place = crowd, name, place
        self.rng = random.Random(f"{crowd.seed} {name}")

    def run(self) -> None:
        for visit in range(1 + self.crowd.rounds // 5):
            name, account = f"{self.name} {visit}", 1000 + 2 * visit
            inserts = transfer(self.crowd, account, account + 1, self.rng)
            wire = self.crowd.dial(self.place + visit, ENCODINGS[visit % 2])
            stream, sent = wire.stream, time.monotonic()
            assert isinstance(stream, Stream)
            key = str(uuid.UUID(int=self.rng.getrandbits(128)))
            message = {"id": 9, "op": "transact", "changes": changes(inserts), "key": key}
            data = stream.encode(message)
            kind = visit % 3
            stream.send_bytes(data[: self.rng.randrange(1, len(data) - 1)] if kind == 0 else data)
            wire.close()
            if kind < 2:
                self.crowd.note(Write(name, 0, sent, None, None, inserts, cut=kind == 0))
                continue
            with self.crowd.dial(self.place + visit + 1, ENCODINGS[visit % 4]) as again:
                ok = again.call("transact", changes=message["changes"], key=key)
                assert again.call("transact", changes=message["changes"], key=key) == {
                    "time": ok["time"],
                    "deduplicated": True,
                }
            self.crowd.note(Write(name, 0, sent, time.monotonic(), ok["time"], inserts))


class Churner:
    """Registers a program over the entries, watches it, and unregisters it again."""

    def __init__(self, crowd: Crowd, name: str, place: int) -> None:
        self.crowd, self.name, self.place = crowd, name, place

    def run(self) -> None:
        with (
            Client(self.crowd, self.name, self.place, "msgpack") as client,
            Client(self.crowd, f"{self.name}'s witness", self.place + 1, "ndjson") as witness,
        ):
            for turn in range(1 + self.crowd.rounds // 20):
                mirror = f"mirror_{turn % 2}"
                program = (
                    f".decl {mirror}(id: number, account: number, amount: number)\n"
                    f"{mirror}(i, a, x) :- entry(i, a, x).\n.output {mirror}"
                )
                client.start("register", lambda head, _: Mark(*head), program=program, name=mirror)
                client.settle()
                subscription, head = witness.watch(mirror)
                client.write()
                client.settle()
                subscription.until(client.time)
                client.start("unregister", lambda head, _: Mark(*head), name=mirror)
                client.settle()
                assert subscription.until_ended()["code"] == "not-found"
                witness.note_view(subscription, head, "entry")
                try:
                    witness.wire.read(mirror)
                except Refused as refused:
                    assert refused.code == "not-found", refused
                else:
                    raise AssertionError(f"{mirror} is there after it was unregistered")


class Stopper:
    """Stops a whole process for a while, a few times during a run."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd

    def run(self) -> None:
        cluster, total = self.crowd.cluster, 4 * self.crowd.rounds
        for turn in range(3):
            if not self.crowd.wait_for_acknowledged(total * (turn + 1) // 5):
                return
            process = cluster.members[turn % cluster.processes].popen
            process.send_signal(signal.SIGSTOP)
            try:
                # This is the fault itself: nothing that the test needs happens meanwhile.
                self.crowd.over.wait(self.crowd.stop_seconds)
            finally:
                process.send_signal(signal.SIGCONT)

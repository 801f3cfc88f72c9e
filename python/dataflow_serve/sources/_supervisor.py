"""Runs the sources of this process: begins them, begins again what fails, ends them.

Each source has a thread of its own; what is here runs on trio and waits.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

import trio

from dataflow_serve.errors import BusyError
from dataflow_serve.sources._doors import Feed, FeedEnded, Intake, SourceError, Target, Workers
from dataflow_serve.sources._files import FilesReader
from dataflow_serve.sources._postgres import PostgresReader
from dataflow_serve.sources._report import Report
from dataflow_serve.sources._specs import Postgres, Source, dump, parse

__all__ = ["Sources"]

FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 30.0
"""A source that fails is tried again after these, twice as long each time."""
POST_SECONDS = 0.5
"""How often ``status`` is brought up to date, beside every change of state."""
MAX_SOURCES = 64
"""Sources of one process; each has a thread."""
LEAVE_SECONDS = 2.0
"""How long sources may take to end when the server stops."""

_log = logging.getLogger("dataflow_serve.sources")


class Reader(Protocol):
    """Reads a source on a thread."""

    def run(self, stopped: Callable[[], bool]) -> None:
        """Read until told to stop.

        Raises:
            SourceError: it can't go on now; called again, it goes on where it was.
            FeedEnded: what it fed is gone.
        """

    def interrupt(self) -> None:
        """Have `run` look whether it is told to stop; from another thread."""

    def close(self) -> None:
        """Let go of everything, and end the feeds."""

    def feeds(self) -> list[Feed]:
        """The feeds that were opened."""

    def clean_up(self) -> list[str]:
        """Remove what was set up outside, for good; what is left, in words. After `close`."""


class Sources:
    """The sources of one process, by name."""

    def __init__(self, workers: Workers, configured: Mapping[str, Source]) -> None:
        """Nothing runs before `run`; the configured ones are attached at `formed`."""
        self._workers = workers
        self._configured = dict(configured)
        self._inputs: dict[str, Target] = {}
        self._derived: dict[str, int] = {}
        self._changed = trio.Event()
        self._running: dict[str, _Running] = {}
        self._followed: dict[int, _Running] = {}
        """By their attachments: sources whose names others have, before their own ends were told."""
        self._nursery: trio.Nursery | None = None
        self.generation = 0
        """In which the relations are; 0 before the first."""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run sources until cancelled, which gives them a moment to end."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    # --- events of the cluster

    def formed(self, generation: int) -> None:
        """Attach what the configuration has, and what was attached before the cluster fell."""
        self.generation = generation
        running = {name: running.source for name, running in self._running.items() if not running.stopping}
        for name, source in (self._configured | running).items():
            self._workers.attach(name, dump(source))

    def fallen(self) -> None:
        """All relations are gone. Sources wait for those of the next generation, and begin anew there."""
        self._inputs, self._derived = {}, {}
        for running in self._running.values():
            running.attachment = None
        self._followed.clear()
        self._renew()

    def registered(self, module: Mapping[str, Any]) -> None:
        """Relations have come."""
        for relation in module["relations"]:
            if relation["input"] is None:
                self._derived[relation["name"]] = relation["id"]
            else:
                self._inputs[relation["name"]] = Target.of(relation)
        self._renew()

    def unregistered(self, relations: Iterable[int]) -> None:
        """Relations have gone."""
        gone = set(relations)
        self._inputs = {name: target for name, target in self._inputs.items() if target.id not in gone}
        self._derived = {name: number for name, number in self._derived.items() if number not in gone}
        self._renew()

    def _renew(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        for running in self._running.values():
            running.catalog_changed()

    def describe(self, name: str, document: str) -> str:
        """A source that a client asks for, checked, as it will be run.

        Raises:
            DataflowError: it can't be.
        """
        if len(self._running) >= MAX_SOURCES:
            raise BusyError(f"cannot attach source {name!r}: this process has {MAX_SOURCES}")
        return dump(parse(name, json.loads(document)))

    def attached(self, attachment: int, name: str, document: str) -> None:
        """Begin to run a source. One of that name that still ends is waited for."""
        before = self._running.get(name)
        if before is not None and not before.stopping:
            if before.attachment is None:
                # Attached again after the cluster was formed anew: it has noticed by its feeds.
                before.attachment = attachment
                return
            # It was detached before this one was attached, of which another worker has yet to tell.
            self._followed[before.attachment] = before
            before.end()
        running = _Running(name, parse(name, json.loads(document)), self, self._workers)
        running.attachment = attachment
        self._running[name] = running
        self._start(running.run, before)

    def unattached(self, name: str, reason: str) -> None:
        """A source of the configuration can't have its name, or not any more in this generation."""
        # One configuration may serve all processes; then the first to read it has the source.
        _log.warning("%s", reason)
        running = self._running.get(name)
        # One that has an attachment is another's, from after this one was refused.
        if running is not None and running.attachment is None:
            running.end()
            self._start(self._ended, running)

    def detach(self, ticket: int, attachment: int, name: str) -> None:
        """End a source; it is answered once nothing of it takes effect any more.

        It is ending when this returns, whatever else has happened already: it won't be attached anew.
        """
        running = self._followed.pop(attachment, None) or self._running.get(name)
        if running is None or running.attachment != attachment:
            return self._workers.detached(ticket, 0, [])
        running.end()
        self._start(self._answer, ticket, running)

    async def _answer(self, ticket: int, running: _Running) -> None:
        self._workers.detached(ticket, *await self._ended(running))

    async def _ended(self, running: _Running) -> tuple[int, list[str]]:
        ended = await running.ended()
        if self._running.get(running.name) is running:
            del self._running[running.name]
        return ended

    def _start(self, task: Callable[..., Awaitable[Any]], *args: Any) -> None:
        assert self._nursery is not None, "attached before `run`"
        self._nursery.start_soon(task, *args)

    async def aclose(self) -> None:
        """End all sources, as far as they do in time."""
        with trio.move_on_after(LEAVE_SECONDS):
            async with trio.open_nursery() as nursery:
                for running in self._running.values():
                    running.end()
                    nursery.start_soon(running.ended)

    # --- what sources ask

    def targets(self, relations: Iterable[str]) -> dict[str, Target] | str:
        """The relations, or why there is none to feed now. Readers ask as well, from their threads."""
        # Others take their place when relations go.
        inputs, derived = self._inputs, self._derived
        targets = {}
        for relation in relations:
            if relation in derived:
                return f"relation {relation!r} is derived: a source can only feed an input"
            if relation not in inputs:
                return f"relation {relation!r} is not registered"
            targets[relation] = inputs[relation]
        return targets

    @property
    def changed(self) -> trio.Event:
        """Set when relations have come or gone."""
        return self._changed


class _Running:
    """One source and its thread."""

    def __init__(self, name: str, source: Source, sources: Sources, workers: Workers) -> None:
        self.name, self.source = name, source
        self.attachment: int | None = None
        """The number under which it was attached; None until it is in this generation."""
        self.stopping = False
        self._sources, self._workers = sources, workers
        self._intake: Intake | None = None
        kind = type(source).__struct_config__.tag
        self._report = Report(name, str(kind), source.relations, workers.post_source)
        self._reader: Reader | None = None
        self._targets: dict[str, Target] = {}
        self._generation = 0
        self._limiter = trio.CapacityLimiter(1)
        self._wish = trio.Event()
        self._ended = trio.Event()
        self._time = 0
        self._left: list[str] = []

    def end(self) -> None:
        """End it, as soon as may be."""
        self.stopping = True
        self._wish.set()
        self._interrupt()

    async def ended(self) -> tuple[int, list[str]]:
        """Wait for its end; the time of its last transaction, and what was left behind."""
        await self._ended.wait()
        return self._time, self._left

    def catalog_changed(self) -> None:
        """Have the reader end if what it feeds is no longer there."""
        if self._reader is not None and self._must_end():
            self._interrupt()

    def _must_end(self) -> bool:
        return self.stopping or self._is_elsewhere(self._sources.targets(self.source.relations))

    def _is_elsewhere(self, targets: dict[str, Target] | str) -> bool:
        """Whether these aren't what the reader feeds; numbers may be the same in each generation."""
        return (self._sources.generation, targets) != (self._generation, self._targets)

    def _interrupt(self) -> None:
        if self._intake is not None:
            self._intake.ring()
        if self._reader is not None:
            self._reader.interrupt()

    async def run(self, before: _Running | None) -> None:
        """Read until told to stop, whatever goes wrong."""
        if before is not None:
            await before._ended.wait()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._post)
                await self._read()
                self._report.become("stopping")
                await self._forget()
                nursery.cancel_scope.cancel()
        finally:
            self._report.close()
            self._ended.set()

    async def _post(self) -> None:
        while True:
            await trio.sleep(POST_SECONDS)
            self._report.post()

    async def _read(self) -> None:
        error: str | None
        retry_seconds = FIRST_RETRY_SECONDS
        while not self.stopping:
            changed = self._sources.changed
            targets = self._sources.targets(self.source.relations)
            if isinstance(targets, str):
                await self._forget()
                self._report.become("waiting", targets if "derived" in targets else None)
                await self._wait_for(changed)
                continue
            if self._reader is None or self._is_elsewhere(targets):
                await self._forget()
                self._generation = self._sources.generation
                self._intake = self._workers.intake(self._generation)
                self._targets, self._reader = targets, self._open(targets, self._intake)
            begun = trio.current_time()
            try:
                await self._on_thread(self._reader.run, self._must_end)
                continue
            except FeedEnded as ended:
                # What it fed is gone; it begins anew where there is something to feed.
                await self._forget()
                error = str(ended) if ended.code != "interrupted" else None
            except SourceError as failure:
                error = str(failure)
            except Exception as fault:
                _log.error("source %r failed", self.name, exc_info=fault)
                await self._forget()
                error = f"{type(fault).__name__}: {fault}"
            if trio.current_time() - begun > LONGEST_RETRY_SECONDS:
                retry_seconds = FIRST_RETRY_SECONDS
            self._report.become("failed" if error else "waiting", error, retry_seconds)
            with trio.move_on_after(retry_seconds):
                await self._wait_for(changed)
            retry_seconds = min(2 * retry_seconds, LONGEST_RETRY_SECONDS)

    def _open(self, targets: Mapping[str, Target], intake: Intake) -> Reader:
        common = (self._workers, intake, self._report)
        if isinstance(self.source, Postgres):
            return PostgresReader(self.name, self.source, targets, *common)
        return FilesReader(self.source, targets[self.source.relation], *common)

    async def _forget(self) -> None:
        """Let go of the reader, once what is under way has had its effect; the next begins anew."""
        reader, self._reader = self._reader, None
        if reader is None:
            return
        reader.close()
        assert self._intake is not None, "every reader has one"
        await self._on_thread(self._settle, reader, self._intake)
        self._time = max(self._time, self._report.time)
        self._report.restart()
        # Without a log of our own there is nothing to go on from: what is outside is of no use any more.
        self._left = await self._on_thread(reader.clean_up)

    async def _wait_for(self, changed: trio.Event) -> None:
        """Wait until relations have come or gone, or the source is to end."""
        async with trio.open_nursery() as nursery:

            async def wait(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait, changed)
            nursery.start_soon(wait, self._wish)

    @staticmethod
    def _settle(reader: Reader, intake: Intake) -> None:
        while any(feed.progress["held_bytes"] > 0 for feed in reader.feeds()):
            intake.wait(POST_SECONDS)

    async def _on_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return await trio.to_thread.run_sync(work, *args, limiter=self._limiter, abandon_on_cancel=True)

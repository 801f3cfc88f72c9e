"""What becomes of a source as its relation comes and goes, and as reading it fails."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from dataflow_serve.errors import BusyError, IncorrectError
from dataflow_serve.sources import Sources
from dataflow_serve.sources import _supervisor as supervisor
from dataflow_serve.sources._doors import SourceError, Target

from . import source_doors as doors

FILE = {"kind": "files", "path": "/nowhere", "relation": "r"}


class Workers(doors.Workers):
    """Keeps every state that was posted, and answers."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[tuple[str, float | None]] = []
        self.attached: list[str] = []
        self.ended: list[tuple[int, int, list[str]]] = []
        self._news = threading.Condition()

    def post_source(self, name: str, report: str | None) -> None:
        super().post_source(name, report)
        with self._news:
            state = None if report is None else json.loads(report)
            entry = ("gone", None) if state is None else (state["state"], state.get("retry_seconds"))
            if not self.history or self.history[-1] != entry:
                self.history.append(entry)
            self._news.notify_all()

    def attach(self, name: str, source: str) -> None:
        self.attached.append(name)

    def detached(self, ticket: int, time: int, left: list[str]) -> None:
        with self._news:
            self.ended.append((ticket, time, left))
            self._news.notify_all()

    async def until(self, right: Callable[[list[tuple[str, float | None]]], bool]) -> None:
        """Wait until the history is right."""

        def wait() -> None:
            with self._news:
                assert self._news.wait_for(lambda: right(self.history), 30), self.history

        await trio.to_thread.run_sync(wait)

    async def until_ended(self, *tickets: int) -> None:
        await self.until(lambda _: [ticket for ticket, _, _ in self.ended] == list(tickets))

    async def until_state(self, state: str) -> None:
        await self.until(lambda history: history[-1:] != [] and history[-1][0] == state)


def failed(history: list[tuple[str, float | None]]) -> list[float | None]:
    return [seconds for state, seconds in history if state == "failed"]


class Reader:
    """Fails as often as it is told to, then reads until it is stopped."""

    failures = 0
    opened: list[Target]

    def __init__(self, target: Target, intake: doors.Intake, report: Any) -> None:
        Reader.opened.append(target)
        self.report, self.feed = report, intake.feed(1)
        self._interrupted = threading.Event()
        self.closed = False

    def run(self, stopped: Callable[[], bool]) -> None:
        self.report.become("running")
        if Reader.failures:
            Reader.failures -= 1
            raise SourceError("it is broken")
        while not stopped():
            self._interrupted.wait(30)
            if self.feed.ended:
                raise supervisor.FeedEnded(self.feed)

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        self.closed = True

    def feeds(self) -> list[doors.Feed]:
        return [self.feed]

    def clean_up(self) -> list[str]:
        assert self.closed
        return ["a slot"]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    Reader.failures, Reader.opened = 0, []

    def opened(running: Any, targets: dict[str, Target], intake: doors.Intake) -> Reader:
        return Reader(targets["r"], intake, running._report)

    monkeypatch.setattr(supervisor._Running, "_open", opened)
    monkeypatch.setattr(supervisor, "FIRST_RETRY_SECONDS", 1 / 256)
    monkeypatch.setattr(supervisor, "LONGEST_RETRY_SECONDS", 1 / 64)
    return Workers()


@pytest.fixture
async def sources(workers: Workers) -> AsyncIterator[Sources]:
    running = Sources(workers, {})
    async with trio.open_nursery() as nursery:
        await nursery.start(running.run)
        yield running
        await running.aclose()
        nursery.cancel_scope.cancel()


def module(number: int, mode: Any = "set") -> dict[str, Any]:
    columns = [{"name": "x", "type": "number"}]
    return {"name": "m", "relations": [{"id": number, "name": "r", "columns": columns, "input": mode}]}


async def run_a_source(sources: Sources, workers: Workers) -> None:
    """Source "s", attachment 1, reads into relation 1."""
    sources.registered(module(1))
    sources.attached(1, "s", json.dumps(FILE))
    await workers.until_state("running")


async def test_a_source_waits_for_its_relation_and_starts_again_with_another(
    sources: Sources, workers: Workers
) -> None:
    sources.attached(1, "s", sources.describe("s", json.dumps(FILE)))
    await workers.until_state("waiting")
    sources.registered(module(1))
    await workers.until_state("running")
    sources.unregistered([1])
    await workers.until_state("waiting")
    sources.registered(module(2))
    await workers.until_state("running")
    assert [target.id for target in Reader.opened] == [1, 2]


async def test_a_feed_that_has_ended_means_another_reader(sources: Sources, workers: Workers) -> None:
    await run_a_source(sources, workers)
    workers.intakes[0].feeds[0].ended = ("not-found", "the relation is gone")
    sources._running["s"]._interrupt()
    await workers.until(lambda history: ("failed", 1 / 256) in history and history[-1][0] == "running")
    assert len(Reader.opened) == 2


async def test_a_derived_relation_is_not_fed(sources: Sources, workers: Workers) -> None:
    sources.registered(module(1, None))
    sources.attached(1, "s", json.dumps(FILE))
    await workers.until_state("waiting")
    assert workers.posted["s"]["error"] == "relation 'r' is derived: a source can only feed an input"
    assert not Reader.opened


async def test_what_fails_is_tried_again_less_and_less_often(sources: Sources, workers: Workers) -> None:
    Reader.failures = 4
    sources.registered(module(1))
    sources.attached(1, "s", json.dumps(FILE))
    await workers.until(lambda history: len(failed(history)) >= 4 and history[-1][0] == "running")
    assert failed(workers.history) == [1 / 256, 1 / 128, 1 / 64, 1 / 64]
    assert workers.posted["s"]["error"] == "it is broken", "the last error stays to be seen"
    assert len(Reader.opened) == 1, "a reader keeps its position"


async def test_detaching_waits_for_the_end_and_says_what_is_left(sources: Sources, workers: Workers) -> None:
    await run_a_source(sources, workers)
    sources.detach(7, 1, "s")
    await workers.until_ended(7)
    assert workers.ended == [(7, 0, ["a slot"])]
    assert workers.history[-2:] == [("stopping", None), ("gone", None)]
    assert "s" not in workers.posted


async def test_a_name_can_be_used_again(sources: Sources, workers: Workers) -> None:
    sources.registered(module(1))
    for attachment in (1, 2):
        sources.attached(attachment, "s", json.dumps(FILE))
        await workers.until_state("running")
        sources.detach(10 + attachment, attachment, "s")
        await workers.until_ended(*range(11, 11 + attachment))


async def test_a_source_that_follows_another_may_be_told_of_before_the_others_end(
    sources: Sources, workers: Workers
) -> None:
    await run_a_source(sources, workers)
    # Detached and attached again at once: two workers tell of it, in any order.
    sources.attached(2, "s", json.dumps(FILE))
    sources.detach(11, 1, "s")
    await workers.until_ended(11)
    await workers.until_state("running")
    assert [target.id for target in Reader.opened] == [1, 1]
    sources.detach(12, 2, "s")
    await workers.until_ended(11, 12)
    assert "s" not in workers.posted


async def test_an_end_that_is_told_late_answers_with_what_was_left(
    sources: Sources, workers: Workers
) -> None:
    await run_a_source(sources, workers)
    sources.attached(2, "s", json.dumps(FILE))
    await workers.until(lambda _: len(Reader.opened) == 2)
    sources.detach(11, 1, "s")
    await workers.until_ended(11)
    assert workers.ended == [(11, 0, ["a slot"])]


async def test_a_source_that_is_detached_is_not_attached_anew(sources: Sources, workers: Workers) -> None:
    await run_a_source(sources, workers)
    # All of it is found at once by a supervisor that was busy.
    sources.detach(11, 1, "s")
    sources.fallen()
    sources.formed(2)
    await workers.until_ended(11)
    assert workers.attached == []


async def test_a_source_is_not_ended_because_another_was_refused_its_name_before(
    sources: Sources, workers: Workers
) -> None:
    sources.registered(module(1))
    sources.attached(1, "s", json.dumps(FILE))
    sources.unattached("s", "process 1 had one of that name")
    await workers.until_state("running")
    assert not sources._running["s"].stopping


async def test_a_reader_may_ask_what_there_is_while_it_goes(sources: Sources, workers: Workers) -> None:
    sources.registered(module(1))

    class Going(dict[str, Target]):
        def __contains__(self, name: object) -> bool:
            found = super().__contains__(name)
            sources.unregistered([1])
            return found

    sources._inputs = Going(sources._inputs)
    assert isinstance(sources.targets(["r"]), dict)
    assert sources.targets(["r"]) == "relation 'r' is not registered"


async def test_sources_are_attached_anew_when_the_cluster_is(sources: Sources, workers: Workers) -> None:
    sources.attached(1, "s", json.dumps(FILE))
    sources.fallen()
    sources.formed(2)
    assert workers.attached == ["s"]
    running = sources._running["s"]
    sources.attached(2, "s", json.dumps(FILE))
    assert sources._running["s"] is running


async def fall_once(sources: Sources, workers: Workers) -> None:
    """A source runs in the first generation; it falls, and the second one is there."""
    sources.formed(1)
    await run_a_source(sources, workers)
    sources.fallen()
    sources.formed(2)


async def test_a_source_begins_anew_in_the_next_generation_though_its_relation_has_the_same_number(
    sources: Sources, workers: Workers
) -> None:
    await fall_once(sources, workers)
    sources.registered(module(1))
    await workers.until(lambda _: len(Reader.opened) == 2)
    assert [intake.generation for intake in workers.intakes] == [1, 2]


async def test_a_source_whose_name_another_process_has_in_the_next_generation_ends(
    sources: Sources, workers: Workers
) -> None:
    await fall_once(sources, workers)
    sources.unattached("s", "process 0 has it")
    await workers.until_state("gone")
    sources.formed(3)
    assert workers.attached == ["s"], "it was attached in the second one only"


async def test_there_are_only_so_many(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "MAX_SOURCES", 1)
    sources.attached(1, "s", json.dumps(FILE))
    with pytest.raises(BusyError, match="cannot attach source 't': this process has 1"):
        sources.describe("t", json.dumps(FILE))


async def test_a_source_that_is_wrong_is_refused(sources: Sources) -> None:
    with pytest.raises(IncorrectError, match="source 's', field `kind`"):
        sources.describe("s", json.dumps({"kind": "magic"}))

"""Checks that what many clients saw at once is one order that respects real time.

A `History` holds what clients asked and were answered, with the moments at which they asked and had the
answer. `violations` says everything in it that no single order explains. The server states each answer's
place in its order (`time`), so nothing has to be searched for: the stated order is replayed and compared.

What is looked for:

- *real time*: what was asked after another answer had come isn't placed before it;
- *sessions*: a connection's requests are placed in the order in which they were sent, a write behind a look
  strictly so;
- *looks*: each read shows exactly what all writes up to its time add up to, and so does each step of a
  subscription, which makes its view a prefix of the one order;
- *registers*: of writes at one time, all observers see the same one last, over all registers together, and
  never one that must have come before another;
- *outcomes*: a write without an answer took effect at one time or never, and one that was cut off never;
- *sums*: transfers add up to nothing in every account book that anybody sees;
- nothing acknowledged is missing, which the last looks, after everything else, show.

The relations are fixed: `entry(id, account, amount)` is a set whose rows come in pairs that add up to zero,
`last(key, value)` is an upsert by key, `balance(account, sum)` and `total(sum)` are derived from `entry`.
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Row = tuple[int, ...]
Changes = dict[Row, int]

PROGRAM = """
    .decl entry(id: number, account: number, amount: number)
    .input entry
    .decl last(key: number, value: number) upsert(key)
    .input last
    .decl balance(account: number, sum: number)
    balance(a, s) :- entry(_, a, _), s = sum x : { entry(_, a, x) }.
    .output balance
    .decl total(sum: number)
    total(s) :- s = sum x : { entry(_, _, x) }.
    .output total
"""
RELATIONS = ("entry", "last", "balance", "total")


@dataclass(frozen=True)
class Request:
    """What any request has: its connection, its number there, when it was sent, when and how answered."""

    client: str
    place: int
    sent: float
    answered: float | None
    time: int | None

    def __str__(self) -> str:
        return f"{type(self).__name__.lower()} {self.client}/{self.place}"


@dataclass(frozen=True)
class Write(Request):
    """A transaction. Without an answer its outcome is unknown; `cut` off in the middle it has none.

    Values written to registers are unique in a history, and so are the ids of entries; an entry is deleted by
    the client that inserted it. One without an answer only inserts entries, into accounts of its own.
    """

    inserts: tuple[Row, ...] = ()
    deletes: tuple[Row, ...] = ()
    registers: tuple[Row, ...] = ()
    cut: bool = False


@dataclass(frozen=True)
class Read(Request):
    """A read, of one account only if `account` says so."""

    relation: str = "entry"
    account: int | None = None
    rows: frozenset[Row] = frozenset()


@dataclass(frozen=True)
class View(Request):
    """A subscription: `steps` as they arrived, the snapshot first; up to `reached` there was nothing else."""

    relation: str = "entry"
    steps: tuple[tuple[int, Changes], ...] = ()
    reached: int = -1


@dataclass(frozen=True)
class Mark(Request):
    """Any other request that has a place in the order."""


@dataclass
class History:
    """Everything that happened between the beginning, when nothing was stored, and a quiet end."""

    requests: list[Request] = field(default_factory=list)

    def of(self, kind: type[Write] | type[Read] | type[View]) -> Iterator[Request]:
        """The requests of one kind."""
        return (request for request in self.requests if isinstance(request, kind))


def violations(history: History) -> list[str]:
    """What no order explains; nothing if all is well."""
    floors = _floors(history)
    found = [*_real_time(history, floors), *_sessions(history)]
    writes, unexplained = _settle(history, floors)
    log = _Log(writes)
    found += unexplained
    found += _looks(history, log)
    found += _registers(history, writes)
    found += _last_looks(history)
    return found


# --- real time and sessions ---------------------------------------------------------------------------------


def _floors(history: History) -> dict[int, Request]:
    """For each request (by identity) the one with the greatest time of those answered before it was sent."""
    moments: list[tuple[float, int, int]] = []
    for index, request in enumerate(history.requests):
        # At equal moments sending comes first: nothing is claimed that the clock doesn't show.
        moments.append((request.sent, 0, index))
        if request.answered is not None and request.time is not None:
            moments.append((request.answered, 1, index))
    floors: dict[int, Request] = {}
    highest: Request | None = None
    for _, is_answer, index in sorted(moments):
        request = history.requests[index]
        if not is_answer:
            if highest is not None:
                floors[id(request)] = highest
        elif highest is None or _time(request) > _time(highest):
            highest = request
    return floors


def _time(request: Request) -> int:
    assert request.time is not None
    return request.time


def _real_time(history: History, floors: dict[int, Request]) -> Iterator[str]:
    for request in history.requests:
        floor = floors.get(id(request))
        if floor is not None and request.time is not None and request.time < _time(floor):
            yield (
                f"real time: {request} was sent after the answer to {floor}, "
                f"but has time {request.time} < {floor.time}"
            )


def _sessions(history: History) -> Iterator[str]:
    sessions: dict[str, list[Request]] = defaultdict(list)
    for request in history.requests:
        if request.time is not None:
            sessions[request.client].append(request)
    for requests in sessions.values():
        requests.sort(key=lambda request: request.place)
        for before, after in itertools.pairwise(requests):
            strict = isinstance(after, Write) and not isinstance(before, Write)
            if _time(after) < _time(before) + strict:
                yield f"session: {after} has time {after.time}, {before} before it {before.time}"


# --- writes without an answer -------------------------------------------------------------------------------


def _settle(history: History, floors: dict[int, Request]) -> tuple[list[Write], list[str]]:
    """All writes that took effect, those without an answer at a time that every look agrees with."""
    settled: list[Write] = []
    found: list[str] = []
    for write in history.of(Write):
        assert isinstance(write, Write)
        if write.cut:
            continue
        if write.time is not None:
            settled.append(write)
            continue
        assert write.inserts and not write.deletes and not write.registers
        low = _time(floors[id(write)]) - 1 if id(write) in floors else -1
        high: int | None = None
        for not_yet, seen in _sightings(history, write.inserts[0]):
            low = max(low, not_yet)
            high = seen if high is None else high if seen is None else min(high, seen)
        if high is None:
            continue
        if low >= high:
            found.append(f"outcome: {write} without an answer is there at {high}, but not at {low} or later")
        settled.append(
            Write(write.client, write.place, write.sent, None, high, write.inserts, write.deletes, ())
        )
    return settled, found


def _sightings(history: History, row: Row) -> Iterator[tuple[int, int | None]]:
    """For each look at a row's relations: the last time without it, the first with it."""
    balance = (row[1], row[2])
    for look in history.requests:
        if isinstance(look, Read):
            wanted = row if look.relation == "entry" else balance
            if look.relation not in ("entry", "balance") or look.account not in (None, row[1]):
                continue
            yield (-1, _time(look)) if wanted in look.rows else (_time(look), None)
        elif isinstance(look, View) and look.relation in ("entry", "balance"):
            wanted = row if look.relation == "entry" else balance
            before = -1
            for time, changes in look.steps:
                if changes.get(wanted, 0) > 0:
                    yield before, time
                    break
                before = time
            else:
                yield max(look.reached, before), None


# --- looks --------------------------------------------------------------------------------------------------


class _Log:
    """What each relation but `last` goes through: the changes of every time."""

    def __init__(self, writes: Iterable[Write]) -> None:
        at: dict[int, list[Write]] = defaultdict(list)
        for write in writes:
            at[_time(write)].append(write)
        self.times = sorted(at)
        self.changes: dict[str, list[Changes]] = {"entry": [], "balance": [], "total": []}
        sums: Counter[int] = Counter()
        entries: Counter[int] = Counter()
        present: set[Row] = set()
        for time in self.times:
            before = {
                account: _balance(account, sums, entries)
                for write in at[time]
                for _, account, _ in (*write.inserts, *write.deletes)
            }
            entry: Counter[Row] = Counter()
            # Writes of different clients have different rows, so only each client's own order matters.
            for write in sorted(at[time], key=lambda write: (write.client, write.place)):
                for rows, difference in ((write.deletes, -1), (write.inserts, 1)):
                    for row in rows:
                        if (row in present) == (difference > 0):
                            continue
                        (present.add if difference > 0 else present.remove)(row)
                        entry[row] += difference
                        sums[row[1]] += difference * row[2]
                        entries[row[1]] += difference
            balance: Counter[Row] = Counter()
            for account, row_before in before.items():
                row_after = _balance(account, sums, entries)
                if row_before is not None:
                    balance[row_before] -= 1
                if row_after is not None:
                    balance[row_after] += 1
            self.changes["entry"].append(_nonzero(entry))
            self.changes["balance"].append(_nonzero(balance))
            self.changes["total"].append({})

    def between(self, relation: str, after: int, until: int) -> Changes:
        """What changed at times greater than `after`, up to `until`."""
        first, end = bisect.bisect_right(self.times, after), bisect.bisect_right(self.times, until)
        added: Counter[Row] = Counter()
        if after < 0 and relation == "total":
            added[(0,)] = 1
        for changes in self.changes[relation][first:end]:
            for row, difference in changes.items():
                added[row] += difference
        return _nonzero(added)


def _balance(account: int, sums: Counter[int], entries: Counter[int]) -> Row | None:
    return (account, sums[account]) if entries[account] else None


def _nonzero(changes: Counter[Row]) -> Changes:
    return {row: difference for row, difference in changes.items() if difference}


def _looks(history: History, log: _Log) -> Iterator[str]:
    for look in history.requests:
        if isinstance(look, Read) and look.relation != "last":
            expected = log.between(look.relation, -1, _time(look))
            if look.account is not None:
                at = 1 if look.relation == "entry" else 0
                expected = {row: n for row, n in expected.items() if row[at] == look.account}
            if difference := _difference(expected, dict.fromkeys(look.rows, 1)):
                yield f"look: {look} of {look.relation} at {look.time}: {difference}"
        elif isinstance(look, View) and look.relation != "last":
            before = -1
            for time, changes in look.steps:
                if difference := _difference(log.between(look.relation, before, time), changes):
                    yield f"look: {look} of {look.relation}, step ({before}, {time}]: {difference}"
                    break
                before = time
            else:
                if missed := log.between(look.relation, before, look.reached):
                    yield f"look: {look} of {look.relation} never showed {_some(missed)} up to {look.reached}"


def _difference(expected: Changes, found: Changes) -> str:
    missing = {row: n for row, n in expected.items() if found.get(row) != n}
    wrong = {row: n for row, n in found.items() if expected.get(row) != n}
    parts = [f"missing {_some(missing)}"] if missing else []
    return "; ".join(parts + ([f"unexpected {_some(wrong)}"] if wrong else []))


def _some(changes: Changes) -> str:
    shown = dict(itertools.islice(sorted(changes.items()), 5))
    return f"{shown}{f' and {len(changes) - 5} more' if len(changes) > 5 else ''}"


# --- registers ----------------------------------------------------------------------------------------------


def _registers(history: History, writes: list[Write]) -> Iterator[str]:
    """Which write of each time was the last of each register, and whether one order explains it all."""
    writers: dict[int, dict[int, list[Write]]] = defaultdict(lambda: defaultdict(list))
    wrote: dict[Row, Write] = {}
    for write in writes:
        for row in write.registers:
            writers[row[0]][_time(write)].append(write)
            wrote[row] = write
    times = {key: sorted(at) for key, at in writers.items()}
    winners: dict[tuple[int, int], Row] = {}
    for look, time, contents in _register_looks(history):
        expected = {key for key, at in times.items() if at[0] <= time}
        if len({key for key, _ in contents}) != len(contents) or {key for key, _ in contents} != expected:
            yield f"registers: {look} at {time} shows {sorted(contents)}, written were {sorted(expected)}"
            continue
        for row in contents:
            at = times[row[0]][bisect.bisect_right(times[row[0]], time) - 1]
            if row not in wrote or _time(wrote[row]) != at:
                yield f"registers: {look} at {time} shows {row}, but the last writes to it were at {at}"
            elif winners.setdefault((row[0], at), row) != row:
                yield f"registers: {look} at {time} shows {row}, another look {winners[row[0], at]}"
    yield from _one_order(writers, winners, wrote)


def _register_looks(history: History) -> Iterator[tuple[Request, int, set[Row]]]:
    for look in history.requests:
        if isinstance(look, Read) and look.relation == "last":
            yield look, _time(look), set(look.rows)
        elif isinstance(look, View) and look.relation == "last":
            contents: Counter[Row] = Counter()
            for time, changes in look.steps:
                for row, difference in changes.items():
                    contents[row] += difference
                yield look, time, set(+contents)


def _one_order(
    writers: dict[int, dict[int, list[Write]]],
    winners: dict[tuple[int, int], Row],
    wrote: dict[Row, Write],
) -> Iterator[str]:
    before: dict[int, set[int]] = defaultdict(set)
    known: dict[int, Write] = {}
    for key, at in writers.items():
        for time, group in at.items():
            for write in group:
                known[id(write)] = write
            for one, other in itertools.permutations(group, 2):
                session = one.client == other.client and one.place < other.place
                real_time = one.answered is not None and one.answered < other.sent
                if session or real_time or winners.get((key, time)) in other.registers:
                    before[id(other)].add(id(one))
    # Kahn's way: take away what nothing is before; what remains goes round in a circle.
    after: dict[int, set[int]] = defaultdict(set)
    for other, ones in before.items():
        for one in ones:
            after[one].add(other)
    open_ends = [each for each in known if not before[each]]
    while open_ends:
        one = open_ends.pop()
        for other in after.pop(one, ()):
            before[other].discard(one)
            if not before[other]:
                open_ends.append(other)
    circle = [str(known[each]) for each, ones in before.items() if ones]
    if circle:
        yield f"registers: no order of {', '.join(sorted(circle)[:6])} explains which of them were last"


# --- the end ------------------------------------------------------------------------------------------------


def _last_looks(history: History) -> Iterator[str]:
    last = max((_time(r) for r in history.of(Write) if r.time is not None), default=-1)
    for relation in RELATIONS:
        if not any(
            isinstance(look, Read)
            and look.relation == relation
            and look.account is None
            and _time(look) >= last
            for look in history.requests
        ):
            yield f"outcome: nobody looked at all of {relation} at {last} or later"

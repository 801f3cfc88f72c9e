"""The checker of orders accepts what one order explains, and rejects every kind of history that none does."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.oracle.order import Changes, History, Mark, Read, Request, Row, View, Write, violations

# --- hand-made histories: a transfer, a retraction, registers, and those who look ---------------------------

PAIR: tuple[Row, Row] = ((0, 1, 5), (1, 2, -5))
OTHER: tuple[Row, Row] = ((2, 1, 7), (3, 3, -7))


def last_looks(
    time: int, entry: set[Row], last: set[Row], balance: set[Row], total: set[Row]
) -> list[Request]:
    contents = {"entry": entry, "last": last, "balance": balance, "total": total}
    return [
        Read("end", place, 100 + place, 100.5 + place, time, relation, None, frozenset(rows))
        for place, (relation, rows) in enumerate(contents.items())
    ]


def good() -> list[Request]:
    """Two writers, a reader, two views; everything in it is as it should be."""
    return [
        Write("a", 0, 0.0, 1.0, 1, PAIR, (), ((1, 10), (2, 10))),
        Write("b", 0, 0.5, 1.5, 1, OTHER, (), ((1, 20),)),
        Read("c", 0, 2.0, 3.0, 2, "balance", None, frozenset({(1, 12), (2, -5), (3, -7)})),
        Read("c", 1, 3.0, 4.0, 2, "last", None, frozenset({(1, 20), (2, 10)})),
        Write("a", 1, 4.0, 5.0, 4, (), PAIR, ((2, 30),)),
        Read("c", 2, 5.0, 6.0, 4, "entry", 1, frozenset({(2, 1, 7)})),
        View(
            "v", 0, 0.0, 0.2, 0, "entry",
            ((0, {}), (1, dict.fromkeys((*PAIR, *OTHER), 1)), (4, dict.fromkeys(PAIR, -1))), 5,
        ),
        View(
            "w", 0, 2.0, 2.5, 2, "last",
            ((2, {(1, 20): 1, (2, 10): 1}), (4, {(2, 10): -1, (2, 30): 1})), 5,
        ),
        Write("gone", 0, 0.0, None, None, ((90, 90, 1), (91, 91, -1)), cut=True),
        Write("lost", 0, 0.0, None, None, ((92, 92, 1), (93, 93, -1))),
        Mark("d", 0, 6.0, 7.0, 5),
        *last_looks(6, set(OTHER), {(1, 20), (2, 30)}, {(1, 7), (3, -7)}, {(0,)}),
    ]  # fmt: skip


def test_a_good_history_has_no_violations() -> None:
    assert violations(History(good())) == []


def test_a_write_without_an_answer_may_have_taken_effect() -> None:
    requests = good()
    requests[6] = dataclasses.replace(
        requests[6],
        steps=(
            (0, {}),
            (1, dict.fromkeys((*PAIR, *OTHER), 1)),
            (4, {**dict.fromkeys(PAIR, -1), (92, 92, 1): 1, (93, 93, -1): 1}),
        ),
    )
    requests[-4:] = last_looks(
        6,
        {*OTHER, (92, 92, 1), (93, 93, -1)},
        {(1, 20), (2, 30)},
        {(1, 7), (3, -7), (92, 1), (93, -1)},
        {(0,)},
    )
    assert violations(History(requests)) == []
    requests[-4] = dataclasses.replace(requests[-4], rows=frozenset(OTHER))
    assert any(each.startswith("outcome:") for each in violations(History(requests)))


def replaced(index: int, **fields: object) -> Callable[[list[Request]], list[Request]]:
    def change(requests: list[Request]) -> list[Request]:
        requests[index] = dataclasses.replace(requests[index], **fields)  # type: ignore[arg-type]
        return requests

    return change


def last_look(which: int, rows: set[Row]) -> Callable[[list[Request]], list[Request]]:
    return replaced(which - 4, rows=frozenset(rows))


BAD: dict[str, tuple[str, Callable[[list[Request]], list[Request]]]] = {
    "a read that is older than an acknowledged write": (
        "real time",
        replaced(5, sent=5.1, time=3, rows=frozenset({(0, 1, 5), (2, 1, 7)})),
    ),
    "a write that is placed before an earlier one": ("real time", replaced(4, time=0)),
    "requests of a connection that change places": ("session", replaced(3, place=-1, time=3)),
    "a write behind a read at the read's time": ("session", replaced(4, client="c", place=9, time=2)),
    "an acknowledged write that the last look lacks": ("look", last_look(0, set())),
    "a deleted row that is there again": ("look", last_look(0, {*OTHER, *PAIR})),
    "a read that sees half a transaction": (
        "look",
        replaced(2, rows=frozenset({(1, 12), (2, -5)})),
    ),
    "a read that sees what comes later": ("look", replaced(5, rows=frozenset({(2, 1, 7), (8, 1, 3)}))),
    "books that don't balance": ("look", last_look(3, {(1,)})),
    "no total at all": ("look", last_look(3, set())),
    "a sum that nothing explains": ("look", last_look(2, {(1, 8), (3, -7)})),
    "a step with half a transaction": (
        "look",
        replaced(6, steps=((0, {}), (1, {PAIR[0]: 1, OTHER[0]: 1, OTHER[1]: 1}), (4, {PAIR[0]: -1}))),
    ),
    "a step that is missing": (
        "look",
        replaced(6, steps=((0, {}), (1, dict.fromkeys((*PAIR, *OTHER), 1)))),
    ),
    "a step that comes twice": (
        "look",
        replaced(
            6,
            steps=(
                (0, {}),
                (1, dict.fromkeys((*PAIR, *OTHER), 1)),
                (4, dict.fromkeys(PAIR, -1)),
                (5, dict.fromkeys(PAIR, -1)),
            ),
        ),
    ),
    "a message cut off that took effect": (
        "look",
        last_look(0, {*OTHER, (90, 90, 1), (91, 91, -1)}),
    ),
    "half of a write without an answer": ("look", last_look(0, {*OTHER, (92, 92, 1)})),
    "two looks that disagree on who was last": (
        "registers",
        replaced(7, steps=((2, {(1, 10): 1, (2, 10): 1}), (4, {(2, 10): -1, (2, 30): 1}))),
    ),
    "a register that goes back": ("registers", last_look(1, {(1, 20), (2, 10)})),
    "a register that nobody wrote so": ("registers", last_look(1, {(1, 20), (2, 31)})),
    "a register with two values": ("registers", last_look(1, {(1, 20), (1, 10), (2, 30)})),
    "a register that is lost": ("registers", last_look(1, {(1, 20)})),
    "nobody looked at the end": ("outcome", lambda requests: requests[:-1]),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "change"), BAD.values(), ids=BAD.keys())
def test_a_bad_history_is_rejected_for_what_is_wrong_with_it(
    kind: str, change: Callable[[list[Request]], list[Request]]
) -> None:
    found = violations(History(change(good())))
    assert any(each.startswith(f"{kind}:") for each in found), found


def together(*registers: tuple[Row, ...], clients: str, last: set[Row], apart: bool = False) -> list[Request]:
    """Writes at one time, at once or one after the other's answer, and what was last."""
    return [
        *(
            Write(client, place, place if apart else 0, place + 0.5 if apart else 9, 1, (), (), rows)
            for place, (client, rows) in enumerate(zip(clients, registers, strict=True))
        ),
        *last_looks(1, set(), last, set(), {(0,)}),
    ]


def test_writes_at_one_time_have_one_order_over_all_registers() -> None:
    both = (((1, 10), (2, 10)), ((1, 20), (2, 20)))
    assert violations(History(together(*both, clients="ab", last={(1, 20), (2, 20)}))) == []
    assert violations(History(together(*both, clients="ab", last={(1, 10), (2, 10)}))) == []
    for crossed in ({(1, 20), (2, 10)}, {(1, 10), (2, 20)}):
        (found,) = violations(History(together(*both, clients="ab", last=crossed)))
        assert found.startswith("registers: no order")
    round_about = (((1, 1), (2, 1)), ((2, 2), (3, 2)), ((3, 3), (1, 3)))
    assert violations(History(together(*round_about, clients="abc", last={(1, 1), (2, 2), (3, 3)})))
    assert not violations(History(together(*round_about, clients="abc", last={(1, 1), (2, 2), (3, 2)})))


def test_writes_at_one_time_keep_their_connections_order() -> None:
    one, two = ((1, 10),), ((1, 20),)
    assert not violations(History(together(one, two, clients="aa", last={(1, 20)})))
    assert violations(History(together(one, two, clients="aa", last={(1, 10)})))


def test_writes_at_one_time_respect_real_time() -> None:
    one, two = ((1, 10),), ((1, 20),)
    assert not violations(History(together(one, two, clients="ab", last={(1, 20)}, apart=True)))
    assert violations(History(together(one, two, clients="ab", last={(1, 10)}, apart=True)))


# --- random histories of a server that does it right --------------------------------------------------------


class Right:
    """Serves one request after the other; clients see when through intervals that overlap."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.time = 0
        self.places: Counter[str] = Counter()
        self.looked: set[str] = set()
        self.entries: dict[Row, str] = {}
        self.registers: dict[int, int] = {}
        self.steps: list[tuple[int, str, Changes]] = []
        self.requests: list[Request] = []
        self.values = iter(range(10**9))

    def request(self, client: str) -> tuple[str, int, float, float, int]:
        """The beginning of any request, at this point of the order."""
        point = float(len(self.requests))
        place = self.places[client]
        self.places[client] += 1
        return client, place, point - self.rng.uniform(0, 4), point + self.rng.uniform(0, 4), self.time

    def write(self, client: str) -> None:
        if client in self.looked or self.rng.random() < 0.6:
            self.time += self.rng.randint(1, 3)
            self.looked.clear()
        number, account, amount = 2 * next(self.values), self.rng.randrange(4), self.rng.randrange(-9, 9)
        inserts = ((number, account, amount), (number + 1, self.rng.randrange(4), -amount))
        own = sorted(row for row, owner in self.entries.items() if owner == client and row[0] % 2 == 0)
        deletes: tuple[Row, ...] = ()
        if own and self.rng.random() < 0.4:
            first = self.rng.choice(own)
            deletes = tuple(row for row in self.entries if row[0] in (first[0], first[0] + 1))
        registers = tuple((key, next(self.values)) for key in self.rng.sample(range(3), 2))
        for row in deletes:
            del self.entries[row]
        self.entries.update(dict.fromkeys(inserts, client))
        self.registers.update(registers)
        self.requests.append(Write(*self.request(client), inserts, deletes, registers))

    def contents(self, relation: str) -> frozenset[Row]:
        if relation == "entry":
            return frozenset(self.entries)
        if relation == "last":
            return frozenset(self.registers.items())
        if relation == "total":
            return frozenset({(0,)})
        sums: Counter[int] = Counter()
        for _, account, amount in self.entries:
            sums[account] += amount
        return frozenset((account, sums[account]) for account in {row[1] for row in self.entries})

    def read(self, client: str, relation: str) -> None:
        # A read shows everything of its time, so nothing else may get that time behind it.
        self.looked.update("abcdef")
        rows = self.contents(relation)
        self.requests.append(Read(*self.request(client), relation, None, rows))

    def run(self, count: int) -> History:
        for _ in range(count):
            client = self.rng.choice("abcdef")
            if self.rng.random() < 0.7:
                self.write(client)
            else:
                self.read(client, self.rng.choice(("entry", "last", "balance", "total")))
        end = [
            Read(
                "end",
                place,
                1e6 + place,
                1e6 + place + 0.5,
                self.time,
                relation,
                None,
                self.contents(relation),
            )
            for place, relation in enumerate(("entry", "last", "balance", "total"))
        ]
        return History(self.requests + end)


def test_random_right_histories_are_accepted_and_any_damage_to_a_look_is_not(rng: random.Random) -> None:
    for _ in range(20):
        history = Right(rng).run(60)
        assert violations(history) == []
        reads = [index for index, each in enumerate(history.requests) if isinstance(each, Read)]
        for index in rng.sample(reads, 5):
            read = history.requests[index]
            assert isinstance(read, Read)
            some = sorted(read.rows)
            if some and rng.random() < 0.5:
                rows = read.rows - {rng.choice(some)}
            else:
                rows = read.rows | {tuple(10**12 for _ in (some[0] if some else (1, 1)))}
            requests = list(history.requests)
            requests[index] = dataclasses.replace(read, rows=rows)
            assert violations(History(requests)), (read, rows)


def test_random_right_histories_with_two_times_exchanged_are_rejected(rng: random.Random) -> None:
    rejected = 0
    for _ in range(40):
        history = Right(rng).run(60)
        writes = [i for i, each in enumerate(history.requests) if isinstance(each, Write)]
        one, other = rng.sample(writes, 2)
        requests = list(history.requests)
        times = requests[one].time, requests[other].time
        if times[0] == times[1]:
            continue
        requests[one] = dataclasses.replace(requests[one], time=times[1])
        requests[other] = dataclasses.replace(requests[other], time=times[0])
        # Close neighbours that nobody looked between may well be exchanged.
        rejected += bool(violations(History(requests)))
    assert rejected > 20

"""Everything that many clients see at once, under faults, is one order that respects real time.

Clients on all workers and processes write, read and watch, while others vanish in the middle of a message,
come and go, sleep instead of reading, register and unregister programs, and while whole processes stand still
for a while. What they noted down is held against one order by `tests/oracle/order.py`, which is tested itself
in `tests/unit/test_order_checker.py`. ORDER_RUNS, ORDER_ROUNDS and ORDER_STOP_SECONDS make it longer.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from tests.oracle.order import History, View, Write, violations

from .cluster import Cluster
from .crowd import Crowd

RUNS = int(os.environ.get("ORDER_RUNS", "1"))
ROUNDS = int(os.environ.get("ORDER_ROUNDS", "60"))
STOP_SECONDS = float(os.environ.get("ORDER_STOP_SECONDS", "0.2"))
SHAPES = ((1, 2), (2, 2))


@pytest.mark.timeout(120 + RUNS * (ROUNDS + 30))
@pytest.mark.parametrize("slot", SHAPES, indirect=True, ids=["1x2", "2x2"])
def test_what_everybody_saw_is_one_order(cluster: Cluster, rng: random.Random) -> None:
    for run in range(RUNS):
        history = Crowd(cluster, f"{rng.random()} {run}", ROUNDS, STOP_SECONDS).run()
        assert violations(history) == []
        writes, views = list(history.of(Write)), list(history.of(View))
        print(f"run {run}: {figures(history)}")
        # It wouldn't show anything if nobody had got far.
        assert len(writes) > ROUNDS * 2
        assert len(views) >= 20
        cluster.empty()


def figures(history: History) -> str:
    """What a run consisted of, for those who run many."""
    writes = list(history.of(Write))
    times = Counter(write.time for write in writes if write.time is not None)
    shared = sum(count for count in times.values() if count > 1)
    steps = sum(len(view.steps) for view in history.of(View) if isinstance(view, View))
    return (
        f"{len(history.requests)} requests, {len(writes)} transactions, {shared} at times of several, "
        f"{sum(write.time is None for write in writes)} without an answer, {steps} steps of subscriptions"
    )

"""What a source says of itself: in ``status``, and in the log when something goes wrong."""

from __future__ import annotations

import collections
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from dataflow_serve.sources._doors import Feed

__all__ = ["Report"]

_log = logging.getLogger("dataflow_serve.sources")

RATE_SECONDS = 5.0
"""Rows a second are those of so many last seconds."""
MAX_PARTITIONS = 100
"""Partitions listed in ``status``; the others are in the sums."""


class Report:
    """The figures of one source, written by its thread and its supervisor, and posted for ``status``."""

    def __init__(
        self, name: str, kind: str, relations: Iterable[str], post: Callable[[str, str | None], None]
    ) -> None:
        """Begin with a source that waits."""
        self._name, self._kind, self._relations = name, kind, list(relations)
        self._post = post
        self._lock = threading.RLock()
        self._state = "waiting"
        self._error: str | None = None
        self._retry_seconds: float | None = None
        self._bad: str | None = None
        self._bad_rows = 0
        self._before = collections.Counter[str]()
        self._partitions: dict[str, tuple[Feed, dict[str, Any]]] = {}
        self._rates: collections.deque[tuple[float, int]] = collections.deque()
        self._closed = False

    @property
    def state(self) -> str:
        """What it does now."""
        return self._state

    def become(self, state: str, error: str | None = None, retry_seconds: float | None = None) -> None:
        """Take note of another state; a new error is logged."""
        with self._lock:
            if error is not None and error != self._error:
                _log.error("source %r: %s", self._name, error)
            elif error is None and state != self._state:
                _log.info("source %r: %s", self._name, state)
            # The last error stays to be seen, whatever comes after it; the state says whether it is over.
            self._error = error or self._error
            self._state, self._retry_seconds = state, retry_seconds
            self.post()

    def partition(self, name: str, feed: Feed, **facts: Any) -> None:
        """Take note of how far a partition is."""
        with self._lock:
            self._partitions[name] = (feed, facts)

    def bad(self, rows: int, first: str | None) -> None:
        """Count rows that were left out; the first of a run is logged."""
        with self._lock:
            if first is not None and not self._bad_rows:
                _log.warning("source %r leaves out rows that do not fit, the first: %s", self._name, first)
            self._bad_rows += rows
            self._bad = first or self._bad

    def restart(self) -> None:
        """Forget partitions: their feeds have ended."""
        with self._lock:
            self._before.update(self._sums())
            self._partitions.clear()

    def _sums(self) -> collections.Counter[str]:
        sums = collections.Counter[str]()
        for feed, _ in self._partitions.values():
            progress = feed.progress
            sums.update(transactions=progress["applied"], rows=progress["rows"])
        return sums

    @property
    def time(self) -> int:
        """Of the last transaction that had effect."""
        with self._lock:
            return max((feed.progress["time"] for feed, _ in self._partitions.values()), default=0)

    def document(self) -> dict[str, Any]:
        """All figures."""
        with self._lock:
            sums = self._before + self._sums()
            now = time.monotonic()
            self._rates.append((now, sums["rows"]))
            while len(self._rates) > 2 and now - self._rates[0][0] > RATE_SECONDS:
                self._rates.popleft()
            (begun, rows), seconds = self._rates[0], max(now - self._rates[0][0], 1e-3)
            del begun
            partitions = [
                {
                    "partition": name,
                    "worker": feed.worker,
                    "rows": feed.progress["rows"],
                    "held_bytes": feed.progress["held_bytes"],
                    **facts,
                }
                for name, (feed, facts) in self._partitions.items()
            ]
            document = {
                "name": self._name,
                "kind": self._kind,
                "relations": self._relations,
                "state": self._state,
                "transactions": sums["transactions"],
                "rows": sums["rows"],
                "rows_per_second": round((sums["rows"] - rows) / seconds),
                "bad_rows": self._bad_rows,
                "lag_bytes": sum(each.get("lag_bytes", 0) for each in partitions),
                "partitions": partitions[:MAX_PARTITIONS],
                "partition_count": len(partitions),
            }
            optional = {"error": self._error, "retry_seconds": self._retry_seconds, "bad_row": self._bad}
            return document | {name: value for name, value in optional.items() if value is not None}

    def post(self) -> None:
        """Have ``status`` show it as it is now."""
        with self._lock:
            if not self._closed:
                self._post(self._name, json.dumps(self.document()))

    def close(self) -> None:
        """Leave ``status``."""
        with self._lock:
            self._closed = True
            self._post(self._name, None)

"""Files that grow, each of them a partition with an owner of its own.

A partition is a path. The file it leads to is followed as it grows; if another file takes its place, the old
one is read to its end, and on for a while in case its writer is slow to notice. Files are told apart by
inode, so that one that is renamed within the pattern isn't read again. Rows stay when files go: a file is a
log, and all its lines are inserts.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Callable

from dataflow_serve.sources._doors import Feed, FeedEnded, Intake, SourceError, Target, Workers
from dataflow_serve.sources._report import Report
from dataflow_serve.sources._specs import Files
from dataflow_serve.sources._tail import FileId, Tail, identify

__all__ = ["FilesReader"]

MAX_FILES = 1000
"""Files of one source; a pattern that matches more is refused."""
MAX_RECORD_BYTES = 4 << 20
"""Longest record; more is taken for a quote that was never closed."""


class FilesReader:
    """Follows the files of one source, from their beginnings.

    Positions outlive an error: `run` goes on where it left off.
    """

    def __init__(
        self,
        source: Files,
        target: Target,
        workers: Workers,
        intake: Intake,
        report: Report,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is opened yet."""
        self._source, self._target, self._workers = source, target, workers
        self._intake, self._report, self._clock = intake, report, clock
        self._partitions: dict[str, _Partition] = {}
        self._finished: dict[FileId, Tail] = {}
        """Files that were read and may be there under other names: open, lest others get their inodes."""
        self._missed: set[FileId] = set()
        """Those of them that the last look at what is there has missed."""

    def run(self, stopped: Callable[[], bool]) -> None:
        """Read until told to stop.

        Raises:
            SourceError: a row doesn't fit or a file can't be read.
            FeedEnded: nothing is taken any more.
        """
        self._report.become("running")
        while not stopped():
            if not self.turn():
                self._intake.wait(self._source.poll_seconds)

    def turn(self) -> bool:
        """Look at every file once and supply at most one transaction of each; whether there was any."""
        self._discover()
        return sum([partition.turn() for partition in self._partitions.values()]) > 0

    def interrupt(self) -> None:
        """Nothing holds a turn up."""

    def close(self) -> None:
        """Let go of all files, and end the feeds."""
        for partition in self._partitions.values():
            partition.close()
        for tail in self._finished.values():
            tail.close()

    def clean_up(self) -> list[str]:
        """Nothing was set up outside."""
        return []

    def feeds(self) -> list[Feed]:
        """The feeds of all partitions."""
        return [partition.feed for partition in self._partitions.values()]

    def _discover(self) -> None:
        found = {path: identify(path) for path in self._paths()}
        if len(found) > MAX_FILES:
            raise SourceError(f"{self._source.path} matches {len(found)} files, more than {MAX_FILES}")
        self._forget_missing({file for file in found.values() if file is not None})
        for path in found:
            if path not in self._partitions and (path == self._source.path or found[path] is not None):
                feed = self._intake.feed(self._source.queue_bytes)
                self._partitions[path] = _Partition(self, path, feed)
        for path, partition in self._partitions.items():
            partition.file = found.get(path)

    def _forget_missing(self, present: set[FileId]) -> None:
        """Let go of finished files that are gone: one look misses a file that is just renamed, two don't."""
        missed = self._finished.keys() - present
        for file in missed & self._missed:
            self._finished.pop(file).close()
        self._missed = missed & self._finished.keys()

    def _paths(self) -> list[str]:
        if not glob.has_magic(self._source.path):
            return [self._source.path]
        return sorted(glob.glob(self._source.path, recursive=True))

    # --- what partitions share

    def is_known(self, file: FileId) -> bool:
        """Whether a file is or was read, perhaps under another name."""
        return file in self._finished or any(
            file in [tail.id for tail in partition.tails] for partition in self._partitions.values()
        )

    def finish(self, tail: Tail) -> None:
        """A file has been read to its end; it may still be there under another name."""
        self._finished[tail.id] = tail

    @property
    def now(self) -> float:
        """Seconds."""
        return self._clock()

    @property
    def source(self) -> Files:
        """What is read."""
        return self._source

    @property
    def target(self) -> Target:
        """What is fed."""
        return self._target

    @property
    def workers(self) -> Workers:
        """Makes the parsers."""
        return self._workers

    @property
    def report(self) -> Report:
        """Where figures go."""
        return self._report


class _Partition:
    """A path: the file that it leads to, and those that it led to before, until they have been read."""

    def __init__(self, reader: FilesReader, path: str, feed: Feed) -> None:
        self.path, self.feed = path, feed
        self.file: FileId | None = None
        self.tails: list[Tail] = []
        self._reader = reader
        self._formats: dict[FileId, object] = {}
        self._quiet: dict[FileId, float] = {}

    def turn(self) -> bool:
        if self.feed.ended is not None:
            raise FeedEnded(self.feed)
        if not self.feed.has_room:
            return False
        try:
            busy = self._open() or any(self._advance(tail) for tail in list(self.tails))
            lag = sum(tail.lag_bytes for tail in self.tails)
        except OSError as error:
            raise SourceError(f"cannot read {self.path}: {(error.strerror or str(error)).lower()}") from error
        newest = self.tails[-1] if self.tails else None
        position = {"offset": newest.offset, "line": newest.line} if newest else None
        self._reader.report.partition(self.path, self.feed, position=position, lag_bytes=lag)
        return busy

    def close(self) -> None:
        for tail in self.tails:
            tail.close()
        self.feed.close()

    def _open(self) -> bool:
        """Open the file that the path leads to, unless it is one that is or was read already."""
        current = bool(self.tails) and self.tails[-1].id == self.file
        if self.file is None or current or self._reader.is_known(self.file):
            return False
        try:
            tail = Tail(self.path)
        except FileNotFoundError:
            return False
        if tail.id != self.file:
            # Another has come here since, perhaps one that is known: the next look tells.
            tail.close()
            return False
        self.tails.append(tail)
        return True

    def _advance(self, tail: Tail) -> bool:
        """Supply what is new of a file; whether there was anything."""
        if tail.truncated():
            self._formats.pop(tail.id, None)
        if tail.read():
            self._quiet.pop(tail.id, None)
            self._supply(tail, last=False)
            return True
        if tail.rest and self._supply(tail, last=False):
            return True
        if self.file == tail.id and tail is self.tails[-1]:
            return False
        # Moved away or deleted: its last line needs no end once nobody writes any more.
        quiet_since = self._quiet.setdefault(tail.id, self._reader.now)
        if self._reader.now - quiet_since < self._reader.source.linger_seconds:
            return False
        if tail.rest and self._supply(tail, last=True):
            return True
        self.tails.remove(tail)
        self._formats.pop(tail.id, None)
        self._quiet.pop(tail.id, None)
        self._reader.finish(tail)
        return True

    def _supply(self, tail: Tail, *, last: bool) -> bool:
        """Supply the complete records of a file; whether there were any."""
        source = self._reader.source
        if source.kind_of_line == "csv":
            form = self._formats.get(tail.id)
            if form is None:
                form = self._csv(tail, last)
            piece = None if form is None else self.feed.csv(form, tail.rest, last)
        else:
            form = self._formats.setdefault(
                tail.id, self._reader.workers.ndjson(self._reader.target, self._skip)
            )
            piece = self.feed.ndjson(form, tail.rest, last)
        if piece is None:
            return False
        bad = [
            self._message(tail.path, tail.line + line, column, message) for line, column, message in piece.bad
        ]
        tail.consume(piece.consumed, piece.lines)
        if piece.bad_rows and not self._skip:
            raise SourceError(bad[0])
        if piece.bad_rows:
            self._reader.report.bad(piece.bad_rows, bad[0])
        if not piece.consumed and len(tail.rest) > MAX_RECORD_BYTES:
            raise SourceError(
                f"{tail.path}, line {tail.line}: a record of more than {MAX_RECORD_BYTES} bytes"
            )
        return piece.consumed > 0

    @property
    def _skip(self) -> bool:
        return self._reader.source.on_bad == "skip"

    @staticmethod
    def _message(path: str, line: int, column: str | None, message: str) -> str:
        where = f", column {column!r}" if column is not None else ""
        return f"{path}, line {line}{where}: {message}"

    def _csv(self, tail: Tail, last: bool) -> object | None:
        """How the file is read, by its first line; None while that isn't complete."""
        source, target, workers = self._reader.source, self._reader.target, self._reader.workers
        order = None
        if source.header is not False:
            first = workers.first_record(tail.rest, source.delimiter, last)
            if first is None:
                return None
            names, size = first
            if source.header or sorted(names) == sorted(target.columns):
                for column in target.columns:
                    if column not in names:
                        found = ", ".join(names)
                        raise SourceError(
                            f"{tail.path}, line 1: no column {column!r} in the header ({found})"
                        )
                order = ([names.index(column) for column in target.columns], len(names))
                tail.consume(size, tail.rest[:size].count(b"\n"))
        self._formats[tail.id] = workers.csv(target, source.delimiter, self._skip, order)
        return self._formats[tail.id]

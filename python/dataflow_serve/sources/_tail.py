"""One file that grows: what is new in it, whether it was truncated. Knows bytes and nothing of rows."""

from __future__ import annotations

import os
from typing import TypeAlias

__all__ = ["FileId", "Tail", "identify"]

FileId: TypeAlias = tuple[int, int]
"""Device and inode: a file keeps it when it is renamed."""

CHUNK_BYTES = 512 << 10
"""Bytes read at once, and about the size of a transaction."""
MEMORY_BYTES = 256
"""The end of what was read, to be compared before reading on."""


def identify(path: str) -> FileId | None:
    """The file that a path leads to now."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino)


class Tail:
    """An open file, read from its beginning. Positions are those of `rest`, the bytes not done with."""

    def __init__(self, path: str) -> None:
        """Open the file.

        Raises:
            OSError: it can't be opened.
        """
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._fd)
        self.id: FileId = (status.st_dev, status.st_ino)
        self.rest = b""
        self.offset = 0
        self.line = 1
        self._memory = b""

    @property
    def _read(self) -> int:
        return self.offset + len(self.rest)

    @property
    def lag_bytes(self) -> int:
        """Bytes of the file that aren't done with."""
        return max(os.fstat(self._fd).st_size - self.offset, 0)

    def truncated(self) -> bool:
        """Whether what was read is no longer what the file begins with; then it starts again from there."""
        shorter = os.fstat(self._fd).st_size < self._read
        memory = os.pread(self._fd, len(self._memory), self._read - len(self._memory))
        if not shorter and memory == self._memory:
            return False
        self.rest, self.offset, self.line, self._memory = b"", 0, 1, b""
        return True

    def read(self) -> bool:
        """Take in what is new, up to a chunk; whether there was anything."""
        data = os.pread(self._fd, CHUNK_BYTES, self._read)
        self._memory = (self._memory + data)[-MEMORY_BYTES:]
        self.rest += data
        return bool(data)

    def consume(self, count: int, lines: int) -> None:
        """Have done with the first bytes of `rest`, which hold so many ends of lines."""
        self.rest = self.rest[count:]
        self.offset += count
        self.line += lines

    def close(self) -> None:
        """Let go of the file. Twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

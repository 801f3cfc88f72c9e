"""What the terminal shows: a live table where there is a terminal, a line now and then where there isn't."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dataflow_serve.client import View

LINES = 12


@dataclass
class Feed:
    """A result relation as its subscriber has it, and how many changes arrived so far."""

    owner: int
    view: View
    steps: int = 0
    added: int = 0
    removed: int = 0


class Screen:
    """Shows the feeds while the replay runs; `refresh` as often as wanted."""

    def __init__(self, console: Console, total: int, feeds: Mapping[str, Feed]) -> None:
        """Prepare for `total` rows and the relations of `feeds`."""
        self._console = console
        self._feeds = feeds
        self._progress = Progress(
            TextColumn("{task.fields[day]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>9,.0f} rows/s"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("replay", total=total, day="2013-01-01", rate=0.0)
        self._total = total
        self._next_line = 0
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        """Start showing."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()

    def refresh(self, rows: int, day: str, rate: float) -> None:
        """Show where the replay is."""
        self._progress.update(self._task, completed=rows, day=day, rate=rate)
        if self._live is not None:
            self._live.update(Group(self._progress, self._tables()), refresh=True)
        elif rows >= self._next_line * self._total / LINES:
            self._next_line = int(rows * LINES / self._total) + 1
            sizes = ", ".join(
                f"{name} {len(list(feed.view))} (+{feed.added} -{feed.removed})"
                for name, feed in self._feeds.items()
            )
            self._console.print(f"{day}  {rows:>7,} rows  {rate:>9,.0f} rows/s   {sizes}", soft_wrap=True)

    def _tables(self) -> RenderableType:
        grid = Table.grid(padding=(0, 3))
        grid.add_row(self._punctuality(), self._capacity())
        return Group(grid, self._summary())

    def _punctuality(self) -> Table:
        table = Table("airline", "departures", "mean delay", title="punctuality", title_justify="left")
        rows = sorted(self._feeds["punctuality"].view, key=lambda row: -int(str(row[1])))
        for airline, flights, delay in rows[:LINES]:
            table.add_row(str(airline), f"{flights:,}", f"{delay:.2f} min")
        return table

    def _capacity(self) -> Table:
        table = Table("maker", "seats flown", title="capacity", title_justify="left")
        rows = sorted(self._feeds["capacity"].view, key=lambda row: -int(str(row[1])))
        for maker, seats in rows[:LINES]:
            table.add_row(str(maker), f"{seats:,}")
        return table

    def _summary(self) -> Table:
        table = Table("relation", "rows now", "steps", "rows added", "rows removed", "pushed by worker")
        for name, feed in self._feeds.items():
            table.add_row(
                name,
                f"{len(list(feed.view)):,}",
                f"{feed.steps:,}",
                f"{feed.added:,}",
                f"{feed.removed:,}",
                str(feed.owner),
            )
        return table

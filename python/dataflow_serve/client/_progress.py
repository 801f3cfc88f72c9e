"""A progress bar for loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dataflow_serve.client._load import LoadProgress

__all__ = ["showing_progress"]


@contextmanager
def showing_progress(title: str, *, shown: bool) -> Iterator[Callable[[LoadProgress], None]]:
    """Show a bar on standard error while a load runs; what is yielded moves it.

    Where the source's size is unknown the bar only says that something happens, and how many rows it was.
    """
    if not shown:
        yield lambda progress: None
        return
    # It takes a tenth of the time in which a program is run that loads little.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    parts = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*parts, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, rows=0)

        def show(progress: LoadProgress) -> None:
            if progress.fraction is not None:
                bar.update(task, total=1.0, completed=progress.fraction)
            bar.update(task, rows=progress.rows)

        yield show

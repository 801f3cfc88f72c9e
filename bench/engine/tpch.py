"""TPC-H's tables, as `tpchgen-cli` makes them, with all columns as numbers.

Money is in cents, shares are in hundredths, dates are days since 1992, names are numbers. Columns that no
query asks for are left out, those of programs (`programs/q*.dl`) stand in the order in which they are
declared there.
"""

import csv
import datetime
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

SEGMENTS = ("AUTOMOBILE", "BUILDING", "FURNITURE", "HOUSEHOLD", "MACHINERY")
START = datetime.date(1992, 1, 1)


def _hundredths(text: str) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole) * 100 + int(fraction.ljust(2, "0"))


def _day(text: str) -> int:
    return (datetime.date.fromisoformat(text) - START).days


Row = dict[str, str]
TABLES: dict[str, Callable[[Row], tuple[int, ...]]] = {
    "lineitem": lambda r: (
        int(r["l_orderkey"]),
        int(r["l_linenumber"]),
        int(r["l_partkey"]),
        int(r["l_suppkey"]),
        _hundredths(r["l_quantity"]) // 100,
        _hundredths(r["l_extendedprice"]),
        _hundredths(r["l_discount"]),
        _hundredths(r["l_tax"]),
        ord(r["l_returnflag"]),
        ord(r["l_linestatus"]),
        _day(r["l_shipdate"]),
    ),
    "orders": lambda r: (
        int(r["o_orderkey"]),
        int(r["o_custkey"]),
        _day(r["o_orderdate"]),
        int(r["o_orderdate"][:4]),
    ),
    "customer": lambda r: (int(r["c_custkey"]), SEGMENTS.index(r["c_mktsegment"]), int(r["c_nationkey"])),
    "supplier": lambda r: (int(r["s_suppkey"]), int(r["s_nationkey"])),
    "nation": lambda r: (int(r["n_nationkey"]), int(r["n_regionkey"])),
    "part": lambda r: (int(r["p_partkey"]), int("green" in r["p_name"])),
    "partsupp": lambda r: (int(r["ps_partkey"]), int(r["ps_suppkey"]), _hundredths(r["ps_supplycost"])),
}


def available() -> bool:
    """Whether the generator is installed."""
    return _command().is_file()


def _command() -> Path:
    return Path(sys.executable).with_name("tpchgen-cli")


def write_tables(directory: Path, scale: float) -> None:
    """Makes `<table>.facts`, unless they are there."""
    if (directory / "partsupp.facts").is_file():
        return
    directory.mkdir(exist_ok=True)
    made = directory / "csv"
    subprocess.run(
        [str(_command()), "csv", "--scale-factor", str(scale), "--output-dir", str(made)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for table, columns in TABLES.items():
        with (
            (made / f"{table}.csv").open(newline="") as source,
            (directory / f"{table}.facts").open("w") as facts,
        ):
            for row in csv.DictReader(source):
                facts.write("\t".join(map(str, columns(row))) + "\n")


def rows(directory: Path, table: str) -> Iterator[tuple[int, ...]]:
    """The rows of a table."""
    with (directory / f"{table}.facts").open() as facts:
        for line in facts:
            yield tuple(map(int, line.split("\t")))


@functools.cache
def distinct(directory: Path) -> dict[str, list[int]]:
    """For each table its number of rows, then how many values each column has."""
    found: dict[str, list[int]] = {}
    for table in TABLES:
        seen: list[set[int]] = []
        count = 0
        for row in rows(directory, table):
            count += 1
            seen = seen or [set() for _ in row]
            for values, value in zip(seen, row, strict=True):
                values.add(value)
        found[table] = [count, *map(len, seen)]
    return found

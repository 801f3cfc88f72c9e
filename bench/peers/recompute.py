"""Our step for a transaction against DuckDB computing the result again, for transactions of different sizes.

python bench/peers/recompute.py [--repeats 3] [--work counts triangles …] [--workers 2]

DuckDB's time is that of the query alone, into a table of its own, with the rows in memory and as many
threads; what it takes to apply the changes isn't counted. It doesn't depend on how many rows have changed.
Ours is the median of transactions half of whose changes take rows away and half put some back. Both must have
results of the same size.
"""

import argparse
import importlib.util
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "engine"))
import tpch
from run import Bench, build
from works import WORKS, input_columns

CHANGES = (1, 10, 100, 1_000, 10_000, 100_000)
QUERIES = {
    "counts": "SELECT key, count(*) FROM edge GROUP BY key",
    "triangles": "SELECT x.a, x.b, y.b AS c FROM edge x JOIN edge y ON y.a = x.b "
    "JOIN edge z ON z.a = x.a AND z.b = y.b",
    "closure": "WITH RECURSIVE path AS (SELECT a, b FROM edge "
    "UNION SELECT path.a, edge.b FROM path JOIN edge ON edge.a = path.b) SELECT * FROM path",
    "reach": "WITH RECURSIVE reached AS (SELECT a FROM root "
    "UNION SELECT edge.b FROM reached JOIN edge ON edge.a = reached.a) SELECT * FROM reached",
    "q1": "SELECT flag, status, sum(quantity), sum(price), sum(price * (100 - discount)), "
    "sum(price * (100 - discount) * (100 + tax)), sum(discount), count(*) "
    "FROM lineitem WHERE shipped <= 2436 GROUP BY flag, status",
    "q3": 'SELECT l."order", day, sum(price * (100 - discount)) FROM customer c '
    'JOIN orders o ON o.customer = c.customer JOIN lineitem l ON l."order" = o."order" '
    'WHERE segment = 1 AND day < 1169 AND shipped > 1169 GROUP BY l."order", day',
    "q5": "SELECT n.nation, sum(price * (100 - discount)) FROM nation n "
    "JOIN customer c ON c.nation = n.nation JOIN orders o ON o.customer = c.customer "
    'JOIN lineitem l ON l."order" = o."order" JOIN supplier s '
    "ON s.supplier = l.supplier AND s.nation = n.nation "
    "WHERE region = 2 AND year = 1994 GROUP BY n.nation",
    "q9": "SELECT nation, year, sum(price * (100 - discount) - 100 * cost * quantity) FROM part p "
    "JOIN lineitem l ON l.part = p.part JOIN partsupp x ON x.part = l.part AND x.supplier = l.supplier "
    'JOIN supplier s ON s.supplier = l.supplier JOIN orders o ON o."order" = l."order" '
    "WHERE green = 1 GROUP BY nation, year",
}


class Database:
    """DuckDB in memory, with a computation's tables."""

    def __init__(self, work: str, directory: Path, threads: int) -> None:
        """Loads `<relation>.facts`."""
        import duckdb

        self._connection = duckdb.connect(config={"threads": threads})
        self._query = QUERIES[work]
        self.rows = 0
        for relation, columns in input_columns(work).items():
            typed = ", ".join(f"'{column}': 'BIGINT'" for column in columns)
            source = (
                f"read_csv('{directory / relation}.facts', delim='\t', header=false, columns={{{typed}}})"
            )
            self._connection.execute(f"CREATE TABLE {relation} AS SELECT * FROM {source}")
            self.rows += self._count(relation)

    def _count(self, table: str) -> int:
        found: Any = self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(found[0])

    def compute(self) -> tuple[float, int]:
        """Seconds of the query, and the rows of its result."""
        started = time.perf_counter()
        self._connection.execute(f"CREATE OR REPLACE TABLE result AS {self._query}")
        return time.perf_counter() - started, self._count("result")


def even(changes: list[int], ours_ms: list[float], theirs_ms: float) -> str:
    """Below how many changes a transaction ours is faster, between those that were measured."""
    if theirs_ms > ours_ms[-1]:
        return f"more than {changes[-1]:,}"
    if theirs_ms <= ours_ms[0]:
        return "none"
    above = next(place for place, taken in enumerate(ours_ms) if taken >= theirs_ms)
    (x0, x1), (y0, y1) = (map(math.log, pair[above - 1 : above + 1]) for pair in (changes, ours_ms))
    return f"{float(f'{math.exp(x0 + (math.log(theirs_ms) - y0) * (x1 - x0) / (y1 - y0)):.1g}'):,.0f}"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", nargs="+", choices=QUERIES, default=list(QUERIES))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if importlib.util.find_spec("duckdb") is None:
        raise SystemExit("not run: duckdb isn't installed (pip install duckdb)")
    works = [work for work in options.work if not WORKS[work].tpch or tpch.available()]
    print(f"| work | rows | DuckDB, ms | {' | '.join(f'ours, {size:,}' for size in CHANGES)} | even at |")
    print("|" + " --- |" * (4 + len(CHANGES)))
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(build(), Path(name))
        for work in works:
            plan = bench.engines(work)["ours"]
            facts = bench.facts(work)
            database = Database(work, facts, options.workers)
            first = next(iter(input_columns(work)))
            most = (facts / f"{first}.facts").read_bytes().count(b"\n")
            sizes = [size for size in CHANGES if size <= most // 2]
            theirs: list[float] = []
            ours: dict[int, list[float]] = {size: [] for size in sizes}
            results: set[int] = set()
            for _ in range(options.repeats):
                for _ in range(3):
                    taken, rows = database.compute()
                    theirs.append(taken * 1e3)
                    results.add(rows)
                for size, taken_by_ours in ours.items():
                    batches = max(6, min(100, 20_000 // size))
                    run = bench.run(plan, work, options.workers, size, batches)
                    taken_by_ours.append(run["change_p50_us"] / 1e3)
                    results.add(run["rows"])
            if len(results) != 1:
                raise SystemExit(f"{work}: results of different sizes: {sorted(results)}")
            medians = [statistics.median(taken) for taken in ours.values()]
            cells = [f"{taken:,.3g}" for taken in medians] + ["–"] * (len(CHANGES) - len(sizes))
            duck = statistics.median(theirs)
            point = even(sizes, medians, duck)
            print(f"| {work} | {database.rows:,} | {duck:,.1f} | {' | '.join(cells)} | {point} |", flush=True)
    for work in options.work:
        if work not in works:
            print(f"not run: {work}, for which tpchgen-cli isn't installed")


if __name__ == "__main__":
    main()

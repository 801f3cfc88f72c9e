"""Time and memory of loading against the size of the input, over two orders of magnitude.

python bench/engine/growth.py [--repeats 3] [--work reach triangles counts closure]

Prints a table, and draws `docs/growth-time.svg` and `docs/growth-memory.svg` if pygal is installed
(`pip install 'dataflow-serve[bench]'`), one and two workers in one picture. Medians of runs in turns.
"""

import argparse
import math
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from run import Bench, build
from works import ROOT, WORKS

SHARES = (0.01, 0.0316, 0.1, 0.316, 1.0)
WORK = ("reach", "triangles", "counts", "closure")
Points = dict[str, list[tuple[float, float]]]
"""For each line of a picture its points: rows, and seconds or MB."""


def powers_around(values: list[float]) -> list[float]:
    """The powers of ten from below the least value to above the greatest."""
    least, greatest = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10**power for power in range(least, greatest + 1)]


def draw(path: Path, title: str, unit: str, lines: Points) -> None:
    """Draws lines between points, both axes logarithmic; those of two workers are dashed."""
    import pygal
    from pygal.style import DefaultStyle

    # The two lines of a computation have one colour.
    colours = [colour for colour in DefaultStyle.colors[:6] for _ in range(2)]
    style = DefaultStyle(colors=tuple(colours), background="#ffffff", plot_background="#ffffff")
    chart = pygal.XY(
        title=title,
        x_title="rows, of the input (of the result for closure)",
        y_title=unit,
        logarithmic=True,
        style=style,
        truncate_legend=-1,
        truncate_label=-1,
        dots_size=3,
        width=1000,
        height=640,
        js=[],
    )
    every = [point for points in lines.values() for point in points]
    chart.x_labels = powers_around([rows for rows, _ in every])
    chart.y_labels = powers_around([taken for _, taken in every])
    for name, points in lines.items():
        dashes = {"dasharray": "6, 4"} if name.endswith("2 workers") else {}
        chart.add(name, points, stroke_style={"width": 2, **dashes})
    chart.value_formatter = chart.x_value_formatter = lambda value: (
        f"{value:,.0f}" if value >= 1 else f"{value:g}"
    )
    chart.render_to_file(str(path))


def rows_of(work: str, size: int, run: dict[str, Any]) -> int:
    """What a run is placed by: the size of the input where that counts its rows, else that of the result."""
    return run["rows"] if work == "closure" else size


def main() -> None:
    """Measures, prints, draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORK))
    options = parser.parse_args()
    seconds: Points = {}
    memory: Points = {}
    with tempfile.TemporaryDirectory() as directory:
        whole = Bench(build(), Path(directory))
        print(
            "| work | workers | rows | load, s | peak memory, MB | µs a row | bytes a row |\n|" + " --- |" * 7
        )
        for work in options.work:
            # Pairs grow with the square of the nodes.
            shares = [share**0.5 for share in SHARES] if work == "closure" else SHARES
            for share in shares:
                bench = replace(whole, scale=whole.scale * share)
                plan = bench.engines(work)["ours"]
                runs: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
                for _ in range(options.repeats):
                    for workers, found in runs.items():
                        found.append(bench.run(plan, work, workers, batches=0))
                for workers, found in runs.items():
                    rows = rows_of(work, bench.size(work), found[0])
                    load = statistics.median(run["load_s"] for run in found)
                    peak = statistics.median(run["peak_mb"] for run in found)
                    name = f"{work}, {workers} worker{'s' * (workers > 1)}"
                    seconds.setdefault(name, []).append((rows, load))
                    memory.setdefault(name, []).append((rows, peak))
                    per_row = f"{load * 1e6 / rows:.2f} | {peak * (1 << 20) / rows:,.0f}"
                    print(
                        f"| {work} | {workers} | {rows:,} | {load:.3f} | {peak:,.0f} | {per_row} |",
                        flush=True,
                    )
    try:
        draw(ROOT / "docs" / "growth-time.svg", "Time to load", "seconds", seconds)
        draw(ROOT / "docs" / "growth-memory.svg", "Peak memory", "MB", memory)
    except ImportError:
        print("\nNot drawn: pygal isn't installed (pip install 'dataflow-serve[bench]').")


if __name__ == "__main__":
    main()

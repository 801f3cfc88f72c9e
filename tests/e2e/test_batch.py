"""`dataflow run` against a server: the same program over the same rows gives the same result."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dataflow_serve.errors import IncorrectError
from dataflow_serve.run._batch import run_program
from dataflow_serve.server import AttendedServer
from dataflow_serve.values import Branch

from .cluster import Cluster
from .programs import PROGRAMS
from .wire import Contents, spelled, understood
from .world import World

DATAFLOW = Path(sysconfig.get_path("scripts")) / "dataflow"
RECORDS = frozenset({"Pair", "List", "Tree", "Span", "Known"})
PARSERS: dict[str, Any] = {
    "number": int,
    "unsigned": int,
    "float": float,
    "symbol": str,
    "bool": {"true": True, "false": False}.__getitem__,
    "instant": lambda text: understood(text, "instant", "ndjson"),
    "uuid": lambda text: understood(text, "uuid", "ndjson"),
    "bytes": lambda text: understood(text, "bytes", "ndjson"),
    # Records are compared as they are written.
    **dict.fromkeys(RECORDS, str),
}


def test_a_run_takes_as_many_iterations_as_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A server has these limits unless it is told otherwise.
    defaults = {"query_iterations": 10, "query_lag_millis": 1}

    def strict(workers: int, **tunables: int) -> AttendedServer:
        return AttendedServer(workers, **{**defaults, **tunables})

    monkeypatch.setattr("dataflow_serve.server.AttendedServer", strict)
    program = tmp_path / "program.dl"
    program.write_text(".decl n(x: number)\nn(0).\nn(x + 1) :- n(x), x < 5000.\n.printsize n\n.output n\n")
    run_program(program, output=tmp_path)
    assert len((tmp_path / "n.csv").read_text().splitlines()) == 5001


@pytest.mark.parametrize("slot", [(1, 1), (1, 2)], indirect=True, ids=["1x1", "1x2"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_batch_run_equals_the_server(world: World, rng: random.Random, tmp_path: Path, name: str) -> None:
    world.register(PROGRAMS[name], name)
    world.transact_random(rng, 30)
    facts, results = tmp_path / "facts", tmp_path / "results"
    facts.mkdir()
    results.mkdir()
    for relation, rows in world.model.inputs.items():
        lines = ("\t".join(map(written, row)) for row in rows.rows.elements())
        (facts / f"{relation}.facts").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    program = tmp_path / "program.dl"
    program.write_text(PROGRAMS[name])
    workers = str(world.cluster.size)
    run("run", str(program), "-F", str(facts), "-D", str(results), "-w", workers)
    outputs = re.findall(r"\.output ([\w.]+)", PROGRAMS[name])
    assert sorted(each.name for each in results.iterdir()) == sorted(f"{output}.csv" for output in outputs)
    for output in outputs:
        reply = world.clients[0].call("read", relation=output)
        types = [column["type"] for column in reply["columns"]]
        expected = Counter(world.clients[0].row(row, reply) for row in reply["rows"])
        shown = Counter(
            tuple(written(each) if kind in RECORDS else each for kind, each in zip(types, row, strict=True))
            for row in expected.elements()
        )
        assert read_csv(results / f"{output}.csv", types) == shown


def test_an_error_in_the_program_is_shown_with_its_place(tmp_path: Path) -> None:
    program = tmp_path / "program.dl"
    program.write_text(".decl q(x: number)\nq(y) :- r(x).\n")
    done = subprocess.run(
        [sys.executable, DATAFLOW, "run", str(program), "-D", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "2" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_recursion_that_rows_are_to_end_ends(tmp_path: Path) -> None:
    program = tmp_path / "program.dl"
    (tmp_path / "last.facts").write_text("5\n")
    program.write_text(
        ".decl last(x: number)\n.input last\n.decl n(x: number)\n.output n\nn(0).\n"
        "n(x + 1) :- n(x), !last(x).\n"
    )
    run("run", str(program), "-F", str(tmp_path), "-D", str(tmp_path))
    assert (tmp_path / "n.csv").read_text() == "0\n1\n2\n3\n4\n5\n"


def test_a_file_that_no_result_depends_on_need_not_be_there(tmp_path: Path) -> None:
    program = tmp_path / "program.dl"
    (tmp_path / "a.facts").write_text("5\n")
    text = (
        ".decl a(x: number)\n.input a\n.decl b(x: number)\n.input b\n"
        ".decl seen(x: number)\nseen(x) :- b(x).\n"
        ".decl r(x: number)\nr(x) :- a(x), !q(x).\n.output r\n.decl q(x: number)\n"
    )
    program.write_text(text)
    run("run", str(program), "-F", str(tmp_path), "-D", str(tmp_path))
    assert (tmp_path / "r.csv").read_text() == "5\n"
    for reason in ("q(n) :- n = count : { seen(_) }.", "r(x) <= r(y) :- b(x), y > x.", ".printsize seen"):
        program.write_text(text + reason + "\n")
        with pytest.raises(IncorrectError, match="cannot load b: there is no file"):
            run_program(program, facts=tmp_path, output=tmp_path)


def test_now_stands_still_in_a_run(tmp_path: Path) -> None:
    program = tmp_path / "program.dl"
    (tmp_path / "seen.facts").write_text("".join(f"{h}\t2026-11-25T{h:02}:00:00Z\n" for h in range(9, 15)))
    program.write_text(
        ".decl seen(hour: number, at: instant)\n.input seen\n.decl recent(hour: number)\n.output recent\n"
        "recent(h) :- seen(h, t), now(n), t <= n, n - t < 2 * 3600 * 1000000.\n"
    )
    arguments = ("run", str(program), "-F", str(tmp_path), "-D", str(tmp_path))
    run(*arguments, "--now=2026-11-25T12:30:00+00:00")
    assert (tmp_path / "recent.csv").read_text() == "11\n12\n"


def test_rows_may_come_from_standard_input_and_go_to_standard_output(tmp_path: Path) -> None:
    program = tmp_path / "program.dl"
    (tmp_path / "rule.dl").write_text("big(x) :- n(x), x > LEAST.\n")
    program.write_text(
        "#define LEAST 3\n.decl n(x: number)\n.input n(IO=stdin)\n.decl big(x: number)\n"
        '.include "rule.dl"\n.output big(IO=stdout)\n'
    )
    done = subprocess.run(
        [sys.executable, DATAFLOW, "run", str(program)],
        input="1\n7\n5\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "---------------\nbig\n===============\n5\n7\n===============\n", done.stderr


RESULTS = """
.type Pair = [a: number, s: symbol]
.type Tree = Leaf {x: float} | Node {l: Tree, r: Tree}
.decl n(x: number)
.input n
.decl pair(p: Pair, s: symbol)
.output pair(rfc4180=true, headers=true)
pair([x, cat("a, ", to_string(x))], cat("long enough for a word: ", to_string(x))) :- n(x).
.decl tree(t: Tree, f: float)
.output tree(delimiter=";")
tree($Node($Leaf(to_float(x) / 10.0), $Leaf(1.0)), to_float(x) / 10.0) :- n(x).
.decl any()
.output any
any() :- n(_).
.printsize n
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_results_of_all_kinds_are_written(workers: int, tmp_path: Path) -> None:
    program, output = tmp_path / "program.dl", tmp_path / "output"
    output.mkdir()
    program.write_text(RESULTS)
    (tmp_path / "n.facts").write_text("10\n-1\n2\n")
    printed = run("run", str(program), "-F", str(tmp_path), "-D", str(output), "-w", str(workers))
    assert printed == "n\t3\n"
    assert {file.name: file.read_text() for file in output.iterdir()} == {
        "pair.csv": 'p,s\n"[-1, ""a, -1""]","long enough for a word: -1"\n'
        '"[2, ""a, 2""]","long enough for a word: 2"\n"[10, ""a, 10""]","long enough for a word: 10"\n',
        "tree.csv": "$Node($Leaf(-0.10000000000000001), $Leaf(1));-0.10000000000000001\n"
        "$Node($Leaf(0.20000000000000001), $Leaf(1));0.20000000000000001\n$Node($Leaf(1), $Leaf(1));1\n",
        "any.csv": "()\n",
    }


def test_a_result_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    program = tmp_path / "program.dl"
    program.write_text(".decl n(x: number)\n.output n\nn(1).\n")
    done = subprocess.run(
        [sys.executable, DATAFLOW, "run", str(program), "-D", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    message = f"dataflow: cannot write {tmp_path}/none/n.csv: no such file or directory\n"
    assert (done.returncode, done.stderr) == (1, message)


def test_the_commands_of_a_running_server(cluster: Cluster, tmp_path: Path) -> None:
    client = cluster.open()
    client.register(".decl likes(who: symbol, what: symbol)\n.input likes", "likes")
    host, port = cluster.addresses[-1]
    url = f"df://{host}:{port}"
    rows = tmp_path / "likes.csv"
    rows.write_text("ann,tea\nbob,jam\n")
    run("load", str(rows), "--into", "likes", url=url)
    assert client.read("likes") == {("ann", "tea"): 1, ("bob", "jam"): 1}
    shown = run("read", "likes", url=url)
    assert "ann" in shown and "jam" in shown
    assert "likes" in run("status", url=url)


def run(*arguments: str, url: str | None = None) -> str:
    """Run `dataflow`, which must succeed, and give what it printed."""
    options = [] if url is None else ["--url", url]
    done = subprocess.run(
        [sys.executable, DATAFLOW, arguments[0], *options, *arguments[1:]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def written(value: Any) -> str:
    """A value as a facts file has it."""
    match value:
        case bool():
            return str(value).lower()
        case None:
            return "nil"
        case tuple():
            return f"[{', '.join(map(written, value))}]"
        case Branch(name, values) if values:
            return f"${name}({', '.join(map(written, values))})"
        case Branch(name):
            return f"${name}"
    return str(spelled(value, "ndjson"))


def read_csv(path: Path, types: list[str]) -> Contents:
    """The rows of a result file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if not types:
        return Counter(() for _ in lines)
    return Counter(
        tuple(PARSERS[kind](field) for kind, field in zip(types, line.split("\t"), strict=True))
        for line in lines
    )

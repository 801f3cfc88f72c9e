"""Batch runs: directives name files, rows go where they are to, errors name their place."""

import gzip
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dataflow_serve.client import FileSource
from dataflow_serve.errors import DataflowError, IncorrectError, UnsupportedError
from dataflow_serve.language import check, parse
from dataflow_serve.protocol import Column, Module, RelationInfo, Row
from dataflow_serve.run import run_program
from dataflow_serve.run._batch import run_on
from dataflow_serve.run._directives import FileFormat, Input, Output, Plan, PrintSize, plan_of
from dataflow_serve.run._output import RowCount, print_rows, write_file
from dataflow_serve.run._source import SourceText, read_source
from dataflow_serve.run._staging import Staging, stage

EDGE = (Column("x", "symbol"), Column("y", "symbol"))
PROGRAM = """
.decl edge(x: symbol, y: symbol)
.input edge
.decl path(x: symbol, y: symbol)
path(x, y) :- edge(x, y).
.output path
.printsize path
"""


def plan(directives: str, facts: str = "in", output: str | None = "out") -> Plan:
    text = ".decl r(x: symbol)\n" + directives
    return plan_of(parse(text).directives, Path(facts), None if output is None else Path(output))


def test_files_are_named_after_relations() -> None:
    assert plan(".input r\n.output r\n.printsize r") == Plan(
        (Input("r", Path("in/r.facts"), FileFormat()),),
        (Output("r", Path("out/r.csv"), FileFormat()), PrintSize("r")),
    )


def test_parameters_say_otherwise() -> None:
    chosen = plan(
        '.input r(IO=file, filename="a.csv", rfc4180=true, headers=true)\n'
        '.output r(filename="/tmp/b.txt", delimiter="\\t\\t")'
    )
    assert chosen.inputs == (Input("r", Path("in/a.csv"), FileFormat(",", quoted=True, headers=True)),)
    assert chosen.results == (Output("r", Path("/tmp/b.txt"), FileFormat("\t\t")),)


def test_results_may_be_compressed(tmp_path: Path) -> None:
    (result,) = plan(".output r(compress=true)").results
    assert result == Output("r", Path("out/r.csv.gz"), FileFormat(compressed=True))
    for path in (tmp_path / "a.csv.gz", tmp_path / "b.csv.gz"):
        write_file(path, table(("b", "c"), ("a", "d")), FileFormat(",", compressed=True))
        assert gzip.decompress(path.read_bytes()) == b"a,d\nb,c\n"
    assert path.read_bytes() == (tmp_path / "a.csv.gz").read_bytes()


def test_an_input_may_come_from_standard_input() -> None:
    assert plan(".input r(IO=stdin)").inputs == (Input("r", Path("/dev/stdin"), FileFormat()),)


def test_outputs_may_go_to_standard_output() -> None:
    assert plan(".output r(IO=stdout)").results == (Output("r", None, FileFormat()),)
    assert plan(".output r", output=None).results == (Output("r", None, FileFormat(headers=True)),)
    assert plan(".output r(headers=false)", output=None).results == (Output("r", None, FileFormat()),)


@pytest.mark.parametrize(
    ("directive", "kind", "message"),
    [
        (".input r(IO=sqlite)", UnsupportedError, r"IO=sqlite in \.input r \(line 2, column"),
        (".input r(IO=stdin)\n.input r(IO=stdin)", IncorrectError, r"IO=stdin in \.input r, too"),
        (".output r(IO=stdin)", UnsupportedError, r"IO=stdin in \.output r"),
        (".output r(append=true)", UnsupportedError, r"the parameter append of \.output r"),
        (".output r(heders=true)", UnsupportedError, r"the parameter heders .*did you mean \"headers\""),
        (".output r(IO=jsonfile)", UnsupportedError, r"IO=jsonfile .*a batch run knows file and stdout here"),
        (".input r(IO=fiel)", UnsupportedError, r"IO=fiel .*did you mean \"file\""),
        ('.input r(columns="1")', UnsupportedError, r"the parameter columns of \.input r"),
        (".input r(headers=yes)", IncorrectError, r"headers=yes in \.input r is neither true nor false"),
        ('.input r(rfc4180=true, delimiter="ab")', IncorrectError, r"the delimiter 'ab' of \.input r"),
        ('.output r(delimiter="")', IncorrectError, r"the delimiter '' of \.output r"),
    ],
)
def test_what_a_run_cannot_honour_is_refused(directive: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        plan(directive)


class Lines:
    """A table that writes what Python would: sorted rows, joined."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._rows: list[list[Any]] = []

    def add(self, changes: bytes) -> None:
        self._rows += [row for row, copies in msgspec.msgpack.decode(changes) for _ in range(copies)]

    def __len__(self) -> int:
        return len(self._rows)

    def header(self, delimiter: str, quoted: bool) -> bytes:
        names = [f'"{column.name}"' if quoted else column.name for column in self._columns]
        return (delimiter.join(names) + "\n").encode()

    def lines(self, delimiter: str, quoted: bool) -> bytes:
        """One line at a time."""
        if not self._rows:
            return b""
        self._rows.sort(reverse=True)
        return (delimiter.join(map(str, self._rows.pop())) + "\n").encode()


def table(*rows: Row) -> Lines:
    made = Lines(EDGE)
    made.add(msgspec.msgpack.encode([(row, 1) for row in rows]))
    return made


def test_a_file_has_all_pieces_and_a_header_where_it_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    write_file(path, table(("b", "ü"), ("a", "\r\n")), FileFormat(","))
    assert path.read_bytes() == "a,\r\n\nb,ü\n".encode()
    write_file(path, table(("b", "c")), FileFormat(",", quoted=True, headers=True))
    assert path.read_bytes() == b'"x","y"\nb,c\n'
    write_file(path, table(), FileFormat(","))
    assert path.read_bytes() == b""


def test_rows_are_counted_without_being_kept() -> None:
    count = RowCount()
    count.add(msgspec.msgpack.encode([(("a", [1, {"$b": []}]), 2), (("b", None), 1), (("c", None), 0)]))
    count.add(msgspec.msgpack.encode([((), 3), ((), -1)]))
    assert len(count) == 6
    with pytest.raises(ValueError, match="Expected `int`"):
        count.add(msgspec.msgpack.encode([((), "3")]))


def test_standard_output_has_the_header_before_the_rows() -> None:
    printed = io.StringIO()
    print_rows(printed, "r", table(("b", "ü"), ("a", "c")), FileFormat("::", headers=True))
    bar = "==============="
    assert printed.getvalue() == f"---------------\nr\nx::y\n{bar}\na::c\nb::ü\n{bar}\n"


def test_a_file_that_cannot_take_all_rows_is_named() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with pytest.raises(IncorrectError, match="cannot write /dev/full: no space left on device"):
        write_file(Path("/dev/full"), table(("a", "b")), FileFormat())


class Recorder:
    """A server that is a few dictionaries."""

    def __init__(self, module: Module, contents: dict[str, list[Row]]) -> None:
        self._module = module
        self._contents = contents
        self.loaded: dict[str, str] = {}
        self.asked: list[str] = []

    def register(self, program: str) -> Module:
        self.asked.append(f"register {program}")
        return self._module

    def load(self, source: FileSource, into: str, **options: Any) -> None:
        # Rows are the extension's.
        self.loaded[into] = source._path.read_text()
        self.asked.append(f"load {into}")

    def fetch_undecoded(self, relation: str, take: Callable[[bytes], object]) -> None:
        for row in self._contents[relation]:
            take(msgspec.msgpack.encode([(row, 1)]))


MODULE = Module("m", (RelationInfo("edge", "input", EDGE), RelationInfo("path", "derived", EDGE)), 3)


def test_a_run_loads_computes_and_writes(tmp_path: Path) -> None:
    (tmp_path / "edge.facts").write_text("b\tc\na\tb\n")
    db = Recorder(MODULE, {"path": [("b", "c"), ("a", "b")]})
    source = SourceText(PROGRAM, ())
    printed = io.StringIO()
    run_on(db, source, plan_of(parse(PROGRAM).directives, tmp_path, tmp_path), Lines, stdout=printed)
    assert db.loaded == {"edge": "b\tc\na\tb\n"}
    assert (tmp_path / "path.csv").read_text() == "a\tb\nb\tc\n"
    assert printed.getvalue() == "path\t2\n"


def test_inputs_come_before_the_rules(tmp_path: Path) -> None:
    (tmp_path / "edge.facts").write_text("a\tb\n")
    db = Recorder(MODULE, {"path": [("a", "b")]})
    staging = stage(check(parse(PROGRAM)))
    assert staging == Staging(".decl edge(x: symbol, y: symbol)\n.input edge", whole=True)
    chosen = plan_of(parse(PROGRAM).directives, tmp_path, tmp_path)
    run_on(db, SourceText(PROGRAM, ()), chosen, Lines, staging=staging, stdout=io.StringIO())
    frozen = f'{PROGRAM}\n.pragma "frozen"'
    assert db.asked == [f"register {staging.inputs}", "load edge", f"register {frozen}"]


def test_only_inputs_that_are_nothing_more_come_first() -> None:
    program = """
        .type Id <: number
        .decl a(k: Id, v: symbol) upsert(k)
        .decl b(x: number) raw
        .decl c(x: number, y: number) eqrel
        .decl d(x: number)
        .decl e(x: number)
        .comp C { .decl f(x: number) .input f }
        .init i = C
        .input a, b, c, d, e
        d(1). e(x) :- d(x).
    """
    staging = stage(check(parse(program)))
    assert staging.inputs.split("\n") == [
        ".decl a(k: number, v: symbol) upsert(k)",
        ".input a",
        ".decl b(x: number) raw",
        ".input b",
    ]
    assert not staging.whole
    assert stage(check(parse(".decl d(x: number) d(1)."))) == Staging(whole=True)


@pytest.mark.parametrize(
    "program",
    [
        ".decl a(x: number, y: number) eqrel .input a",
        ".decl a(x: number) .input a a(1).",
        ".decl a(t: instant) a(t) :- now(t).",
    ],
)
def test_rules_are_frozen_only_if_all_is_there_before_them(program: str) -> None:
    assert not stage(check(parse(program))).whole


def test_standard_output_says_whose_rows_follow(tmp_path: Path) -> None:
    (tmp_path / "edge.facts").write_text("")
    db = Recorder(MODULE, {"path": [("a", "b")]})
    printed = io.StringIO()
    chosen = plan_of(parse(PROGRAM).directives, tmp_path, None)
    run_on(db, SourceText(PROGRAM, ()), chosen, Lines, stdout=printed)
    assert (
        printed.getvalue() == "---------------\npath\nx\ty\n===============\na\tb\n===============\npath\t1\n"
    )


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "edge.facts").write_text("")
    db = Recorder(MODULE, {"path": []})
    chosen = plan_of(parse(PROGRAM).directives, tmp_path, tmp_path / "missing")
    with pytest.raises(IncorrectError, match=r"cannot write .*missing/path\.csv: no such file or directory"):
        run_on(db, SourceText(PROGRAM, ()), chosen, Lines)


def test_a_missing_facts_file_is_named_before_any_server_starts(tmp_path: Path) -> None:
    program = tmp_path / "p.dl"
    program.write_text(PROGRAM)
    with pytest.raises(IncorrectError, match=r"cannot load edge: there is no file .*edge\.facts"):
        run_program(program, facts=tmp_path)


def test_a_time_that_is_none_is_refused_before_any_server_starts(tmp_path: Path) -> None:
    program = tmp_path / "p.dl"
    program.write_text(PROGRAM)
    with pytest.raises(IncorrectError, match="cannot run as of a time: 'noon' is no instant"):
        run_program(program, now="noon")


def test_the_inputs_of_an_instance_are_files_under_its_name(tmp_path: Path) -> None:
    program = tmp_path / "p.dl"
    program.write_text(".comp C { .decl edge(x: symbol)\n.input edge }\n.init c = C\n")
    with pytest.raises(IncorrectError, match=r"cannot load c\.edge: there is no file .*c\.edge\.facts"):
        run_program(program, facts=tmp_path)


def test_an_error_of_the_text_names_file_line_and_column(tmp_path: Path) -> None:
    program = tmp_path / "p.dl"
    program.write_text(".decl r(x: symbol)\nr(x) :- \n")
    with pytest.raises(DataflowError, match=r"p\.dl: .*\(line \d"):
        run_program(program)


def test_a_program_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(IncorrectError, match=r"cannot read .*p\.dl: no such file or directory"):
        run_program(tmp_path / "p.dl")
    (tmp_path / "p.dl").write_bytes(b"\xff")
    with pytest.raises(IncorrectError, match="not UTF-8"):
        run_program(tmp_path / "p.dl")


def test_inclusions_and_macros_are_expanded_and_lines_kept(tmp_path: Path) -> None:
    (tmp_path / "types.dl").write_text(".decl linux(x: symbol)\n\n.decl s(x: symbol)\n")
    program = tmp_path / "p.dl"
    program.write_text('#include "types.dl"\n#define GO(r) r(x) :- linux(x)\nGO(s).\n')
    source = read_source(program)
    lines = {
        line.strip(): origin for line, origin in zip(source.text.split("\n"), source.origins, strict=True)
    }
    assert "s(x) :- linux(x)." in lines
    assert lines["s(x) :- linux(x)."][1] == 3
    assert lines[".decl s(x: symbol)"] == (str(tmp_path / "types.dl"), 3)
    assert not any(line.startswith("#") for line in lines)


def test_an_error_of_an_included_file_names_it(tmp_path: Path) -> None:
    (tmp_path / "types.dl").write_text("\n.decl s(x symbol)\n")
    program = tmp_path / "p.dl"
    program.write_text('#include "types.dl"\n')
    with pytest.raises(DataflowError, match=r"types\.dl: .*\(line 2,"):
        run_program(program)


def test_an_inclusion_of_nothing_is_an_error(tmp_path: Path) -> None:
    program = tmp_path / "p.dl"
    program.write_text('#include "nothing.dl"\n')
    with pytest.raises(IncorrectError, match=r"p\.dl: cannot include nothing\.dl \(line 1, column 1\)"):
        run_program(program)


def test_macros_with_arguments_and_conditions(tmp_path: Path) -> None:
    program = tmp_path / "p.dl"
    program.write_text(
        "#define RULE(head, body) head(x) :- body(x)\n#ifdef NOTHING\nno(1).\n#else\nRULE(a, b).\n#endif\n"
        '#if RAM_DOMAIN_SIZE == 64\nwide().\n#endif\nat(__LINE__, "__LINE__ in a text"). // __LINE__\n'
    )
    source = read_source(program)
    kept = [(line, origin[1]) for line, origin in zip(source.text.split("\n"), source.origins, strict=True)]
    assert [entry for entry in kept if entry[0]] == [
        ("a(x) :- b(x).", 5),
        ("wide().", 8),
        ('at(10, "__LINE__ in a text"). // __LINE__', 10),
    ]


def test_souffles_own_inclusions_may_stand_anywhere_and_once_is_once(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.dl").write_text('.once\n.decl a()\n.include "b.dl"\n')
    (tmp_path / "part" / "b.dl").write_text('.decl b()\n.include "a.dl"\n')
    program = tmp_path / "p.dl"
    program.write_text('.include "part/a.dl"\n .include "part/a.dl"\n.decl c()')
    assert [line for line in read_source(program).text.split("\n") if line] == [
        ".decl a()",
        ".decl b()",
        ".decl c()",
    ]


def test_files_and_macros_may_come_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.dl").write_text("a(LEAST, FLAG).\n")
    program = tmp_path / "p.dl"
    program.write_text('.include "a.dl"\n')
    source = read_source(program, [tmp_path / "lib"], ["LEAST=3", "FLAG"])
    assert [line for line in source.text.split("\n") if line.strip()] == ["a(3, 1)."]
    program.write_text("b(LEAST).\n")
    assert read_source(program, (), ["LEAST=4"]).text.strip() == "b(4)."


def test_a_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "p.dl"
    program.write_text('.include "p.dl"\n')
    with pytest.raises(UnsupportedError, match=r"cannot include .*p\.dl: more than"):
        read_source(program)


def test_an_error_that_a_program_declares_is_one(tmp_path: Path) -> None:
    program = tmp_path / "p.dl"
    program.write_text("\n#ifndef SOMETHING\n#error no something\n#endif\n")
    with pytest.raises(IncorrectError, match=r"p\.dl: cannot preprocess this line: .*no something"):
        read_source(program)


def test_programs_without_directives_for_it_are_left_alone(tmp_path: Path) -> None:
    program = tmp_path / "p.dl"
    program.write_text('.decl r(x: symbol)\nr("#define").\n')
    assert read_source(program).text == program.read_text()

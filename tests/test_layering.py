"""The arrows between the rooms: who may know of whom, in Cargo's manifests and in Python's imports."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "dataflow_serve"

CRATES = {
    "protocol": set(),
    "facts": {"protocol"},
    "net": {"protocol"},
    "engine": {"protocol"},
    "worker": {"engine", "net", "protocol"},
    "py": {"worker", "facts", "protocol"},
}
ONLY_IN = {
    "pyo3": {"py"},
    "mio": {"net"},
    "tungstenite": {"net"},
    "rustls": {"net"},
    "timely": {"engine", "worker"},
    "differential-dataflow": {"engine"},
}
"""What a library is wrapped by."""

ROOMS = {
    "errors": set(),
    "values": set(),
    "protocol": {"errors", "values"},
    "dsl": {"errors", "values"},
    "client": {"dsl", "errors", "protocol", "values"},
    "language": {"errors", "values"},
    "planner": {"errors", "language"},
    "sources": {"errors"},
    "server": {"client", "errors", "language", "planner", "protocol", "sources"},
    "run": {"client", "errors", "language", "planner", "protocol", "server", "values"},
    "cli": {"client", "errors", "protocol", "run", "server"},
}


def dependencies(crate: str) -> set[str]:
    """Everything that a crate depends on outside its tests."""
    manifest = tomllib.loads((ROOT / "rust" / crate / "Cargo.toml").read_text(encoding="utf-8"))
    return set(manifest["dependencies"])


def test_every_crate_and_room_has_its_place_here() -> None:
    assert {each.parent.name for each in (ROOT / "rust").glob("*/Cargo.toml")} == set(CRATES)
    rooms = {
        each.stem
        for each in PACKAGE.iterdir()
        if each.suffix != ".so" and not each.name.startswith(("_", "py."))
    }
    assert rooms == set(ROOMS)


@pytest.mark.parametrize("crate", CRATES)
def test_crates_depend_downwards(crate: str) -> None:
    used = {each.removeprefix("dataflow-") for each in dependencies(crate) if each.startswith("dataflow-")}
    assert used <= CRATES[crate]


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_known_to_its_wrapper_only(library: str) -> None:
    assert {crate for crate in CRATES if library in dependencies(crate)} <= ONLY_IN[library]


def imports(path: Path) -> Iterator[str]:
    """Rooms that a module imports, wherever in it; `_core` counts as one, and `_lazy` as none."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{each.name}" for each in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "dataflow_serve" and len(parts) > 1 and parts[1] != "_lazy":
                yield parts[1]


def modules(room: str) -> list[Path]:
    """The source files of a room."""
    return sorted((PACKAGE / room).glob("*.py")) or [PACKAGE / f"{room}.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_downwards(room: str) -> None:
    # What the package itself exports comes from the rooms at the top; only those above them may use it.
    exported = {"serve", "connect", "open_client"} if room in ("run", "cli") else set()
    for path in modules(room):
        foreign = {each for each in imports(path) if each not in (room, "_core")}
        assert foreign <= ROOMS[room] | exported, path


def test_the_extension_has_two_importers() -> None:
    importers = {path for path in PACKAGE.rglob("*.py") if "_core" in imports(path)}
    assert importers == {PACKAGE / "client" / "_text_files.py", PACKAGE / "server" / "_cluster.py"}


def test_a_batch_run_imports_neither_trio_nor_what_few_runs_need() -> None:
    needless = {"trio", "ssl", "rich", "pcpp", "gzip", "difflib", "importlib.metadata", "dataflow_serve.dsl"}
    program = (
        "import sys, dataflow_serve.cli\n"
        "from dataflow_serve.run import run_program\n"
        "from dataflow_serve.server import AttendedServer, new_table\n"
        "print(*sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    )
    assert sorted(needless & set(ran.stdout.split())) == []


@pytest.mark.parametrize("room", ["errors", "protocol", "client", "dsl", "language", "planner"])
def test_clients_and_compilers_do_without_the_extension(room: str) -> None:
    program = f"import sys; sys.modules['dataflow_serve._core'] = None; import dataflow_serve.{room}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("room", ["dsl", "language", "planner", "errors", "protocol", "values"])
def test_rooms_without_input_and_output_stay_so(room: str) -> None:
    banned = {"trio", "socket", "threading", "asyncio", "subprocess", "select"}
    for path in modules(room):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in names} & banned, path

"""The runner of the slow suites: what did not run is said, never counted as passed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.torture import run as torture

ROOT = Path(__file__).parents[2]


def suite(directory: Path, name: str, text: str) -> None:
    directory.joinpath(f"{name}.toml").write_text(f'proves = "something"\nminutes = 1\n{text}')


def outcomes(directory: Path) -> dict[str, torture.Outcome]:
    return {each.name: torture.run(each, directory) for each in torture.load(directory)}


def test_each_verdict_has_its_reason(tmp_path: Path) -> None:
    suite(tmp_path, "good", 'command = "true"')
    suite(tmp_path, "bad", 'command = "exit 3"')
    suite(tmp_path, "lacking", 'command = "true"\nneeds = ["no-such-tool-anywhere", "bash"]')
    suite(tmp_path, "unable", 'command = "echo no namespaces here; exit 77"')
    found = outcomes(tmp_path)
    assert {name: (each.verdict, each.remarks) for name, each in found.items()} == {
        "good": ("passed", ()),
        "bad": ("failed", ("exit code 3",)),
        "lacking": ("not run", ("no-such-tool-anywhere not installed",)),
        "unable": ("not run", ("no namespaces here",)),
    }
    text = torture.summary(found.values())
    assert "1 passed, 1 failed, 2 not run" in text
    assert "no-such-tool-anywhere not installed" in text


def test_skipped_tests_are_listed_and_a_suite_of_nothing_else_did_not_run(tmp_path: Path) -> None:
    half = "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no moon')\n"
    tmp_path.joinpath("test_half.py").write_text(half)
    tmp_path.joinpath("test_none.py").write_text(half.replace("pass", "pytest.skip('no sun')"))
    tmp_path.joinpath("test_wrong.py").write_text("def test_a(): assert False\n")
    for name in ("half", "none", "wrong"):
        suite(tmp_path, name, f'pytest = "-q -p no:cacheprovider test_{name}.py"')
    found = outcomes(tmp_path)
    assert found["half"].verdict == "passed"
    assert found["half"].remarks == ("without test_b: no moon",)
    assert found["none"].verdict == "not run"
    assert found["none"].remarks == ("test_a: no sun", "test_b: no moon")
    assert found["wrong"].verdict == "failed"


def test_a_suite_that_takes_far_too_long_is_stopped(tmp_path: Path) -> None:
    tmp_path.joinpath("hang.toml").write_text(
        'proves = "nothing"\nminutes = 0.0001\ncommand = "tail -f /dev/null"'
    )
    (found,) = outcomes(tmp_path).values()
    assert found.verdict == "failed"
    assert found.remarks[0].startswith("stopped after")


def test_what_a_suite_leaves_running_is_ended(tmp_path: Path) -> None:
    # The output of a suite ends when nobody holds it any more, which is what the runner waits for.
    suite(tmp_path, "untidy", 'command = "tail -f /dev/null &"')
    assert outcomes(tmp_path)["untidy"].verdict == "passed"


def test_the_environment_outside_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite(tmp_path, "a", "command = 'test \"$TORTURE_A\" = inside'\nenvironment = { TORTURE_A = 'inside' }")
    assert outcomes(tmp_path)["a"].verdict == "passed"
    monkeypatch.setenv("TORTURE_A", "outside")
    assert outcomes(tmp_path)["a"].verdict == "failed"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('proves = "x"\nminutes = 1', "either"),
        ('proves = "x"\nminutes = 1\npytest = "a"\ncommand = "b"', "either"),
        ('minutes = 1\npytest = "a"', "proves"),
        ('proves = "x"\nminutes = 1\npytest = "a"\nneed = ["x"]', "need"),
    ],
)
def test_a_file_that_describes_no_suite_is_refused(tmp_path: Path, text: str, named: str) -> None:
    tmp_path.joinpath("odd.toml").write_text(text)
    with pytest.raises(ValueError, match=rf"odd\.toml.*{named}"):
        torture.load(tmp_path)


def test_the_readme_has_every_suite() -> None:
    told = re.findall(r"^\| `([\w-]+)` \|", torture.HERE.joinpath("README.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(each.name for each in torture.load(torture.HERE))

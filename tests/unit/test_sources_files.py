"""Files that grow: what is read of them as they are appended to, moved, cut and written anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dataflow_serve.errors import IncorrectError
from dataflow_serve.sources import _files, parse
from dataflow_serve.sources._doors import FeedEnded, SourceError
from dataflow_serve.sources._files import FilesReader
from dataflow_serve.sources._report import Report
from dataflow_serve.sources._tail import FileId, identify

from . import source_doors as doors


class Reading:
    """A reader of files in a directory, and its feeds by the file's name."""

    def __init__(self, path: Path, *columns: str, **options: Any) -> None:
        self.now = 0.0
        self.workers = doors.Workers()
        source = parse("s", {"kind": "files", "path": str(path), "relation": "r", **options})
        self.report = Report("s", "files", ["r"], self.workers.post_source)
        self.intake = doors.Intake()
        target = doors.target(*(columns or ("x", "y")))
        self.reader = FilesReader(
            source, target, self.workers, self.intake, self.report, clock=lambda: self.now
        )

    def settle(self) -> list[tuple[str, ...]]:
        """Take turns until nothing is new; all rows so far."""
        while self.reader.turn():
            pass
        return self.rows

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return [row for feed in self.intake.feeds for row in feed.rows]

    def later(self, seconds: float = 10.0) -> list[tuple[str, ...]]:
        self.now += seconds
        return self.settle()


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


def test_what_is_appended_is_read_and_a_line_only_when_it_is_complete(log: Path) -> None:
    reading = Reading(log)
    assert reading.settle() == []
    append(log, "1,2\n3,")
    assert reading.settle() == [("1", "2")]
    append(log, "4")
    assert reading.settle() == [("1", "2")]
    append(log, "5\n6,7\n")
    assert reading.settle() == [("1", "2"), ("3", "45"), ("6", "7")]


def test_a_file_that_is_moved_away_is_read_to_its_end_and_its_successor_from_the_beginning(log: Path) -> None:
    reading = Reading(log)
    append(log, "1,1\n")
    reading.settle()
    append(log, "2,2\n")
    log.rename(log.with_suffix(".1"))
    append(log, "3,3\n")
    # Its writer hasn't noticed yet.
    append(log.with_suffix(".1"), "4,4\n")
    assert sorted(reading.settle()) == [("1", "1"), ("2", "2"), ("3", "3"), ("4", "4")]
    append(log.with_suffix(".1"), "5,5")
    assert ("5", "5") not in reading.settle()
    assert ("5", "5") in reading.later(), "the last line of a file that is left needs no end"
    append(log, "6,6\n")
    assert len(reading.settle()) == 6


def test_a_file_that_is_renamed_within_the_pattern_is_not_read_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    reading = Reading(tmp_path / "log*")
    append(log, "1,1\n")
    reading.settle()
    for generation in range(3):
        for older in reversed(range(1, 4)):
            moved = tmp_path / f"log.{older}"
            if moved.exists():
                moved.rename(tmp_path / f"log.{older + 1}")
        log.rename(tmp_path / "log.1")
        append(log, f"{generation + 2},0\n")
        reading.settle()
        reading.later()
    assert sorted(reading.rows) == [("1", "1"), ("2", "0"), ("3", "0"), ("4", "0")]


def rotated(tmp_path: Path) -> Reading:
    """A reader that has done with `log.1`, and follows `log`."""
    log = tmp_path / "log"
    reading = Reading(tmp_path / "log*")
    append(log, "1,1\n")
    reading.settle()
    log.rename(tmp_path / "log.1")
    append(log, "2,2\n")
    reading.settle()
    reading.later()
    assert reading.rows == [("1", "1"), ("2", "2")]
    return reading


def test_a_file_that_is_renamed_between_two_looks_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = rotated(tmp_path)

    def identify_late(path: str) -> FileId | None:
        # Its old name was found, and leads nowhere any more.
        if (old := tmp_path / "log.1").exists():
            old.rename(tmp_path / "log.2")
        return identify(path)

    monkeypatch.setattr(_files, "identify", identify_late)
    reading.settle()
    assert reading.later() == [("1", "1"), ("2", "2")]


def test_a_new_file_is_read_whatever_inode_it_is_given(tmp_path: Path) -> None:
    reading = rotated(tmp_path)
    # Many systems give the inode of the last file that went to the next that comes.
    (tmp_path / "log.1").unlink()
    append(tmp_path / "log.3", "3,3\n")
    assert reading.settle() == [("1", "1"), ("2", "2"), ("3", "3")]


def test_finished_files_are_let_go_of_when_they_are_gone(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    reading = rotated(tmp_path)
    (tmp_path / "log.1").rename(tmp_path / "elsewhere")
    for _ in range(2):
        reading.settle()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    reading.reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_takes_anothers_place_before_it_is_opened_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "a.csv", tmp_path / "b.csv"
    reading = Reading(tmp_path / "*.csv")
    append(one, "1,1\n")
    reading.settle()
    append(other, "2,2\n")

    def identify_early(path: str) -> FileId | None:
        file = identify(path)
        if path == str(other) and one.exists():
            one.rename(other)
        return file

    monkeypatch.setattr(_files, "identify", identify_early)
    assert reading.settle() == [("1", "1")]
    append(other, "3,3\n")
    assert reading.settle() == [("1", "1"), ("3", "3")]


@pytest.mark.parametrize("content", ["9,9\n", "7,7\n8,8\n9,9\n", "7,7\n8,8\n9,9\n0,0\n"])
def test_a_file_that_was_written_anew_is_read_from_its_beginning(log: Path, content: str) -> None:
    reading = Reading(log)
    append(log, "1,1\n2,2\n3,3\n")
    reading.settle()
    # Shorter than it was, as long, and longer: a look at the length alone would miss two of these.
    log.write_text(content, encoding="utf-8")
    expected = [tuple(line.split(",")) for line in content.split()]
    assert reading.settle()[3:] == expected


def test_half_a_line_is_forgotten_when_the_file_is_cut(log: Path) -> None:
    reading = Reading(log)
    append(log, "1,1\n2,")
    reading.settle()
    log.write_text("3,3\n", encoding="utf-8")
    assert reading.settle() == [("1", "1"), ("3", "3")]


def test_a_deleted_file_may_come_back(log: Path) -> None:
    reading = Reading(log)
    append(log, "1,1\n")
    reading.settle()
    log.unlink()
    reading.settle()
    reading.later()
    append(log, "2,2\n")
    assert reading.settle() == [("1", "1"), ("2", "2")]


def test_every_file_of_a_pattern_has_a_feed_of_its_own(tmp_path: Path) -> None:
    reading = Reading(tmp_path / "*.csv")
    for name in ("a", "b"):
        append(tmp_path / f"{name}.csv", f"1,{ord(name)}\n")
    reading.settle()
    append(tmp_path / "c.csv", "1,99\n")
    reading.settle()
    assert [(feed.worker, feed.rows) for feed in reading.intake.feeds] == [
        (0, [("1", "97")]),
        (1, [("1", "98")]),
        (2, [("1", "99")]),
    ]


def test_a_feed_without_room_holds_up_its_own_file_only(tmp_path: Path) -> None:
    reading = Reading(tmp_path / "*.csv")
    append(tmp_path / "a.csv", "1,1\n")
    append(tmp_path / "b.csv", "2,2\n")
    reading.settle()
    first, second = reading.intake.feeds
    first.room = 0
    append(tmp_path / "a.csv", "3,3\n")
    append(tmp_path / "b.csv", "4,4\n")
    reading.settle()
    assert (first.rows, second.rows) == ([("1", "1")], [("2", "2"), ("4", "4")])
    first.room = 5
    reading.settle()
    assert first.rows == [("1", "1"), ("3", "3")]


def test_a_bad_row_is_named_and_stops_until_the_line_is_mended(log: Path) -> None:
    reading = Reading(log)
    append(log, "1,1\n\n2\n3,3\n")
    for _ in range(2):
        with pytest.raises(SourceError, match=r"log\.csv, line 3: 1 fields, expected 2"):
            reading.settle()
        assert reading.rows == [("1", "1")]
    with log.open("r+", encoding="utf-8") as file:
        file.seek(5)
        file.write("2,2\n3,4")
    log.write_text(log.read_text().replace("43\n", "4\n"), encoding="utf-8")
    assert ("2", "2") in reading.settle()


def test_bad_rows_are_left_out_and_counted_where_that_is_wished(log: Path) -> None:
    reading = Reading(log, on_bad="skip")
    append(log, "1\n2,2\n3\n")
    assert reading.settle() == [("2", "2")]
    document = reading.report.document()
    assert document["bad_rows"] == 2
    assert document["bad_row"].endswith("log.csv, line 1: 1 fields, expected 2")


def test_a_header_that_has_the_columns_says_where_they_stand(log: Path) -> None:
    reading = Reading(log)
    append(log, "y,x\n1,2\n")
    assert reading.settle() == [("2", "1")]


def test_with_a_header_other_columns_are_passed_over(log: Path) -> None:
    reading = Reading(log, header=True)
    append(log, "other,y")
    assert reading.settle() == []
    append(log, ",x\n0,1,2\n")
    assert reading.settle() == [("2", "1")]
    log.rename(log.with_suffix(".1"))
    append(log, "x,y\n3,4\n")
    assert reading.settle() == [("2", "1"), ("3", "4")], "every file has a header of its own"


def test_a_header_without_a_column_is_refused(log: Path) -> None:
    reading = Reading(log, header=True)
    append(log, "x,z\n1,2\n")
    with pytest.raises(SourceError, match=r"line 1: no column 'y' in the header \(x, z\)"):
        reading.settle()


def test_lines_of_json_are_chosen_by_the_name(tmp_path: Path) -> None:
    reading = Reading(tmp_path / "log.ndjson")
    append(tmp_path / "log.ndjson", "[1, 2]\n[3,")
    assert reading.settle() == [(1, 2)]


def test_a_feed_that_has_ended_is_reported(log: Path) -> None:
    reading = Reading(log)
    reading.settle()
    reading.intake.feeds[0].ended = ("not-found", "the relation is gone")
    with pytest.raises(FeedEnded, match="the relation is gone"):
        reading.settle()


def test_what_is_left_to_read_is_told(log: Path) -> None:
    reading = Reading(log)
    append(log, "1,1\n2,")
    reading.settle()
    document = reading.report.document()
    assert (document["rows"], document["lag_bytes"], document["state"]) == (1, 2, "waiting")
    (partition,) = document["partitions"]
    assert partition["position"] == {"offset": 4, "line": 2}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    reading = Reading(tmp_path)
    with pytest.raises(SourceError, match=f"cannot read {tmp_path}: is a directory"):
        reading.settle()


def test_files_are_closed_at_the_end(tmp_path: Path) -> None:
    reading = Reading(tmp_path / "*")
    append(tmp_path / "a", "1,1\n")
    append(tmp_path / "b", "1,1\n")
    reading.settle()
    before = len(os.listdir("/proc/self/fd"))
    reading.reader.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2
    assert all(feed.closed for feed in reading.intake.feeds)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"kind": "files", "path": "x"}, "source 's': object missing required field `relation`"),
        (
            {"kind": "files", "path": 1, "relation": "r"},
            "source 's', field `path`: expected `str`, got `int`",
        ),
        ({"kind": "magic"}, "source 's', field `kind`: invalid value 'magic'"),
        (
            {"kind": "files", "path": "x", "relation": "r", "colour": 1},
            "source 's': object contains unknown field `colour`",
        ),
        (
            {"kind": "files", "path": "x", "relation": "r", "delimiter": "||"},
            "source 's', field `delimiter`: a delimiter is one character of ASCII, not '||'",
        ),
    ],
)
def test_a_description_that_is_wrong_is_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(IncorrectError) as caught:
        parse("s", document)
    assert caught.value.message == message

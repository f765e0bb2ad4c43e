"""The log file of a part, and the lines of it that are shown."""

from __future__ import annotations

from pathlib import Path

from deployments.local.logs import PartLog, cut_file


def test_only_whole_new_lines_are_given(tmp_path: Path) -> None:
    (tmp_path / "api.log").write_text("of an earlier start\n")
    log = PartLog(tmp_path, "api")
    with log.open_for_process() as process:
        process.write(b"one\ntw")
        process.flush()
        first = list(log.new_lines())
        process.write(b"o\n")
        process.flush()

        assert (first, list(log.new_lines()), list(log.new_lines())) == (["one"], ["two"], [])


def test_a_start_cuts_no_log_that_the_setting_allows_and_loses_nothing_put_aside(tmp_path: Path) -> None:
    (tmp_path / "api.log").write_bytes(b"x" * 9_000_000 + b"\n")
    (tmp_path / "api.log.1").write_text("before\n")
    log = PartLog(tmp_path, "api")

    with log.open_for_process() as process:
        process.write(b"new\n")

    assert not log.cut(64 * 1024 * 1024)
    assert list(log.new_lines()) == ["new"]
    assert (tmp_path / "api.log").stat().st_size == 9_000_005
    assert (tmp_path / "api.log.1").read_text() == "before\n"


def test_the_end_of_a_log_is_shown_in_an_error(tmp_path: Path) -> None:
    (tmp_path / "api.log").write_text("".join(f"line {number}\n" for number in range(100)))

    shown = PartLog(tmp_path, "api").last_lines(2)

    assert shown.split() == ["line", "98", "line", "99"]
    assert PartLog(tmp_path, "none").last_lines() == "(no log)"


def test_a_log_that_grew_too_long_is_cut_while_its_part_writes_on(tmp_path: Path) -> None:
    log = PartLog(tmp_path, "api")
    with log.open_for_process() as process:
        process.write(b"a line of the part\n" * 1000)
        process.flush()
        assert len(list(log.new_lines())) == 1000
        assert not log.cut(100_000)
        assert log.cut(10_000)
        process.write(b"after it\n")
        process.flush()

        assert list(log.new_lines()) == ["after it"]
    assert (tmp_path / "api.log").read_text() == "after it\n"
    assert (tmp_path / "api.log.1").stat().st_size == 19_000


def test_who_follows_a_log_that_another_cut_goes_on_at_its_beginning(tmp_path: Path) -> None:
    log = PartLog(tmp_path, "api")
    with log.open_for_process() as process:
        process.write(b"old\n" * 10)
        process.flush()
        list(log.new_lines())
        cut_file(log.file)
        process.write(b"new\n")
        process.flush()
        assert list(log.new_lines()) == ["new"]

"""The log file of a part, and the lines of it that are shown."""

from __future__ import annotations

from pathlib import Path

from deployments.local.logs import KEPT_BYTES, PartLog


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


def test_a_long_log_is_put_aside_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "api.log").write_bytes(b"x" * (KEPT_BYTES + 1))
    log = PartLog(tmp_path, "api")

    with log.open_for_process() as process:
        process.write(b"new\n")

    assert list(log.new_lines()) == ["new"]
    assert (tmp_path / "api.log.1").stat().st_size == KEPT_BYTES + 1


def test_the_end_of_a_log_is_shown_in_an_error(tmp_path: Path) -> None:
    (tmp_path / "api.log").write_text("".join(f"line {number}\n" for number in range(100)))

    shown = PartLog(tmp_path, "api").last_lines(2)

    assert shown.split() == ["line", "98", "line", "99"]
    assert PartLog(tmp_path, "none").last_lines() == "(no log)"

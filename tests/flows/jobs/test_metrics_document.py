"""The metrics of a job are read from the parts that attempts left, and from the one file of earlier releases."""

from __future__ import annotations

from flows.jobs.metrics_document import Point, merged, write_document


def points(value: float, *steps: int) -> list[Point]:
    return [Point("loss", value, step, 1_000) for step in steps]


def test_a_step_in_two_parts_is_the_later_ones() -> None:
    parts = [write_document(points(1.0, 1, 2, 3)), write_document(points(2.0, 3, 4)), b""]
    assert merged(parts) == [*points(1.0, 1, 2), *points(2.0, 3, 4)]


def test_one_document_of_an_earlier_release_is_a_part_like_any_other() -> None:
    earlier = b'{"name":"loss","value":1.0,"step":1,"at":1000}\n{"name":"loss","value":null,"step":2,"at":1000}\n'
    assert merged([earlier]) == points(1.0, 1)
    assert merged([earlier, write_document(points(2.0, 2))]) == [*points(1.0, 1), *points(2.0, 2)]


def test_metrics_of_one_step_stay_in_the_order_in_which_they_were_measured() -> None:
    both = [Point("rate", 0.1, 2, 1), Point("loss", 0.2, 2, 1), Point("loss", 0.3, 1, 1)]
    assert [(one.name, one.step) for one in merged([write_document(both)])] == [("loss", 1), ("rate", 2), ("loss", 2)]

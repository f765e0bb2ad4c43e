"""What a picture costs: its pixels times its UNet calls, in whole credits."""

from __future__ import annotations

from typing import Any

import pytest

from storage.records.generation.drawings import NO_MODEL, Drawing, DrawnImage, Operation
from storage.records.generation.prices import PriceList, Priority, picture_price, picture_units
from storage.records.generation.schedulers import SchedulerSettings

LIST = PriceList(credits=2.0, low=0.5, high=1.5)


def drawing(**fields: Any) -> Drawing:
    asked = {"model": NO_MODEL, "images": (DrawnImage(prompt="a mug", seed=1),), "width": 512, "height": 512}
    return Drawing(**{**asked, "strength": 1.0, **fields})


@pytest.mark.parametrize(
    ("fields", "units"),
    [
        ({}, 1.0),
        ({"width": 1024, "height": 1024}, 4.0),
        ({"steps": 50}, 2.0),
        ({"guidance_scale": 1.0}, 0.5),
        ({"scheduler": SchedulerSettings(name="heun")}, 49 / 25),
        ({"operation": Operation.IMG2IMG, "strength": 0.4}, 10 / 25),
        ({"operation": Operation.UPSCALE, "width": 1024, "height": 1024}, 0.2),
    ],
)
def test_a_picture_is_so_much_work(fields: dict[str, Any], units: float) -> None:
    assert picture_units(drawing(**fields)) == pytest.approx(units)


def test_credits_are_whole_and_a_priority_changes_them() -> None:
    assert [picture_price(drawing(), priority, LIST) for priority in Priority] == [1, 2, 3]
    # 1.4 credits, which is 2; a picture of next to no work costs the least there is.
    assert picture_price(drawing(width=408, height=448), Priority.NORMAL, LIST) == 2
    small = drawing(operation=Operation.UPSCALE, width=64, height=64)
    assert picture_price(small, Priority.NORMAL, PriceList(credits=1e-6)) == 1


def test_a_sum_that_is_whole_but_for_the_float_is_not_rounded_up() -> None:
    large = drawing(width=5120, height=5120)
    assert picture_units(large) * 0.07 > 7
    assert picture_price(large, Priority.NORMAL, PriceList(credits=0.07)) == 7


def test_a_list_of_no_credits_makes_everything_free() -> None:
    assert {picture_price(drawing(), priority, PriceList(credits=0.0)) for priority in Priority} == {0}


def test_high_goes_first_and_low_last() -> None:
    assert sorted(Priority, key=lambda one: one.lane) == [Priority.HIGH, Priority.NORMAL, Priority.LOW]

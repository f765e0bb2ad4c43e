from __future__ import annotations

import msgspec

from storage.records.jobs.data_sets import DataSetImage
from storage.records.jobs.photos.photo_warnings import MAXIMUM, photo_warnings
from tests.storage.records.jobs.test_training import resolved

SQUARE = resolved().recipe
SHAPES = msgspec.structs.replace(SQUARE, bucketing=True)


def a_photo(position: int, sha256: str = "", size: tuple[int, int] = (64, 64)) -> DataSetImage:
    digest = sha256 or f"{position:064}"
    return DataSetImage(position=position, name=f"{position}.png", sha256=digest, size=1, width=size[0], height=size[1])


def test_photos_that_fit_need_no_words():
    assert photo_warnings([a_photo(0), a_photo(1, size=(64, 900))], SQUARE) == ()


def test_a_copy_is_named_beside_the_photo_it_is_of():
    [warning] = photo_warnings([a_photo(0, "a" * 64), a_photo(1), a_photo(2, "a" * 64)], SQUARE)
    assert "'2.png' is the same picture as '0.png'" in warning


def test_a_photo_that_is_enlarged_is_named_with_its_size():
    [warning] = photo_warnings([a_photo(0), a_photo(1, size=(63, 200))], SQUARE)
    assert "'1.png' has 63 x 200 pixels and is enlarged to the base's 64" in warning


def test_in_a_shape_of_its_own_a_photos_area_counts():
    assert photo_warnings([a_photo(0, size=(63, 200))], SHAPES) == ()
    assert len(photo_warnings([a_photo(0, size=(63, 64))], SHAPES)) == 1


def test_many_of_one_sort_are_counted():
    warnings = photo_warnings([a_photo(n, size=(20, 20)) for n in range(MAXIMUM + 3)], SQUARE)
    assert len(warnings) == MAXIMUM + 1
    assert warnings[-1] == "... and 3 more photos like these."


def test_an_identifier_that_is_in_no_prompt_is_named():
    def whole(number: int, caption: str) -> DataSetImage:
        return msgspec.structs.replace(a_photo(number), caption=caption, whole_prompt=True)

    others = [whole(0, "abc mug"), whole(2, "ohwx mug, asks")]
    [warning] = photo_warnings(others, SQUARE)
    assert warning.startswith("the identifier 'sks' is in no photo's prompt, so nothing is learned of it")
    for named in (whole(1, "a SKS mug"), whole(1, ""), msgspec.structs.replace(a_photo(1), caption="at sea")):
        assert photo_warnings([*others, named], SQUARE) == ()
    # The last photo by its hash is kept out, and not learned from.
    held_out = msgspec.structs.replace(SQUARE, validation_photos=1, validation_every=5)
    assert photo_warnings([*others, whole(9, "a sks mug")], held_out) == (warning,)

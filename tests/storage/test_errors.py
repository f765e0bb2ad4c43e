"""Errors by their codes."""

from __future__ import annotations

import pytest

from storage.errors import BlobMissing, DarkroomError, DiskFull, OutOfMemory, error_named


@pytest.mark.parametrize("kind", [DarkroomError, BlobMissing, OutOfMemory, DiskFull])
def test_an_error_is_found_by_its_code(kind: type[DarkroomError]) -> None:
    assert error_named(kind.code) is kind


def test_an_unknown_code_is_no_error_of_ours() -> None:
    assert error_named("of_another_release") is None

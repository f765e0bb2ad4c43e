"""darkroom check."""

from __future__ import annotations

from storage.blobs.store import BlobStore
from tests.deployments.line import Line


def test_lost_bytes_are_found(line: Line) -> None:
    line.trained()
    before = line("check")
    blobs = BlobStore(line.door.settings.blobs)
    lost = next(blobs.list())
    blobs.delete(lost.sha256)

    after = line("check")

    assert f"blob {lost.sha256} is named by a row but gone" not in before.output
    assert after.exit_code == 1
    assert f"blob {lost.sha256} is named by a row but gone" in after.output

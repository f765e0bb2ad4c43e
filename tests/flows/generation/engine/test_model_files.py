"""Copies of models on the engine's disk: the longest unused go, what is read stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flows.generation.engine import model_files
from flows.generation.engine.model_files import PLACE, BlobFiles
from storage.blobs.store import BlobStore
from storage.records.generation.drawings import DrawnAdapter
from storage.settings import BlobSettings
from tests.flows.generation.bench import wait_until


def test_the_copies_that_were_used_longest_ago_go_by_themselves(tmp_path: Path) -> None:
    blobs = BlobStore(BlobSettings(url=(tmp_path / "blobs").as_uri()))
    files, place = BlobFiles(blobs, tmp_path / "cache"), tmp_path / "cache" / PLACE
    adapters = [DrawnAdapter(version_id=n, sha256=blobs.put(bytes([n]) * 1000).sha256, strength=1.0) for n in range(4)]
    for age, adapter in enumerate(adapters):
        with files.adapter(adapter) as path:
            assert path.stat().st_size == 1000
        moment = time.time() - 100 * (4 - age)
        os.utime(place / adapter.sha256, (moment, moment))
    unfinished = place / ".making"
    unfinished.mkdir()
    os.utime(unfinished, (0, 0))

    with files.adapter(adapters[0]):
        os.utime(place / adapters[0].sha256, (1, 1))
        assert files.shrink(10**9) == 1, "what is half made"
        files.shrink_on(2500)
        wait_until(lambda: len(list(place.iterdir())) == 2)
    assert {one.name for one in place.iterdir()} == {adapters[0].sha256, adapters[3].sha256}
    assert model_files.TIDY_SECONDS == 3600

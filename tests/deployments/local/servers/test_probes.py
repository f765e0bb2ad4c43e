"""The engine counts as healthy when the very process that was started responds."""

from __future__ import annotations

import os
from pathlib import Path

from deployments.local.servers.probes import engine_probe
from flows.generation.engine.server import served
from tests.flows.generation.engine.bench import LocalFiles, running


def test_the_engine_is_healthy_when_this_very_process_responds(short_folder: Path) -> None:
    path = short_folder / "probed" / "engine.sock"
    probe = engine_probe(path)
    assert not probe(os.getpid())
    with running(LocalFiles({})) as engine, served(engine, {"pid": os.getpid()}, path):
        assert probe(os.getpid())
        assert not probe(1)
    assert not probe(os.getpid())

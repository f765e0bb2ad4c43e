"""What is known of backends: failures in a row, and what they are."""

from __future__ import annotations

from storage.postgres.connection import Database
from storage.postgres.generation import backends
from storage.records.generation.circuits import BackendFault


def test_failures_are_counted_until_something_is_drawn(database: Database) -> None:
    first = database.run(backends.failed("comfyui", BackendFault.DRAWING_FAILED))
    assert (first.failures, first.reason, first.responded_at) == (1, BackendFault.DRAWING_FAILED, None)
    assert database.run(backends.failed("comfyui", BackendFault.NO_RESPONSE)).failures == 2
    seen = database.run(backends.looked("comfyui", "0.3", {"operations": ["txt2img"]}))
    # That it responds is not that it draws.
    assert (seen.failures, seen.version, seen.capabilities) == (2, "0.3", {"operations": ["txt2img"]})
    assert seen.responded_at is not None
    [drawn] = database.run(backends.succeeded("comfyui"))
    assert (drawn.failures, drawn.reason) == (0, BackendFault.NO_RESPONSE)


def test_one_that_nobody_looked_at_has_not_drawn(database: Database) -> None:
    assert database.run(backends.succeeded("local")) == []
    assert database.run(backends.drawing("local", 3)).drawing == 3
    assert database.run(backends.drawing("local", 0)).drawing == 0


def test_those_that_the_settings_no_longer_name_are_forgotten(database: Database) -> None:
    for name in ("local", "comfyui", "another"):
        database.run(backends.looked(name, "1", {}))
    assert [row.name for row in database.run(backends.list_all())] == ["another", "comfyui", "local"]
    assert sorted(database.run(backends.forget_others(["local"]))) == ["another", "comfyui"]
    assert [row.name for row in database.run(backends.list_all())] == ["local"]

"""What draws and what waits for it, in `/metrics` and in the list of backends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from platform_api.metrics.generation_metrics import responds
from storage.postgres.generation import backends
from storage.records.generation.circuits import BackendFault, BackendRow
from tests.platform_api.door import Door
from tests.platform_api.generation.drawing import GENERATIONS, drawable


def test_backends_and_lanes_are_in_the_metrics_and_in_the_list(door: Door) -> None:
    client, run = door.client(), door.database.run
    assert client.get(f"{GENERATIONS}/backends").json() == {"items": []}
    run(backends.looked("local", "1.2", {"operations": ["txt2img"]}))
    run(backends.drawing("local", 3))
    run(backends.looked("comfyui", "0.3.60", {}))
    for _ in range(3):
        run(backends.failed("comfyui", BackendFault.NO_RESPONSE))
    model = drawable(door, client)
    for priority in ("high", "high", "low"):
        client.post(GENERATIONS, json={"model": model, "prompt": "a mug", "priority": priority})

    shown = {row["name"]: row for row in client.get(f"{GENERATIONS}/backends").json()["items"]}
    text = client.get("/metrics").text

    assert (shown["local"]["circuit"], shown["local"]["drawing"], shown["local"]["reason"]) == ("closed", 3, None)
    assert shown["local"]["capabilities"] == {"operations": ["txt2img"]}
    facts = [shown["comfyui"][name] for name in ("circuit", "failures", "reason", "version")]
    assert facts == ["open", 3, "no_response", "0.3.60"]
    for line in (
        'darkroom_generation_backend_up{backend="local"} 1.0',
        'darkroom_generation_backend_up{backend="comfyui"} 0.0',
        'darkroom_generation_backend_circuit{backend="local"} 0.0',
        'darkroom_generation_backend_circuit{backend="comfyui"} 2.0',
        'darkroom_generation_backend_drawing{backend="local"} 3.0',
        'darkroom_generation_backend_info{backend="comfyui",version="0.3.60"} 1.0',
        'darkroom_generation_waiting{priority="high"} 2.0',
        'darkroom_generation_waiting{priority="normal"} 0.0',
        'darkroom_generation_drawing{priority="low"} 0.0',
    ):
        assert f"\n{line}\n" in text


def test_a_backend_that_was_never_reached_or_broke_last_does_not_respond() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    before, after = now - timedelta(seconds=1), now + timedelta(seconds=1)
    row = BackendRow(
        name="local",
        version="1",
        capabilities={},
        failures=0,
        failed_at=None,
        reason=None,
        drawing=0,
        looked_at=now,
        responded_at=None,
    )
    assert not responds(row)
    assert responds(replace(row, responded_at=now))
    assert responds(replace(row, responded_at=now, failed_at=before))
    assert not responds(replace(row, responded_at=now, failed_at=after))

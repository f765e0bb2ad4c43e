"""Which test runs a command that pages show. A test file must contain the words that stand beside its path."""

from __future__ import annotations

from dataclasses import dataclass

COMMANDS = "tests/deployments/commands"
HERE = "tests/docs/test_operator_commands.py"
API = "tests/platform_api"


@dataclass(frozen=True)
class RunBy:
    """A test file, and words of it that show that it runs the command."""

    path: str
    words: str


BY_WORDS: dict[str, RunBy] = {
    "darkroom backfill rank-leaderboards": RunBy(
        "tests/docs/test_operator_commands.py", '"backfill", "rank-leaderboards"'
    ),
    "darkroom backfill roll-up-metrics": RunBy(HERE, '"backfill", "roll-up-metrics"'),
    "darkroom backup key": RunBy(HERE, '"backup", "key"'),
    "darkroom backup list": RunBy("tests/faults/test_backup.py", '"list"'),
    "darkroom backup verify": RunBy("tests/faults/test_backup.py", '"verify"'),
    "darkroom backup": RunBy("tests/faults/test_backup.py", '"backup"'),
    "darkroom base add": RunBy(f"{COMMANDS}/jobs/test_base.py", '"base", "add"'),
    "darkroom check": RunBy(f"{COMMANDS}/upkeep/test_check.py", '"check"'),
    "darkroom down": RunBy("tests/faults/test_whole_platform_stops.py", '"down"'),
    "darkroom download": RunBy(f"{COMMANDS}/catalog/test_download.py", '"download"'),
    "darkroom events discard": RunBy(HERE, '"events", "discard"'),
    "darkroom events list": RunBy(HERE, '"events", "list"'),
    "darkroom events replay": RunBy(HERE, '"events", "replay"'),
    "darkroom generate": RunBy(f"{COMMANDS}/generation/test_generate.py", '"generate"'),
    "darkroom import": RunBy(f"{COMMANDS}/catalog/test_importing.py", '"import"'),
    "darkroom jobs rerun-stage": RunBy(f"{COMMANDS}/jobs/test_jobs.py", '"rerun-stage"'),
    "darkroom jobs list": RunBy(f"{COMMANDS}/jobs/test_jobs.py", '"list"'),
    "darkroom key create": RunBy(f"{COMMANDS}/accounts/test_key.py", '"key", "create"'),
    "darkroom key list": RunBy(f"{COMMANDS}/accounts/test_key.py", '"key", "list"'),
    "darkroom key revoke": RunBy(f"{COMMANDS}/accounts/test_key.py", '"key", "revoke"'),
    "darkroom models": RunBy(f"{COMMANDS}/catalog/test_publication.py", '"models"'),
    "darkroom notifications announce": RunBy(f"{COMMANDS}/notifications/test_notifications.py", '"announce"'),
    "darkroom notifications dead": RunBy(f"{COMMANDS}/notifications/test_notifications.py", '"dead"'),
    "darkroom notifications replay": RunBy(f"{COMMANDS}/notifications/test_notifications.py", '"replay"'),
    "darkroom notifications status": RunBy(f"{COMMANDS}/notifications/test_notifications.py", '"status"'),
    "darkroom pause": RunBy("tests/faults/test_whole_platform_late.py", '"pause"'),
    "darkroom publish": RunBy(f"{COMMANDS}/catalog/test_publication.py", '"publish"'),
    "darkroom rebuild": RunBy(HERE, '"rebuild"'),
    "darkroom restore": RunBy("tests/faults/test_backup.py", '"restore"'),
    "darkroom resume": RunBy("tests/faults/test_whole_platform_late.py", '"resume"'),
    "darkroom rotate": RunBy(f"{COMMANDS}/upkeep/test_key_rotation.py", '"rotate"'),
    "darkroom train": RunBy(f"{COMMANDS}/jobs/test_train.py", '"train"'),
    "darkroom up": RunBy("tests/deployments/platform.py", '"up"'),
    "make demo": RunBy(f"{COMMANDS}/platform/test_demo.py", '"demo"'),
    "make docs": RunBy("tests/docs/test_site.py", "sphinx"),
    "make down": RunBy("tests/faults/test_whole_platform_stops.py", '"down"'),
    "make status": RunBy("tests/faults/test_whole_platform.py", '"status"'),
    "make up": RunBy("tests/deployments/platform.py", '"up"'),
    "python -m deployments.release_images": RunBy("tests/deployments/test_release_images.py", "release_images"),
}
"""By the first words of a command; the longest that fit count."""

BY_ROUTE: dict[str, RunBy] = {
    "/api/v1/activity": RunBy(f"{API}/metrics/test_activity.py", "/api/v1/activity"),
    "/api/v1/data-sets": RunBy("tests/attacks/test_uploads.py", "data-sets"),
    "/api/v1/generations": RunBy(f"{API}/generation/test_generations.py", "GENERATIONS"),
    "/api/v1/keys": RunBy(f"{API}/accounts/test_keys.py", "/api/v1/keys"),
    "/api/v1/leaderboards/": RunBy(f"{API}/metrics/test_leaderboards.py", "leaderboards/"),
    "/api/v1/model-versions/9/files/": RunBy("tests/attacks/test_model_uploads.py", "/files/"),
    "/api/v1/model-versions/7/files/": RunBy("tests/attacks/test_model_uploads.py", "/files/"),
    "/api/v1/model-versions/9/images": RunBy(f"{API}/catalog/writing/test_image_routes.py", "/images"),
    "/api/v1/models": RunBy(f"{API}/catalog/writing/test_model_routes.py", "/api/v1/models"),
    "/api/v1/notifications/channels/webhook": RunBy(f"{API}/notifications/test_channels.py", "channels/webhook"),
    "/api/v1/notifications/events": RunBy(f"{API}/streams/test_job_events.py", "/notifications/events"),
    "/api/v1/search": RunBy(f"{API}/search/test_search.py", "/search"),
    "/api/v1/training-jobs": RunBy(f"{API}/test_app.py", "/training-jobs"),
    "/health": RunBy(f"{API}/upkeep/test_health.py", "/health"),
    "/metrics": RunBy(f"{API}/metrics/test_freshness.py", "/metrics"),
}
"""By the beginning of the path that a call of curl asks for; the longest that fits counts."""

"""Every kind of row and file that Darkroom keeps, and how long: one line each. Nothing grows for ever without a reason.

A test compares this table with the live schema and with a data folder that was used: what has no rule fails it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from flows.runs.lazy_imports import imported_when_used
from flows.upkeep.retention.flow_runs import watch_flow_runs
from flows.upkeep.retention.folder_rules import (
    delete_compiled,
    delete_leftovers,
    delete_old_files,
    shrink_cache,
    tidy_encodings,
)
from flows.upkeep.retention.row_rules import (
    delete_history,
    delete_rejected_acts,
    drop_activity_days,
    drop_sampled_sets,
    forget_notifications,
)
from flows.upkeep.retention.sweep import Sweep
from storage.postgres.search.search_windows import KEEP_SECONDS
from storage.records.catalog.listing import KEEP_HOURS
from storage.records.metrics.activity import OLDEST
from storage.settings import variable_of

if TYPE_CHECKING:
    from flows.upkeep.retention import tracking_runs
else:
    tracking_runs = imported_when_used("flows.upkeep.retention.tracking_runs")

Work = Callable[[Sweep], None]


@dataclass(frozen=True)
class RetentionRule:
    """One kind of thing.

    what: in words. tables: of our schema, as patterns. folders: below the data folder, as patterns. fate: when what
    goes, or why nothing does. setting: its dotted name. work: how this flow does it; None where nothing goes, or where
    somebody else does it (`fate` names who). local: it works on folders of the machine that runs it.
    """

    what: str
    fate: str
    tables: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    setting: str = ""
    work: Work | None = None
    local: bool = False


def _rows(table: str, setting: str = "", age: timedelta | None = None) -> Work:
    return lambda sweep: sweep.delete_rows(table, age or sweep.age(setting))


def _by(work: Callable[[Sweep, str], None], setting: str) -> Work:
    return lambda sweep: work(sweep, setting)


def _delete_tracking_runs(sweep: Sweep, setting: str) -> None:
    tracking_runs.delete_tracking_runs(sweep, setting)  # imports MLflow, which most who read this table do not need


def _at(work: Callable[[Sweep, str, str], None], place: str, setting: str) -> Work:
    return lambda sweep: work(sweep, place, setting)


_OUTBOX, _KEYS, _NOTIFIED, _ACTS = (
    "retention.outbox_days",
    "api.idempotency_hours",
    "notifications.keep_days",
    "metrics.keep_days",
)
_CHECKPOINTS = "retention.checkpoint_days"
_PICTURES, _SOURCES = "retention.picture_days", "retention.source_picture_days"
_HISTORY, _SETS, _VECTORS = "retention.history_days", "retention.sampled_set_days", "retention.vector_days"
_FLOWS, _FLOW_EVENTS, _TRACKING = (
    "retention.flow_run_days",
    "retention.flow_event_days",
    "retention.tracking_run_days",
)
_BASES, _VERSIONS = "retention.base_model_cache_gib", "retention.model_version_cache_gib"
_ENCODINGS, _COMPILED = "retention.encoding_cache_gib", "retention.compiled_days"
_LEFT, _LOGS, _UPLOADS, _BLOBS = (
    "retention.leftover_days",
    "retention.log_mib",
    "uploads.unfinished_hours",
    "blobs.orphan_grace_hours",
)
_OWN = "kept until its owner deletes it"
_SMALL = "kept for ever: "

# fmt: off
RULES: tuple[RetentionRule, ...] = (
    RetentionRule("events that had their effect", "deleted so long after it; one that waits or was given up stays", ("outbox",), setting=_OUTBOX, work=_rows("outbox", _OUTBOX)),
    RetentionRule("Idempotency-Keys and their responses", "deleted so long after their use", ("idempotency_keys",), setting=_KEYS, work=_rows("idempotency_keys", _KEYS)),
    RetentionRule("notifications, deliveries, sendings", "forgotten so long after they ended; a key stays, so that nobody is notified again", ("notifications", "deliveries", "sendings"), setting=_NOTIFIED, work=_by(forget_notifications, _NOTIFIED)),
    RetentionRule("counted acts and their sums by the hour", "dropped by whole days", ("activity", "activity_hours"), setting=_ACTS, work=_by(drop_activity_days, _ACTS)),
    RetentionRule("acts that were not counted, and their batches", "deleted so long after they came; batches after 30 days", ("activity_rejected", "activity_batches"), setting=_ACTS, work=_by(delete_rejected_acts, _ACTS)),
    RetentionRule("keys of counted acts", f"deleted after {OLDEST.days * 2} days: older acts are refused by their time", ("activity_keys",), work=_rows("activity_keys", age=OLDEST * 2)),
    RetentionRule("acts on their way", "deleted when they are summed, or with the transaction", ("activity_pending", "activity_staging")),
    RetentionRule("sums by the day, and in all", _SMALL + "they are what is left of the acts", ("activity_days", "activity_totals", "rollup_state", "*_stats")),
    RetentionRule("old places in lists", f"deleted after {KEEP_HOURS} hours, when no cursor can ask for them", ("sort_keys",), work=_rows("sort_keys", age=timedelta(hours=KEEP_HOURS))),
    RetentionRule("pages of searches", f"deleted after {KEEP_SECONDS / 60:.0f} minutes", ("search_windows",), work=_rows("search_windows", age=timedelta(seconds=KEEP_SECONDS))),
    RetentionRule("vectors of texts", "deleted so long after they were made; made again when a text that is shown is next written", ("search_vectors",), setting=_VECTORS, work=_rows("search_vectors", _VECTORS)),
    RetentionRule("search indexes", "retired ones dropped by `reconcile` after 10 minutes", ("search_builds", "search_build_*")),
    RetentionRule("what waits for search, and what cannot be indexed", "deleted when it is written; one row for each model, image and creator at most", ("search_queue", "search_dead_letters")),
    RetentionRule("class images that jobs share", "deleted so long after a job last asked for them; drawn again when one does", ("sampled_sets", "sampled_images"), setting=_SETS, work=_by(drop_sampled_sets, _SETS)),
    RetentionRule("alerts that are over, backfills that are finished", "deleted so long after they ended", ("alerts", "backfills", "backfill_days"), setting=_HISTORY, work=_by(delete_history, _HISTORY)),
    RetentionRule("jobs, and the workflows of generations", _SMALL + "they are the history of whoever asked for them", ("jobs", "workflows", "workflow_steps")),
    RetentionRule("what jobs made", "pictures of generations deleted so long after the job's end, unless they were published; of trainings kept for ever, unless its owner deletes it; the grids of evaluations go with their data set", ("job_files",), setting=_PICTURES, work=_rows("job_files", _PICTURES)),
    RetentionRule("pictures that were sent for generations", "deleted so long after a workflow last named them; what a workflow goes on from stays until it has ended", ("source_pictures", "workflow_sources"), setting=_SOURCES, work=_rows("source_pictures", _SOURCES)),
    RetentionRule("checkpoints of jobs that have ended", "deleted when the job succeeds, but for those that `keepEvery` lets stay; of others the newest stays; deleted so long after the end, then a retry begins from the start", ("job_checkpoints",), setting=_CHECKPOINTS, work=_rows("job_checkpoints", _CHECKPOINTS)),
    RetentionRule("what the stages of jobs have made", "deleted so long after the job's end; bytes that only they name go with them, and those of a version that was published are its own", ("job_stages", "job_stage_blobs"), setting=_CHECKPOINTS, work=_rows("job_stages", _CHECKPOINTS)),
    RetentionRule("data sets", _OWN + "; then the grids of evaluations that show its photos go, too (of `job_files`), and a name stays for the jobs that used it", ("data_sets", "data_set_images")),
    RetentionRule("the catalogue", _OWN + "; a deleted model's row stays, so that its id never means another", ("models", "model_versions", "version_files", "file_hashes", "images", "tags", "model_tags", "catalogue_home")),
    RetentionRule("base models", "kept until an operator replaces them; what was replaced is deleted so long after, unless a job that names it has not ended, or ended less long ago, or an adapter of it is in the catalogue", ("base_models", "base_model_files"), setting=_CHECKPOINTS, work=_rows("base_models", _CHECKPOINTS)),
    RetentionRule("accounts and their keys", _SMALL + "a revoked key stays, so that its id is never given again", ("accounts", "api_keys", "account_usage")),
    RetentionRule("follows, reactions, comments", _OWN, ("follows", "reactions", "comments", "comment_mentions")),
    RetentionRule("channels", _SMALL + "rows of before name them", ("channels", "address_channels")),
    RetentionRule("where and how readers are notified", "kept until the reader changes it", ("notification_preferences", "notification_readers", "endpoints", "channel_pauses")),
    RetentionRule("places on leaderboards", _SMALL + "the editions of past days are what they show", ("leaderboard_editions", "leaderboard_places")),
    RetentionRule("state of flows and of the relay", _SMALL + "one row for each, or for each of its days", ("drain_wakeups", "relay_duties", "flow_deployments", "watched_flows", "flow_partitions", "flow_pauses", "generation_backends", "schema_migrations", "retention_marks", "last_backup")),
    RetentionRule("unfinished uploads", "given up by the API after so long without a byte", ("model_uploads", "byte_reservations"), ("model-uploads", "uploads"), _UPLOADS),
    RetentionRule("bytes that no row names", "deleted by `reconcile` after so long", ("orphans", "released_bytes"), folders=("blobs",), setting=_BLOBS),
    RetentionRule("Prefect's flow runs, task runs, logs, artifacts", "deleted by Prefect's server so long after their end", setting=_FLOWS, work=_by(watch_flow_runs, _FLOWS)),
    RetentionRule("Prefect's events", "deleted by Prefect's server", setting=_FLOW_EVENTS),
    RetentionRule("results that Prefect keeps in files", "deleted so long after they were written", folders=("prefect",), setting=_FLOWS, work=_at(delete_old_files, "prefect/storage", _FLOWS), local=True),
    RetentionRule("tracking runs of flows that are no job", "deleted and erased so long after their end; those of jobs stay; `reconcile` takes their models out when they are deleted or taken down", folders=("mlflow",), setting=_TRACKING, work=_by(_delete_tracking_runs, _TRACKING)),
    RetentionRule("copies of base models", "the longest unused deleted when they are more; never one in use", folders=("cache/base-models",), setting=_BASES, work=_at(shrink_cache, "base-models", _BASES), local=True),
    RetentionRule("copies of model versions", "the longest unused deleted when they are more; never one in use", folders=("cache/model-versions",), setting=_VERSIONS, work=_at(shrink_cache, "model-versions", _VERSIONS), local=True),
    RetentionRule("latents and encoded prompts", "of a photo deleted when no data set has it; else the longest unused when they are more", folders=("cache/encodings",), setting=_ENCODINGS, work=_by(tidy_encodings, _ENCODINGS), local=True),
    RetentionRule("kernels that `compile` of a training made", "with compose deleted so long after they were made, and made again when a training needs them; with `darkroom up` among the temporary files", folders=("cache/compiled",), setting=_COMPILED, work=_by(delete_compiled, _COMPILED), local=True),
    RetentionRule("working folders of jobs", "deleted by the job; of a flow that died, so long after its job has ended", folders=("work",), setting=_LEFT, work=_by(delete_leftovers, _LEFT), local=True),
    RetentionRule("logs of the parts", "cut by `darkroom up` at so much; as much of what was before is kept", folders=("logs",), setting=_LOGS),
    RetentionRule("temporary files", "deleted when `darkroom up` starts", folders=("tmp",)),
    RetentionRule("rows of the embedded databases", "by the rules of the tables", folders=("postgres",)),
    RetentionRule("what Valkey holds", "each key has its end: progress a day, models `DARKROOM_CACHE__MODEL_SECONDS`, limits a minute", folders=("valkey",)),
    RetentionRule("what TensorBoard and Weights & Biases show of trainings", "kept until somebody deletes them", folders=("tensorboard", "wandb")),
    RetentionRule("pictures of `darkroom demo`; what `darkroom import` has done", "kept until somebody deletes them", folders=("demo", "import")),
    RetentionRule("keys and the state of `darkroom up`", _SMALL + "a few files", folders=("*.key", "*.auth", "run")),
)
# fmt: on
"""The whole table."""


def table_rules(table: str) -> list[RetentionRule]:
    """The rules of a table of our schema."""
    return [rule for rule in RULES if any(fnmatchcase(table, pattern) for pattern in rule.tables)]


def folder_rules(place: str) -> list[RetentionRule]:
    """The rules of a file or folder below the data folder."""
    return [rule for rule in RULES if any(fnmatchcase(place, pattern) for pattern in rule.folders)]


def variable(setting: str) -> str:
    """The environment variable of a setting."""
    return variable_of(*setting.split("."))


def document() -> Iterator[str]:
    """The table in Markdown, for docs/how-to/retention.md."""
    yield "| what | where | what becomes of it | setting |"
    yield "|---|---|---|---|"
    for rule in RULES:
        places = [*(f"`{name}`" for name in rule.tables), *(f"`DATA/{name}`" for name in rule.folders)]
        setting = f"`{variable(rule.setting)}`" if rule.setting else ""
        yield f"| {rule.what} | {', '.join(places) or 'Prefect'} | {rule.fate} | {setting} |"

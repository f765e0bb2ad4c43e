"""Trackers by their names in the settings: the files beside this one. MLflow is none of them: every job has it."""

from __future__ import annotations

from importlib import import_module

from flows.training.tracking.protocol import TrackerKind
from storage.errors import JobCannotSucceed
from storage.records.jobs.choices import TrackerName, check_choice


def tracker_named(name: str) -> TrackerKind:
    """The tracker `name`. Raises InvalidRequest naming the known ones, JobCannotSucceed when its library is missing."""
    check_choice(TrackerName, "trackers", name)
    try:
        return import_module(f"flows.training.tracking.{name}").TRACKER
    except ImportError as error:
        raise JobCannotSucceed(
            f"DARKROOM_TRACKING__TRACKERS names '{name}', and its library does not load here ({error}). Install it "
            "where the training worker runs: pip install 'darkroom[trackers]'. Or take the name out."
        ) from error

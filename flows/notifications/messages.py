"""The texts of each type of notification. Pure: an event in, a text out."""

from __future__ import annotations

from typing import assert_never

from storage.records.notifications.notifications import (
    Commented,
    Content,
    DownloadMilestone,
    JobFailedNotice,
    JobFinished,
    Mentioned,
    NewFollower,
    NotificationText,
    ReactionMilestone,
    SampleReadyNotice,
    SystemNotice,
    VersionPublished,
)

_JOBS = {"training": "fine-tune", "generation": "generation"}
_PATHS = {"training": "/api/v1/training-jobs", "generation": "/api/v1/generations"}
MAX_TITLE = 150
MAX_TEXT = 2000


def text_of(content: Content) -> NotificationText:
    """What a notification says. Names that people chose are shortened and stay on one line."""
    match content:
        case JobFinished(model_name=str(name)):
            return _text(
                f"Your model {name} is ready",
                f"The fine-tune is done and {name} is in the catalogue.",
                f"/api/v1/models/{content.model_id}",
            )
        case JobFinished():
            kind = _JOBS[content.job_kind]
            return _text(f"Your {kind} is done", f"The {kind} is done.", f"{_PATHS[content.job_kind]}/{content.job_id}")
        case JobFailedNotice():
            kind = _JOBS[content.job_kind]
            path = f"{_PATHS[content.job_kind]}/{content.job_id}"
            return _text(
                f"Your {kind} failed", f"{content.reason} What it made so far is kept; it can be retried.", path
            )
        case SampleReadyNotice():
            path = f"/api/v1/training-jobs/{content.job_id}/samples"
            return _text(f"A sample of step {content.step} is ready", "Your fine-tune made a sample image.", path)
        case VersionPublished():
            return _text(
                f"{content.by} published {content.model_name} {content.version_name}",
                f"Version {content.version_name} of {content.model_name} is in the catalogue.",
                f"/api/v1/models/{content.model_id}",
            )
        case NewFollower():
            return _text(f"{content.by} follows you", f"{content.by} is notified when you publish.", "")
        case Commented():
            return _text(f"{content.by} commented on {content.on}", content.excerpt, _model(content.model_id))
        case Mentioned():
            return _text(f"{content.by} mentioned you on {content.on}", content.excerpt, _model(content.model_id))
        case ReactionMilestone():
            return _text(
                f"{content.model_name} has {content.count:,} thumbs up",
                f"{content.count:,} people gave {content.model_name} a thumb up.",
                _model(content.model_id),
            )
        case DownloadMilestone():
            return _text(
                f"{content.model_name} was downloaded {content.count:,} times",
                f"{content.model_name} has reached {content.count:,} downloads.",
                _model(content.model_id),
            )
        case SystemNotice():
            return _text(content.title, content.text, content.path)
        case _:
            assert_never(content)


def _model(model_id: int | None) -> str:
    return "" if model_id is None else f"/api/v1/models/{model_id}"


def _text(title: str, text: str, path: str) -> NotificationText:
    # On one line: a title becomes the subject of an e-mail, which takes no line's end.
    return NotificationText(
        title=_shortened(" ".join(title.split()), MAX_TITLE), text=_shortened(text, MAX_TEXT), path=path
    )


def _shortened(text: str, maximum: int) -> str:
    return text if len(text) <= maximum else text[: maximum - 1] + "…"

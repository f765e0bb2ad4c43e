"""darkroom notifications."""

from __future__ import annotations

from storage.postgres.accounts import accounts
from storage.postgres.connection import Database, Query
from storage.postgres.notifications import notifications, sendings
from storage.postgres.notifications.sendings import Purpose, SendingState
from storage.records.notifications.channels import Channel
from storage.settings import load_settings
from tests.deployments.line import Line

ENDPOINT = "6f0c1e0a-2b1d-4d57-9a2f-0b7f3a0c9d11"


def test_an_announcement_is_told_once_for_its_key(line: Line) -> None:
    said = ("notifications", "announce", "sunday", "Maintenance", "We are unavailable.")
    first, again = line(*said), line(*said)
    unknown = line(*said[:2], "monday", *said[3:], "--account", "nobody")

    assert (first.output, again.output) == ("it is being sent\n", "nothing: 'sunday' was sent before\n")
    assert unknown.output == "error: No account 'nobody'.\n"
    with Database(load_settings().postgres) as database:
        waiting = database.run(notifications.waiting())
        assert waiting is not None
        assert (waiting.key, waiting.audience) == ("announcement:sunday", "everyone")


def test_a_channel_is_paused_and_resumed_and_what_was_given_up_is_sent_again(line: Line) -> None:
    with Database(load_settings().postgres) as database:
        reader = database.run(accounts.ensure_account("owner")).number
        identity = Query("select %(id)s::uuid as id", {"id": ENDPOINT}, lambda rows: rows[0]["id"])
        database.run(sendings.add(Purpose.TEST, reader, Channel.EMAIL, database.run(identity)))
        claimed = database.run(sendings.claim(60))
        assert claimed is not None
        database.run(sendings.end(claimed, SendingState.DEAD, "450 busy"))

    assert "450 busy" in line("notifications", "dead").output
    assert line("notifications", "pause", "email").exit_code == 0
    assert "email" in line("notifications", "status").output
    assert line("notifications", "replay", str(claimed.id)).output == f"sending {claimed.id} is due again\n"
    assert line("notifications", "replay", str(claimed.id)).exit_code == 1
    with Database(load_settings().postgres) as database:
        assert database.run(sendings.claim(60)) is None
        assert line("notifications", "resume", "email").output == "email goes on\n"
        again = database.run(sendings.claim(60))
        assert again is not None
        assert again.id == claimed.id
    assert line("notifications", "pause", "in_app").output.startswith("error: in_app is shown, not sent")

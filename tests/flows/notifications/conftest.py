"""Readers, and what they are notified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from pydantic import SecretStr

from flows.notifications.channels.protocol import Message, Outcome, Sender
from flows.notifications.channels.protocol import Sent as Taken
from flows.notifications.fan_out import fan_out
from storage.postgres.accounts import accounts
from storage.postgres.connection import Query
from storage.postgres.notifications import endpoints, in_app, notifications, preferences
from storage.postgres.notifications.endpoints import EndpointState
from storage.postgres.notifications.in_app import InApp
from storage.postgres.social import social
from storage.records.notifications.channels import Channel
from storage.records.notifications.notifications import (
    Commented,
    Content,
    Frequency,
    JobFinished,
    Preference,
    SystemNotice,
)
from storage.records.policy.viewers import viewer_of
from storage.records.social.social import Subject
from storage.sealing import Seal
from storage.settings import ApiSettings, NotificationSettings, Settings
from storage.stores import Stores
from tests.storage.makers import a_published_model

HOOK = "https://hooks.example.com/darkroom?secret=42"
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DONE = JobFinished(job_id=UUID(int=1), job_kind="generation")
NOTICE = SystemNotice(title="Maintenance", text="The platform is unavailable on Sunday.")


@dataclass
class Notifier:
    """A platform with readers."""

    stores: Stores

    def reader(self, name: str) -> int:
        """The number of the account of a name, made when new."""
        return self.stores.database.run(accounts.ensure_account(name)).number

    def readers(self, count: int) -> list[int]:
        """Many accounts at once."""
        made = "insert into accounts (name) select 'reader ' || n from generate_series(1, %(count)s) n returning number"
        return self.stores.database.run(Query(made, {"count": count}, lambda rows: [row["number"] for row in rows]))

    def wants(self, reader: int, kind: str, channel: Channel, frequency: Frequency) -> None:
        """Say how often a reader wants to be notified."""
        wish = Preference(type=kind, channel=channel, frequency=frequency)
        self.stores.database.run(preferences.say(reader, [wish]))

    def notify(self, key: str, content: Content = NOTICE, readers: Sequence[int] | None = None) -> list[int]:
        """Add a notification; returns its id."""
        return self.stores.database.run(notifications.add(key, content, readers))

    def comment(self, excerpt: str = "Nice.") -> Commented:
        """A notification about a comment of bob's on a published model."""
        database = self.stores.database
        bob = database.run(accounts.ensure_account("bob"))
        model = a_published_model(database, bob.id, "M")
        comment = database.run(social.comment(viewer_of(bob), bob.id, Subject.MODEL, model.id, excerpt))
        return Commented(comment_id=comment.id, by="bob", on="M", model_id=model.id, excerpt=excerpt)

    def fan_out(self) -> int:
        """Fan out everything that waits."""
        return fan_out(self.stores)

    def list_of(self, reader: int) -> list[InApp]:
        """What a reader finds in the app, the newest first."""
        return self.stores.database.run(in_app.page(reader, before=None, unread=False, limit=1000))

    def register(self, reader: int, channel: Channel, address: str, state: str = "active") -> UUID:
        """Give a reader an address."""
        seal = Seal(self.stores.settings.notifications)
        sealed = {"address": seal.seal(address), "secret": seal.seal(SECRET) if channel is Channel.WEBHOOK else None}
        return self.stores.database.run(endpoints.put(reader, channel, EndpointState(state), shown="…", **sealed)).id

    def states(self) -> list[str]:
        """The states of all deliveries that leave the platform."""
        found = self.rows("select state from deliveries where channel <> 'in_app' order by id")
        return [str(row["state"]) for row in found]

    def hurry(self) -> None:
        """Have what waits for another try be due now."""
        self.rows("update sendings set next_attempt_at = now() where state = 'due' returning id")

    def rows(self, statement: str, **parameters: object) -> list[dict[str, object]]:
        """What a statement returns."""
        return self.stores.database.run(Query(statement, parameters, lambda rows: [dict(row) for row in rows]))


@dataclass
class Post:
    """A channel that does as it is asked, and remembers what it got."""

    outcome: Outcome = field(default_factory=Taken)
    messages: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> Outcome:
        """Remember a message."""
        self.messages.append(message)
        return self.outcome


def both(sender: Sender) -> Mapping[Channel, Sender]:
    """One sender for e-mail and webhooks."""
    return {Channel.EMAIL: sender, Channel.WEBHOOK: sender}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings with keys, and a time for calls that tests can wait for."""
    notifying = NotificationSettings(sealing_key=SecretStr("a sealing key"), call_seconds=2, claim_seconds=4)
    return settings.model_copy(
        update={
            "notifications": notifying,
            "api": ApiSettings(signing_key=SecretStr("a key"), public_url="https://d.example"),
        }
    )


@pytest.fixture
def notifier(stores: Stores) -> Notifier:
    """Nobody yet."""
    return Notifier(stores)

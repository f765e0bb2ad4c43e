"""Secrets at rest: sealed under one key, readable under the one before it, sealed again by the next write."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from storage.errors import SealBroken
from storage.postgres.accounts import accounts
from storage.postgres.connection import Database
from storage.postgres.notifications import endpoints
from storage.postgres.notifications.endpoints import EndpointState
from storage.records.notifications.channels import Channel
from storage.sealing import Seal
from storage.settings import NotificationSettings


def a_seal(current: str, previous: str = "") -> Seal:
    """A seal of two keys."""
    return Seal(NotificationSettings(sealing_key=SecretStr(current), previous_sealing_key=SecretStr(previous)))


def test_what_the_previous_key_sealed_opens_and_is_sealed_anew() -> None:
    old, both, new = a_seal("old"), a_seal("new", "old"), a_seal("new")
    sealed = old.seal("whsec_1")
    assert both.open(sealed) == "whsec_1"
    assert not both.is_current(sealed)
    renewed = both.renewed(sealed)
    assert new.open(renewed) == "whsec_1"
    assert both.renewed(renewed) == renewed
    with pytest.raises(SealBroken):
        new.open(sealed)


def test_an_address_is_sealed_anew_with_its_secrets_unless_it_was_changed_meanwhile(database: Database) -> None:
    reader = database.run(accounts.account(database.run(accounts.ensure_account("reader")).id)).number
    old, both, new = a_seal("old"), a_seal("new", "old"), a_seal("new")

    def put(text: str) -> endpoints.Endpoint:
        sealed = {"address": old.seal(text), "secret": old.seal("s")}
        active = EndpointState.ACTIVE
        return database.run(endpoints.put(reader, Channel.WEBHOOK, active, shown="x", **sealed))

    first = put("https://one.example")
    renewed = database.run(endpoints.reseal(first, both.renewed))
    assert (new.open(renewed.address), new.open(renewed.secret or b"")) == ("https://one.example", "s")
    second = put("https://two.example")
    database.run(endpoints.reseal(renewed, both.renewed))
    assert database.run(endpoints.get(reader, Channel.WEBHOOK)) == second

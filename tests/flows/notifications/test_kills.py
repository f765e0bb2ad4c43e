"""Workers killed at random: everything due ends once, nothing is sent after its success, repeats carry the same id."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr

from flows.notifications.channels.webhook import WebhookSender
from flows.notifications.deliver import deliver
from storage.postgres.notifications import endpoints
from storage.postgres.notifications.endpoints import EndpointState
from storage.records.notifications import notification_times
from storage.records.notifications.channels import Channel
from storage.sealing import Seal
from storage.settings import NotificationSettings, Settings
from storage.stores import open_stores
from tests.flows.notifications.conftest import Notifier
from tests.flows.notifications.internet import PUBLIC, Internet, receiving
from tests.warm import CONTEXT

NAME = "hooks.example.com"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PATIENCE_SECONDS = 90


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A claim runs out soon after the call that it covers."""
    notifying = NotificationSettings(sealing_key=SecretStr("a sealing key"), call_seconds=0.5, claim_seconds=1)
    return settings.model_copy(update={"notifications": notifying})


def work(settings: Settings, authority: str, port: int) -> None:
    """A worker: sends whatever is due until it is killed. Failed tries come again soon."""
    notification_times.RETRY_SECONDS = (0.05,) * len(notification_times.RETRY_SECONDS)
    internet = Internet(Path(authority), {NAME: [PUBLIC]}, {PUBLIC: port})
    with open_stores(settings) as stores:
        sender = WebhookSender(internet.transport(seconds=0.5), "https://d.example")
        while True:
            deliver(stores, {Channel.WEBHOOK: sender}, workers=3)
            time.sleep(0.02)


def start(*arguments: object) -> ForkServerProcess:
    """Another worker's process."""
    process = CONTEXT.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


class Witness:
    """Responds badly at times, and asks the database at each call whether its success is recorded already."""

    def __init__(self, notifier: Notifier, seed: int) -> None:
        self.ids: defaultdict[str, list[str]] = defaultdict(list)
        self.too_late: list[str] = []
        self._told, self._chance = notifier, random.Random(seed)

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        identity = str(request.headers["webhook-id"])
        [row] = self._told.rows("select state from sendings where id = %(id)s", id=UUID(identity))
        if row["state"] != "due":
            self.too_late.append(identity)
        self.ids[request.path].append(identity)
        time.sleep(self._chance.uniform(0, 0.05))
        mood = self._chance.random()
        if mood < 0.1:  # taken, and the response is lost
            request.close_connection = True
        else:
            status = b"500 Oh no" if mood < 0.2 else b"204 Taken"
            request.wfile.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")


def deliveries_under_kills(
    notifier: Notifier, settings: Settings, folder: Path, *, readers: int, kills: int, seed: int
) -> None:
    """Notify some readers by webhook with two workers of which one is killed again and again."""

    chance, seal = random.Random(seed), Seal(settings.notifications)
    for reader in notifier.readers(readers):
        address, secret = seal.seal(f"https://{NAME}/{reader}"), seal.seal(SECRET)
        put = endpoints.put(reader, Channel.WEBHOOK, EndpointState.ACTIVE, address=address, shown="…", secret=secret)
        notifier.stores.database.run(put)
    notifier.notify("to all")
    notifier.fan_out()
    waiting = "select count(*)::int as waiting from deliveries where state = 'waiting'"
    with receiving(folder, NAME) as (internet, receiver):
        witness = Witness(notifier, seed)
        receiver.response = witness
        arguments = (settings, str(internet.authority), receiver.port)
        workers = [start(*arguments) for _ in range(2)]
        killed, deadline = 0, time.monotonic() + PATIENCE_SECONDS
        while notifier.rows(waiting) != [{"waiting": 0}] and time.monotonic() < deadline:
            before = len(receiver.calls)
            while len(receiver.calls) == before and killed < kills and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.1))
            if killed < kills:
                victim = chance.randrange(2)
                workers[victim].kill()
                workers[victim] = start(*arguments)
                killed += 1
        for worker in workers:
            worker.kill()
            worker.join()
    found = notifier.rows(
        "select state, count(*)::int as many from deliveries where channel = 'webhook' group by state"
    )
    ended = {str(row["state"]): int(str(row["many"])) for row in found}
    assert set(ended) <= {"sent", "dead"}
    assert sum(ended.values()) == readers, ended
    assert ended["sent"] >= readers * 0.9, ended
    assert killed == kills
    assert witness.too_late == []
    assert len(witness.ids) == readers
    assert all(len(set(ids)) == 1 for ids in witness.ids.values())
    assert sum(map(len, witness.ids.values())) > readers


@pytest.mark.timeout(200)
def test_workers_that_are_killed_lose_nothing_and_send_nothing_twice_in_effect(
    notifier: Notifier, settings: Settings, tmp_path: Path
) -> None:
    """Each kill leaves up to three calls under way, and a fifth of all are answered badly: both happen often enough."""
    deliveries_under_kills(notifier, settings, tmp_path, readers=40, kills=4, seed=5)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(5))
def test_workers_that_are_killed_at_full_size(
    notifier: Notifier, settings: Settings, tmp_path: Path, seed: int
) -> None:
    deliveries_under_kills(notifier, settings, tmp_path, readers=1000, kills=60, seed=seed)

"""A small catalogue in which everything has a mark of its own, the ways to hide it, and who may still have what."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
from psycopg.types.json import Jsonb

from flows.indexing.new_builds import ensure_live_builds
from flows.indexing.queue_drain import drain
from storage.blobs.store import BlobStore
from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Query
from storage.records.accounts.accounts import Role
from storage.records.catalog.catalog import FileRole, NewFile, NewImage
from storage.records.metrics.leaderboards import BOARDS
from storage.stores import open_stores
from tests.no_prefect import effects_without_prefect
from tests.platform_api.catalog.reading.shelf import file_of, put
from tests.platform_api.door import ALL, Door, form, photo, register_starter, serving, upload
from tests.platform_api.generation.drawing import Artist
from tests.platform_api.http.test_downloads import publish
from tests.platform_api.sending import Sender

NAME, TAG, COMMENT, PROMPT, EXTRA = "zanzibarlamp", "quincetag", "persimmontalk", "mulberryscene", "medlarfile.json"
WEIGHTS, EXTRA_BYTES = b"weights of the lamp" * 99, b"extra of the lamp" * 99
ANONYMOUS, OTHER, OWNER, MODERATOR = "anonymous", "other", "owner", "moderator"
EVERYBODY = frozenset({ANONYMOUS, OTHER, OWNER, MODERATOR})
POWER, NOBODY = frozenset({OWNER, MODERATOR}), frozenset[str]()
ACCOUNTS = {OTHER: "stranger", OWNER: "painter", MODERATOR: "keeper"}


@dataclasses.dataclass
class World:
    """A door and one public model with a mark on everything, of the account `painter`."""

    door: Door
    clients: dict[str, httpx.Client]
    ids: dict[str, str]
    links: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

    def run(self, statement: str, **parameters: object) -> list[dict[str, object]]:
        """Change rows as an operator or another process would."""
        return self.door.database.run(
            Query(statement, {**self.ids, **parameters}, lambda rows: [dict(r) for r in rows])
        )

    def index(self) -> None:
        """What the relay and the sync flow do."""
        with open_stores(self.door.settings) as stores:
            effects_without_prefect(stores).drain()
            drain(stores)


@dataclasses.dataclass(frozen=True)
class Hiding:
    """One way to hide something: how, how it is undone, and who may have which aspect then (others: everybody)."""

    hide: str
    show: str
    may: dict[str, frozenset[str]]


WHOLE = ("model", "version", "bytes", "extra", "image")
"""Aspects of a model that go together: its names, its version's, weights, another file, an image."""
LISTS = ("listed", "listed image", "creator", "public image")
"""What lists show, to everybody the same, and an image's address without a signature."""


def hidden(power: frozenset[str] = POWER, *aspects: str) -> dict[str, frozenset[str]]:
    """The whole model hidden from all but some, and in no list."""
    return {**dict.fromkeys(aspects or WHOLE, power), **dict.fromkeys(LISTS, NOBODY)}


_MODEL = "update models set {} where id = %(model)s::bigint returning id"
_VERSION = "update model_versions set {} where id = %(version)s::bigint returning id"
_IMAGE = "update images set nsfw_level = {} where id = %(image)s::bigint returning id"
_OWNER = "update accounts set {} where name = 'painter' returning id"
HIDINGS: dict[str, Hiding] = {
    "draft": Hiding(_MODEL.format("status = 'Draft'"), _MODEL.format("status = 'Published'"), hidden()),
    "scheduled": Hiding(
        _MODEL.format("status = 'Scheduled', scheduled_for = now() + interval '1 day'"),
        _MODEL.format("status = 'Published', scheduled_for = null"),
        hidden(),
    ),
    "private": Hiding(_MODEL.format("availability = 'Private'"), _MODEL.format("availability = 'Public'"), hidden()),
    "a private version": Hiding(
        _VERSION.format("availability = 'Private'"), _VERSION.format("availability = 'Public'"), hidden()
    ),
    "unlisted": Hiding(
        _MODEL.format("availability = 'Unsearchable'"),
        _MODEL.format("availability = 'Public'"),
        dict.fromkeys(("listed", "listed image", "creator"), NOBODY),
    ),
    "a private file": Hiding(
        "update version_files set visibility = 'Private' where id = %(extra)s::bigint returning id",
        "update version_files set visibility = 'Public' where id = %(extra)s::bigint returning id",
        {"extra": POWER},
    ),
    "for accounts": Hiding(
        _VERSION.format("require_auth = true"),
        _VERSION.format("require_auth = false"),
        {"bytes": EVERYBODY - {ANONYMOUS}, "extra bytes": EVERYBODY - {ANONYMOUS}},
    ),
    "for generation only": Hiding(
        _VERSION.format("usage_control = 'Generation'"),
        _VERSION.format("usage_control = 'Download'"),
        {"bytes": POWER, "extra bytes": POWER},
    ),
    "a blocked image": Hiding(
        _IMAGE.format(32),
        _IMAGE.format(1),
        {"image": POWER, "public image": NOBODY, "listed image": frozenset({MODERATOR}), "listed": NOBODY},
    ),
    "above the level": Hiding(_IMAGE.format(16), _IMAGE.format(1), {"listed": NOBODY}),
    "taken down": Hiding(
        _MODEL.format("mode = 'TakenDown', gone_at = now(), gone_reason = 'a claim'"),
        _MODEL.format("mode = null, gone_at = null, gone_reason = null"),
        # A moderator reads what it was; pictures and stored files are not shown with it.
        {**hidden(frozenset({MODERATOR})), "pictured": NOBODY, "extra": NOBODY, "extra bytes": frozenset({MODERATOR})},
    ),
    "its owner banned": Hiding(
        _OWNER.format("status = 'banned', ban_reason = 'spam'"),
        _OWNER.format("status = 'active', ban_reason = null"),
        {**hidden(frozenset({MODERATOR})), **dict.fromkeys(("own", "own link", "account", "comment"), NOBODY)},
    ),
    "deleted": Hiding("", "", hidden(NOBODY)),
}
"""Every way of hiding. The last one is not undone."""


def allowed(way: str, aspect: str) -> frozenset[str]:
    """Who may have an aspect of the world while it is hidden in this way, or not at all ("")."""
    default = {"own": frozenset({OWNER}), "nothing": NOBODY}.get(aspect, EVERYBODY)
    if not way:
        return default
    may = HIDINGS[way].may
    match aspect:
        case "pictured":
            return may.get(aspect, may.get("image", default))
        case "extra bytes":
            return may.get(aspect, may.get("extra", default))
        case "model comment" | "image comment":
            return may.get("comment", may.get(aspect.split()[0], default))
        case "named image":  # a list by the model's number shows what is in no other list
            return EVERYBODY if way == "unlisted" else may.get("listed image", default)
        case _:
            return may.get(aspect, default)


@contextlib.contextmanager
def a_world(folder: Path, database_url: str, valkey_url: str) -> Iterator[World]:
    """The world, served and indexed."""
    with serving(folder, database_url, valkey_url) as door:
        register_starter(door.database)
        door.database.run(accounts.ensure_account("keeper", Role.MODERATOR))
        keyed = {who: door.client(door.new_key(*ALL, account=name)) for who, name in ACCOUNTS.items()}
        painter = dataclasses.replace(door, account_id=door.account("painter"))
        world = World(door, {ANONYMOUS: door.client(""), **keyed}, {})
        _fill(world, painter)
        with open_stores(door.settings) as stores:
            ensure_live_builds(stores)
        world.index()
        yield world


def _fill(world: World, painter: Door) -> None:
    door, ids = world.door, world.ids
    model, version = put(painter, NAME, WEIGHTS, tags=(TAG,))
    blob = BlobStore(door.settings.blobs).put(EXTRA_BYTES)
    extra = NewFile(path=f"folder/{EXTRA}", role=FileRole.FOLDER, sha256=blob.sha256, size=blob.size)
    hashed = file_of(door, WEIGHTS, "medlar.safetensors")
    door.database.run(catalog.add_files(version.id, [extra, hashed]))
    picture = BlobStore(door.settings.blobs).put(photo(9))
    shown = {"size": picture.size, "media_type": "image/png", "width": 64, "height": 48, "blurhash": "L0"}
    image = NewImage(sha256=picture.sha256, meta={"prompt": PROMPT}, **shown)
    [number] = door.database.run(catalog.add_images(version.id, painter.account_id, [image]))
    files = {file.path: file.id for file in door.database.run(catalog.files(version.id))}
    ids |= {"model": str(model.id), "version": str(version.id), "image": str(number), "picture": picture.sha256}
    ids |= {"weights": str(files["0.safetensors"]), "extra": str(files[f"folder/{EXTRA}"]), "extra_sha": blob.sha256}
    ids["weights_sha"] = file_of(door, WEIGHTS, "x").sha256
    numbers = {who: world.clients[who].get("/api/v1/me").json()["id"] for who in ACCOUNTS}
    ids |= {f"{who}_number": str(number) for who, number in numbers.items()}
    for subject, identity in (("model", model.id), ("image", number)):
        said = {"entity": subject, "entityId": identity, "content": f"{COMMENT} {subject} @stranger"}
        ids[f"{subject}_comment"] = str(world.clients[OWNER].post("/api/v1/comments", json=said).json()["id"])
    _give_own(world)
    _tell(world)
    _rank(world)


def _give_own(world: World) -> None:
    """What is the owner's alone: a job with a sample, a generation with a picture, a source, a data set, an upload."""
    client, ids = world.clients[OWNER], world.ids
    made = publish(world.door, client, availability="Private")
    ids |= {"job": made.job, "sample": made.sha256}
    ids["sample_link"] = client.get(f"/api/v1/training-jobs/{made.job}/samples").json()["items"][0]["imageUrl"]
    world.run(
        "insert into job_checkpoints (job_id, step, sha256, size) values (%(job)s, 77, %(sha256)s, 5) returning step",
        job=made.job,
        sha256=made.sha256,
    )
    asked = {"model": made.version, "prompt": PROMPT, "width": 64, "height": 64}
    ids["generation"] = client.post("/api/v1/generations", json=asked).json()["id"]
    Artist(world.door).draw(ids["generation"])
    [drawn] = client.get(f"/api/v1/generations/{ids['generation']}").json()["images"]
    ids |= {"drawn": drawn["sha256"], "drawn_name": drawn["name"], "drawn_link": drawn["imageUrl"]}
    blob = client.get(f"/v2/consumer/blobs/{ids['generation']}-{drawn['name']}")
    ids["blob_link"] = blob.headers["location"]
    ids["source"] = client.post("/api/v1/generations/sources", files=form(("a.png", photo(8)))).json()["sha256"]
    ids["data_set"] = str(upload(client, 2)["id"])
    sender = Sender(world.door, int(ids["model"]), int(ids["version"]), client)
    ids["upload"] = sender.begin(1000, "half.safetensors").rpartition("/")[2]


def _tell(world: World) -> None:
    """The other reader was told of the version, and mentioned on the model and the image; a notice comes last."""
    ids = world.ids
    contents = [
        ("version_published", {"model_id": int(ids["model"]), "model_version_id": int(ids["version"])}, NAME),
        ("mention", {"comment_id": int(ids["model_comment"])}, f"{COMMENT} model"),
        ("mention", {"comment_id": int(ids["image_comment"])}, f"{COMMENT} image"),
        ("system", {}, "the last notice"),
    ]
    for number, (kind, details, text) in enumerate(contents):
        world.run(
            "with told as (insert into notifications (key, type, details, audience, readers, title, text, done_at)"
            " values (%(key)s, %(kind)s, %(details)s, 'accounts', array[%(other_number)s::bigint], %(text)s, %(text)s,"
            " now()) returning id)"
            " insert into deliveries (notification_id, reader, channel, state, frequency)"
            " select id, %(other_number)s::bigint, 'in_app', 'sent', 'now' from told returning id",
            key=f"{kind}:{number}",
            kind=kind,
            details=Jsonb(details),
            text=text,
        )


def _rank(world: World) -> None:
    """The owner has a place on a board of today."""
    world.run(
        "with edition as (insert into leaderboard_editions (board, day, since, until, definition, published_at)"
        " values ('creators-week', %(day)s, now() - interval '7 days', now(), %(definition)s, now()) returning id)"
        " insert into leaderboard_places (edition_id, account_id, score, counts)"
        " select edition.id, accounts.id, 5, '{}' from edition, accounts where name = 'painter' returning score",
        day=datetime.now(UTC).date(),
        definition=Jsonb(msgspec.to_builtins(BOARDS["creators-week"])),
    )


def delete_for_good(world: World) -> None:
    """The way of hiding that is not undone."""
    model = world.door.database.run(catalog.model_by_id(int(world.ids["model"])))
    world.door.database.run(models.delete(model, "deleted by its owner"))

"""Three identities at one door: an owner, another account, and anybody. The first two have things that nobody else may
see, with a word in everything that can hold one: no response to anybody else may ever have that word in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from uuid import uuid4

import httpx

from storage.postgres.catalog import catalog
from storage.records.catalog.catalog import FileRole, NewFile
from tests.platform_api.door import ALL, Door, form, photo
from tests.platform_api.http.test_downloads import publish
from tests.platform_api.sending import TUS, Sender

KINDS = ("model_id", "version_id", "image_id", "job_id", "data_set_id", "upload_id", "key_id", "comment_id")
"""Parameters of addresses that name what belongs to somebody."""


@dataclass
class Identity:
    """Who sends a request. `word` is in everything private of theirs, `things` are those by their parameters."""

    name: str
    key: str = ""
    word: str = ""
    things: dict[str, list[object]] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """What their requests carry."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def owns(self, parameters: Mapping[str, object]) -> bool:
        """Whether an address names something private of theirs."""
        return any(str(value) in map(str, self.things.get(name, ())) for name, value in parameters.items())


def three_identities(door: Door) -> list[Identity]:
    """The owner, another account with as much, and anybody."""
    found = [Identity("owner", door.key), Identity("other", door.new_key(*ALL, account="other")), Identity("anybody")]
    for identity in found[:2]:
        identity.word = f"canary{uuid4().hex}"
        plant(door, identity)
    return found


def plant(door: Door, identity: Identity) -> None:
    """Give an identity one private thing of every kind, and a public model whose number strangers know."""
    client, word = door.client(identity.key), identity.word
    data_set = made(client.post("/api/v1/data-sets", files=photos(word), data={"name": word}))
    fine_tune = publish(door, client, name=f"{word}.safetensors", availability="Private")
    model, version = fine_tune.model, fine_tune.version
    made(client.patch(f"/api/v1/models/{model}", json={"name": word, "description": word, "tags": [word]}))
    made(client.patch(f"/api/v1/model-versions/{version}", json={"description": word, "trainedWords": [word]}))
    image = made(client.post(f"/api/v1/model-versions/{version}/images", files=picture(word)))
    comment = made(client.post("/api/v1/comments", json={"entity": "model", "entityId": model, "content": word}))
    draft = made(client.post("/api/v1/models", json={"name": f"draft of {word}", "type": "LORA"}))
    body = {"name": word, "baseModel": "Other"}
    unfinished = made(client.post(f"/api/v1/models/{draft['id']}/versions", json=body))
    sender = Sender(door, int(str(draft["id"])), int(str(unfinished["id"])), client)
    upload = sender.begin(10, f"{word}.safetensors").rsplit("/", 1)[1]
    key = made(client.post("/api/v1/keys", json={"name": word, "scopes": ["models:read"]}))
    wanted = {"dataSetId": data_set["id"], "classWord": "mug", "name": word, "identifier": word[:32]}
    job = made(client.post("/api/v1/training-jobs", json=wanted))
    hook = f"https://hooks.example.com/{word}"
    made(client.put("/api/v1/notifications/channels/webhook", json={"url": hook}))
    identity.things = {
        "model_id": [model, draft["id"]],
        "version_id": [version, unfinished["id"]],
        "image_id": [image["id"]],
        "job_id": [fine_tune.job, job["id"]],
        "data_set_id": [data_set["id"]],
        "upload_id": [upload],
        "key_id": [key["id"]],
        "comment_id": [comment["id"]],
    }
    client.delete(f"/api/v1/uploads/{sender.begin(10, 'given-up.safetensors').rsplit('/', 1)[1]}", headers=TUS)
    show_everybody(door, client)


def show_everybody(door: Door, client: httpx.Client) -> None:
    """A public model of the client's account, without the word."""
    public = publish(door, client)
    file = NewFile(path="more.safetensors", role=FileRole.WEIGHTS, sha256=public.sha256, size=1)
    door.database.run(catalog.add_files(public.version, [file]))


def photos(word: str) -> list[tuple[str, tuple[str, bytes]]]:
    """Two photos called by the word."""
    return form(*((f"{word}-{number}.png", photo(number)) for number in range(2)))


def picture(word: str) -> list[tuple[str, tuple[str | None, bytes | str]]]:
    """An image whose prompt is the word."""
    return [("files", (f"{word}.png", photo(7))), ("meta", (None, f'{{"prompt": "{word}"}}'))]


def made(response: httpx.Response) -> dict[str, object]:
    """What was made. Raises AssertionError when it was refused."""
    assert response.is_success, f"{response.request.method} {response.request.url}: {response.text}"
    return dict(response.json())


def leaks(identity: Identity, others: list[Identity], response: str) -> Iterator[str]:
    """Whose private things are in a response that is not theirs."""
    for other in others:
        if other is not identity and other.word and other.word in response:
            yield f"a response to {identity.name} shows what only {other.name} may see"


TABLES = (
    *("models", "model_versions", "version_files", "images", "data_sets", "data_set_images", "jobs", "model_uploads"),
    *("api_keys", "comments", "endpoints"),
)
"""Where the word may stand."""
OF_TIME = ("updated_at", "settled_by", "revision", "last_used_at", "expires_at", "heartbeat_at")


def planted_rows(door: Door, identity: Identity) -> set[str]:
    """Every row that has the word in it, without what time alone changes."""
    rows: set[str] = set()
    with door.database.connect() as connection:
        for table in TABLES:
            statement = f"select '{table} ' || (to_jsonb(row) - %(times)s::text[])::text as text from {table} row"
            found = connection.execute(statement.encode(), {"times": list(OF_TIME)}).fetchall()
            rows |= {str(row["text"]) for row in found if identity.word in str(row["text"])}
    return rows

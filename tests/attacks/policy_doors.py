"""Every route of the live app: how it is asked for what can be hidden, or why it can give nothing of that kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from storage.records.notifications.channels import OUTWARD
from tests.attacks.policy_world import (
    ANONYMOUS,
    COMMENT,
    EVERYBODY,
    EXTRA,
    EXTRA_BYTES,
    NAME,
    OTHER,
    OWNER,
    PROMPT,
    TAG,
    WEIGHTS,
    World,
)
from tests.platform_api.http.test_downloads import CONTENT

Route = tuple[str, str]
V1, V2 = "/api/v1", "/v2/consumer"
_AIR = "urn:air:sd1:checkpoint:civitai:{model}@{version}"
TOLD = frozenset({OTHER})


@dataclass(frozen=True)
class Ask:
    """A request for one aspect of the world: with the mark in its response, it gave it. {names} are the world's ids.

    whose: who alone is given it at all, as a list of one's own things.
    """

    route: Route
    aspect: str
    path: str
    mark: str | bytes
    json: list[str] | None = None
    readers: frozenset[str] = EVERYBODY
    headers: dict[str, str] = field(default_factory=dict)
    whose: str | None = None

    def returns(self, world: World, who: str) -> bool:
        """Whether this reader is given the aspect."""
        client, path = world.clients[who], self.path.format(**world.ids)
        method, body = self.route[0], None if self.json is None else [part.format(**world.ids) for part in self.json]
        if self.route[1].endswith("/events"):
            return self._is_streamed(client, path, world)
        response = client.request(method, path, json=body, headers=self.headers, follow_redirects=True)
        if method == "HEAD":
            return response.status_code < 400
        mark = self.mark.format(**world.ids).lower().encode() if isinstance(self.mark, str) else self.mark
        return mark in (response.content.lower() if isinstance(self.mark, str) else response.content)

    def _is_streamed(self, client: httpx.Client, path: str, world: World) -> bool:
        """The same for a stream, read up to the last that there is to read."""
        assert isinstance(self.mark, str)
        mark = self.mark.format(**world.ids)
        with client.stream("GET", path, headers=self.headers) as response:
            if response.status_code != 200:
                return False
            for line in response.iter_lines():
                if mark in line:
                    return True
                if "the last notice" in line:
                    return False
        return False


@dataclass(frozen=True)
class LinkAsk:
    """A link that was made for a reader, opened by anybody. `of` finds it, now or from before the hiding."""

    route: Route
    aspect: str
    of: Callable[[World, str], str | None]
    content: Callable[[World], bytes | None]
    readers: frozenset[str] = EVERYBODY
    whose: str | None = None

    def returns(self, world: World, who: str) -> bool:
        """Whether the link that this reader has opens the bytes."""
        link = self.of(world, who)
        if link is None:
            return False
        response = world.clients[ANONYMOUS].request(self.route[0], link)
        return response.status_code == 200 if self.route[0] == "HEAD" else response.content == self.content(world)


def shown_image(world: World, who: str) -> str | None:
    """The address of the image, as the model shows it to a reader."""
    response = world.clients[who].get(f"{V1}/models/{world.ids['model']}")
    versions = response.json()["modelVersions"] if response.status_code == 200 else []
    return next((image["url"] for version in versions for image in version["images"]), None)


def download_link(world: World, who: str) -> str | None:
    """Where the download led this reader before anything was hidden."""
    return world.links[who].get("download")


def plain_image(world: World, who: str) -> str:
    """The image's address without a signature."""
    return f"{V1}/images/{world.ids['picture']}/original=true/{world.ids['image']}.png"


def sample_link(world: World, who: str) -> str:
    """The link to the sample of the owner's job."""
    return world.ids["sample_link"]


def drawn_link(world: World, who: str) -> str:
    """The link to the picture of the owner's generation."""
    return world.ids["drawn_link"]


def blob_link(world: World, who: str) -> str:
    """The same picture's link as a blob."""
    return world.ids["blob_link"]


def picture(world: World) -> bytes:
    """The image's bytes."""
    return _bytes_of(world, "picture")


def drawn_picture(world: World) -> bytes:
    """The bytes of the generation's picture."""
    return _bytes_of(world, "drawn")


def _bytes_of(world: World, name: str) -> bytes:
    digest = world.ids[name]
    return (world.door.settings.data_folder / "blobs" / digest[:2] / digest).read_bytes()


_VERSION = f"{V1}/model-versions/{{version}}"
_FILES: Route = ("GET", f"{V1}/model-versions/{{version_id}}/files/{{path}}")
_DOWNLOAD = ("GET", "/api/download/models/{version_id}")
_IMAGES, _SEARCH = ("GET", f"{V1}/images"), ("GET", f"{V1}/search")
_BY_HASH, _IDS = ("POST", f"{V1}/model-versions/by-hash"), ("POST", f"{V1}/model-versions/by-hash/ids")
_COMMENTS, _NOTICES = ("GET", f"{V1}/comments"), ("GET", f"{V1}/notifications")
_SIGNED, _JOB_IMAGE = f"{V1}/images/{{sha256}}/{{transform}}/{{name}}", f"{V1}/images/{{sha256}}"
_LINKED = "/api/download/files/{file_id}/{name}"
_EVENTS: Route = ("GET", f"{V1}/notifications/events")
_PNG = b"\x89PNG"
_FROM_THE_FIRST = {"Last-Event-ID": "0"}
_KINDS = (("training-jobs", "{job}"), ("generations", "{generation}"))

ASKS: tuple[Ask | LinkAsk, ...] = (
    Ask(("GET", f"{V1}/models"), "listed", f"{V1}/models?sort=Newest", NAME),
    Ask(("GET", f"{V1}/models"), "listed", f"{V1}/models?ids={{model}}", NAME),
    Ask(("GET", f"{V1}/models"), "listed", f"{V1}/models?query={NAME}", NAME),
    Ask(("GET", f"{V1}/me/models"), "model", f"{V1}/me/models", NAME, whose=OWNER),
    Ask(("GET", f"{V1}/me/models"), "pictured", f"{V1}/me/models", "{picture}", whose=OWNER),
    Ask(("GET", f"{V1}/models/{{model_id}}"), "model", f"{V1}/models/{{model}}", NAME),
    Ask(("GET", f"{V1}/models/{{model_id}}"), "pictured", f"{V1}/models/{{model}}", "{picture}"),
    Ask(("GET", f"{V1}/models/{{model_id}}/stats"), "model", f"{V1}/models/{{model}}/stats", "viewCount"),
    Ask(("GET", f"{V1}/model-versions/{{version_id}}"), "version", _VERSION, NAME),
    Ask(("GET", f"{V1}/model-versions/{{version_id}}"), "pictured", _VERSION, "{picture}"),
    Ask(("GET", f"{V1}/model-versions/{{version_id}}"), "extra", _VERSION, EXTRA),
    Ask(("GET", f"{V1}/model-versions/{{version_id}}"), "extra", _VERSION, "{extra_sha}"),
    Ask(("GET", f"{V1}/model-versions/{{version_id}}/stats"), "version", f"{_VERSION}/stats", "viewCount"),
    Ask(("GET", f"{V1}/model-versions/mini/{{version_id}}"), "version", f"{V1}/model-versions/mini/{{version}}", NAME),
    Ask(
        ("GET", f"{V1}/model-versions/by-hash/{{hash}}"),
        "version",
        f"{V1}/model-versions/by-hash/{{weights_sha}}",
        NAME,
    ),
    Ask(_BY_HASH, "version", _BY_HASH[1], NAME, json=["{weights_sha}"]),
    Ask(_IDS, "version", _IDS[1], '"modelversionid":{version},', json=["{weights_sha}"]),
    Ask(_FILES, "bytes", f"{_VERSION}/files/0.safetensors", WEIGHTS),
    Ask(_FILES, "extra bytes", f"{_VERSION}/files/folder/{EXTRA}", EXTRA_BYTES),
    Ask(("HEAD", _FILES[1]), "bytes", f"{_VERSION}/files/0.safetensors", ""),
    Ask(("HEAD", _FILES[1]), "extra bytes", f"{_VERSION}/files/folder/{EXTRA}", ""),
    Ask(_DOWNLOAD, "bytes", "/api/download/models/{version}", WEIGHTS),
    Ask(("HEAD", _DOWNLOAD[1]), "bytes", "/api/download/models/{version}", ""),
    LinkAsk(("GET", _LINKED), "bytes", download_link, lambda _: WEIGHTS),
    LinkAsk(("HEAD", _LINKED), "bytes", download_link, lambda _: None),
    Ask(_IMAGES, "listed", f"{V1}/images?sort=Newest", "{picture}"),
    Ask(_IMAGES, "listed image", f"{V1}/images?sort=Newest&browsingLevel=63", "{picture}"),
    Ask(_IMAGES, "named image", f"{V1}/images?modelId={{model}}&browsingLevel=63&withMeta=true", PROMPT),
    LinkAsk(("GET", _SIGNED), "pictured", shown_image, picture),
    LinkAsk(("HEAD", _SIGNED), "pictured", shown_image, lambda _: None),
    LinkAsk(("GET", _SIGNED), "public image", plain_image, picture),
    LinkAsk(("GET", _JOB_IMAGE), "own link", sample_link, lambda _: CONTENT),
    LinkAsk(("HEAD", _JOB_IMAGE), "own link", sample_link, lambda _: None),
    Ask(("GET", f"{V1}/images/{{image_id}}/stats"), "image", f"{V1}/images/{{image}}/stats", "likeCount"),
    Ask(_SEARCH, "listed", f"{V1}/search?q={NAME}", f'"name":"{NAME}"'),
    Ask(_SEARCH, "listed", f"{V1}/search?type=image&q={PROMPT}", "{picture}"),
    Ask(_SEARCH, "listed image", f"{V1}/search?type=image&q={PROMPT}&browsingLevel=63", "{picture}"),
    Ask(_SEARCH, "creator", f"{V1}/search?type=creator&q=painter&browsingLevel=63", '"username":"painter"'),
    Ask(("GET", f"{V1}/creators"), "creator", f"{V1}/creators", '"username":"painter"'),
    Ask(("GET", f"{V1}/tags"), "creator", f"{V1}/tags", TAG),
    Ask(("GET", f"{V1}/users"), "account", f"{V1}/users?query=paint", '"username":"painter"'),
    Ask(
        ("GET", f"{V1}/leaderboards/{{board_id}}"),
        "account",
        f"{V1}/leaderboards/creators-week",
        '"username":"painter"',
    ),
    Ask(_COMMENTS, "model comment", f"{V1}/comments?entity=model&entityId={{model}}", COMMENT),
    Ask(_COMMENTS, "image comment", f"{V1}/comments?entity=image&entityId={{image}}", COMMENT),
    Ask(("GET", f"{V1}/comments/{{comment_id}}"), "model comment", f"{V1}/comments/{{model_comment}}", COMMENT),
    Ask(("GET", f"{V1}/comments/{{comment_id}}"), "image comment", f"{V1}/comments/{{image_comment}}", COMMENT),
    Ask(_NOTICES, "version", _NOTICES[1], NAME, readers=TOLD),
    Ask(_NOTICES, "model comment", f"{_NOTICES[1]}?unread=true", f"{COMMENT} model", readers=TOLD),
    Ask(_NOTICES, "image comment", _NOTICES[1], f"{COMMENT} image", readers=TOLD),
    Ask(
        ("GET", f"{V1}/notifications/unread"),
        "version",
        f"{V1}/notifications/unread",
        "version_published",
        readers=TOLD,
    ),
    Ask(_EVENTS, "version", _EVENTS[1], NAME, readers=TOLD, headers=_FROM_THE_FIRST),
    Ask(_EVENTS, "image comment", _EVENTS[1], f"{COMMENT} image", readers=TOLD, headers=_FROM_THE_FIRST),
    *(Ask(("GET", f"{V1}/{noun}"), "own", f"{V1}/{noun}", mark) for noun, mark in _KINDS),
    *(Ask(("GET", f"{V1}/{noun}/{{job_id}}"), "own", f"{V1}/{noun}/{mark}", '"state"') for noun, mark in _KINDS),
    *(
        Ask(("GET", f"{V1}/{noun}/{{job_id}}/events"), "own", f"{V1}/{noun}/{mark}/events", mark)
        for noun, mark in _KINDS
    ),
    Ask(
        ("GET", f"{V1}/training-jobs/{{job_id}}/checkpoints"),
        "own",
        f"{V1}/training-jobs/{{job}}/checkpoints",
        '"step":77',
    ),
    Ask(("GET", f"{V1}/training-jobs/{{job_id}}/files"), "own", f"{V1}/training-jobs/{{job}}/files", "{sample}"),
    Ask(("GET", f"{V1}/training-jobs/{{job_id}}/samples"), "own", f"{V1}/training-jobs/{{job}}/samples", "{sample}"),
    *(
        Ask(
            (method, f"{V1}/training-jobs/{{job_id}}/files/{{name}}"),
            "own",
            f"{V1}/training-jobs/{{job}}/files/{_FILE}",
            CONTENT,
        )
        for method in ("GET", "HEAD")
        for _FILE in ("samples/step%203.png",)
    ),
    Ask(("GET", f"{V1}/generations/{{job_id}}/files"), "own", f"{V1}/generations/{{generation}}/files", "{drawn}"),
    Ask(("GET", f"{V1}/generations/{{job_id}}"), "own", f"{V1}/generations/{{generation}}", PROMPT),
    *(
        Ask((method, f"{V1}/generations/{place}"), "own", f"{V1}/generations/{path}", _PNG)
        for method in ("GET", "HEAD")
        for place, path in (
            ("{job_id}/files/{name}", "{generation}/files/{drawn_name}"),
            ("sources/{sha256}", "sources/{source}"),
        )
    ),
    LinkAsk(("GET", _JOB_IMAGE), "own link", drawn_link, drawn_picture),
    Ask(("GET", f"{V2}/workflows"), "own", f"{V2}/workflows", PROMPT),
    Ask(("GET", f"{V2}/workflows/{{workflow_id}}"), "own", f"{V2}/workflows/{{generation}}", PROMPT),
    Ask(
        ("GET", f"{V2}/workflows/{{workflow_id}}/steps/{{step_name}}"),
        "own",
        f"{V2}/workflows/{{generation}}/steps/0",
        PROMPT,
    ),
    *(
        Ask((method, f"{V2}/blobs/{{blob_id}}"), "own", f"{V2}/blobs/{blob}", _PNG)
        for method in ("GET", "HEAD")
        for blob in ("{generation}-{drawn_name}", "{source}")
    ),
    LinkAsk(("GET", f"{V2}/blobs/content/{{token}}"), "own link", blob_link, drawn_picture),
    LinkAsk(("HEAD", f"{V2}/blobs/content/{{token}}"), "own link", blob_link, lambda _: None),
    Ask(("GET", "/v2/resources/{air}"), "version", f"/v2/resources/{_AIR}", NAME),
    Ask(("GET", f"{V1}/data-sets"), "own", f"{V1}/data-sets", "{data_set}"),
    Ask(("GET", f"{V1}/data-sets/{{data_set_id}}"), "own", f"{V1}/data-sets/{{data_set}}", '"id":"{data_set}"'),
    *(
        Ask(
            (method, f"{V1}/uploads/{{upload_id}}"),
            "own",
            f"{V1}/uploads/{{upload}}",
            "half.safetensors",
            headers={"Tus-Resumable": "1.0.0"},
        )
        for method in ("GET", "HEAD")
    ),
)
"""What is asked of the doors that give something."""

_OWN = "only what the caller's account made or said itself"
_CHECKED = "checked as the detail, which is asked; this world's generation has neither a grid nor a preview"
_WORDS = "nothing of anybody's: words, counters or pages of the platform itself"
_ADDS = "responds with what the caller sends"
GIVES_NOTHING: dict[Route, str] = {
    **{("GET", f"{V1}/generations/{{job_id}}/{part}"): _CHECKED for part in ("samples", "preview")},
    **{
        ("GET", f"{V1}/{path}"): _OWN
        for path in (
            *("me", "keys", "follows", "reactions/{entity}/{entity_id}", "activity/rejected"),
            *("notifications/preferences", "notifications/channels", "notifications/channels/push/key"),
            "notifications/dead-letters",
        )
    },
    **{
        ("GET", path): _WORDS
        for path in (
            f"{V1}/generations/backends",
            *(f"{V1}/enums", f"{V1}/base-models", f"{V1}/base-models/{{name}}", f"{V1}/freshness"),
            *(f"{V1}/leaderboards", f"{V1}/notifications/confirm", f"{V1}/notifications/unsubscribe"),
            *("/health", "/health/live", "/health/ready", "/metrics", "/docs", "/docs/{version}/{name}"),
            "/schema/openapi.json",
        )
    },
    **{
        ("POST", f"{V1}/{path}"): _ADDS
        for path in (
            *(
                "models",
                "data-sets",
                "training-jobs",
                "generations/sources",
                "keys",
                "activity",
                "notifications/confirm",
            ),
            *("notifications/unsubscribe", "notifications/read", "notifications/{notification_id}/read"),
            *("notifications/channels/webhook/secret", "notifications/channels/{channel}/test"),
            "notifications/dead-letters/{sending_id}/replay",
        )
    },
    ("POST", f"{V2}/workflows"): "the same code as recipes, which are asked",
    ("POST", f"{V2}/blobs"): _ADDS,
    ("GET", f"{V2}/blobs/upload"): _OWN,
    **dict.fromkeys(
        (
            *(("GET", f"/v2/services{rest}") for rest in ("", "/{rest}")),
            *(("GET", f"{V2}/{place}/{{rest}}") for place in ("streaming-blobs", "blobs/archive", "blobs/blocked")),
            ("DELETE", f"{V2}/civitai/{{rest}}"),
        ),
        "a refusal by its name, and nothing else",
    ),
    ("POST", f"{V1}/training-jobs/estimate"): "base models, which everybody sees",
    ("DELETE", f"{V1}/keys/{{key_id}}"): _OWN,
    ("PUT", f"{V1}/notifications/preferences"): _ADDS,
    **{
        (method, f"{V1}/notifications/channels/{channel}"): _ADDS for method in ("PUT", "DELETE") for channel in OUTWARD
    },
    **{(method, f"{V1}/follows/{{number}}"): _OWN for method in ("PUT", "DELETE")},
    ("DELETE", f"{V1}/reactions/{{entity}}/{{entity_id}}/{{reaction}}"): _OWN,
    **{
        ("POST", f"{V1}/users/{{user_id}}/{verb}"): "moderators alone, who see every account"
        for verb in ("ban", "unban")
    },
}
"""Routes that can give nothing that is hidden, and why."""


@dataclass(frozen=True)
class Change:
    """A request that changes something; whom it is not for is refused, and told nothing of what is hidden."""

    route: Route
    path: str
    json: object = None
    on: str = "model"


_BODY = {"content": "words"}
CHANGES: tuple[Change, ...] = (
    *(Change((method, f"{V1}/models/{{model_id}}"), f"{V1}/models/{{model}}", {}) for method in ("PATCH", "DELETE")),
    *(
        Change(("POST", f"{V1}/models/{{model_id}}/{verb}"), f"{V1}/models/{{model}}/{verb}", body)
        for verb, body in (
            *(("publish", {}), ("unpublish", None), ("restore", None), ("take-down", {"reason": "x"})),
            ("versions", {"name": "v", "baseModel": "SD 1.5"}),
        )
    ),
    *(Change((method, f"{V1}/model-versions/{{version_id}}"), _VERSION, {}) for method in ("PATCH", "DELETE")),
    *(
        Change(("POST", f"{V1}/model-versions/{{version_id}}/{verb}"), f"{_VERSION}/{verb}", body)
        for verb, body in (("publish", {}), ("unpublish", None), ("images", None))
    ),
    *(Change((method, _FILES[1]), f"{_VERSION}/files/{{extra}}", {}) for method in ("PATCH", "DELETE", "PUT")),
    *(
        Change((method, f"{V1}/model-versions/{{version_id}}/images/{{image_id}}"), f"{_VERSION}/images/{{image}}", {})
        for method in ("PATCH", "DELETE")
    ),
    Change(("PATCH", f"{V1}/comments/{{comment_id}}"), f"{V1}/comments/{{image_comment}}", _BODY),
    Change(("DELETE", f"{V1}/comments/{{comment_id}}"), f"{V1}/comments/{{image_comment}}"),
    *(
        Change(("POST", f"{V1}/{noun}/{{job_id}}/{verb}"), f"{V1}/{noun}/{mark}/{verb}")
        for noun, mark in _KINDS
        for verb in ("cancel", "retry")
    ),
    *(Change(("DELETE", f"{V1}/{noun}/{{job_id}}/files"), f"{V1}/{noun}/{mark}/files") for noun, mark in _KINDS),
    *(
        Change(("POST", f"{V1}/{path}"), f"{V1}/{path}", {"model": "{version}", "prompt": "x"})
        for path in ("generations", "generations/price")
    ),
    *(
        Change((method, f"{V1}/generations/{{job_id}}"), f"{V1}/generations/{{generation}}", body)
        for method, body in (("PATCH", {}), ("DELETE", None))
    ),
    Change(
        ("POST", f"{V1}/generations/{{job_id}}/images/{{name}}/publish"),
        f"{V1}/generations/{{generation}}/images/{{drawn_name}}/publish",
    ),
    Change(("DELETE", f"{V1}/generations/sources/{{sha256}}"), f"{V1}/generations/sources/{{source}}"),
    Change(("POST", f"{V2}/recipes/{{step_type}}"), f"{V2}/recipes/textToImage", {"model": _AIR, "prompt": "x"}),
    *(
        Change((method, f"{V2}/workflows/{{workflow_id}}{place}"), f"{V2}/workflows/{{generation}}{path}", body)
        for method, place, path, body in (
            *(("PUT", "", "", {}), ("PATCH", "", "", []), ("DELETE", "", "", None)),
            ("PUT", "/steps/{step_name}", "/steps/0", {"metadata": {}}),
            ("PATCH", "/steps/{step_name}", "/steps/0", []),
            *(("POST", "/tags", "/tags", "x"), ("DELETE", "/tags", "/tags", None)),
            ("DELETE", "/tags/{tag}", "/tags/x", None),
        )
    ),
    *(
        Change((method, f"{V2}/blobs/{{blob_id}}{place}"), f"{V2}/blobs/{blob}{place}")
        for method, place in (("DELETE", ""), ("POST", "/refresh"))
        for blob in ("{source}", "{generation}-{drawn_name}")
    ),
    Change(("DELETE", f"{V1}/data-sets/{{data_set_id}}"), f"{V1}/data-sets/{{data_set}}"),
    Change(("POST", f"{V1}/uploads"), f"{V1}/uploads"),
    *(
        Change((method, f"{V1}/uploads/{{upload_id}}"), f"{V1}/uploads/{{upload}}")
        for method in ("PATCH", "POST", "DELETE")
    ),
)
"""What only an owner or a moderator may do: refused to others, hidden or not."""

JOINS: tuple[Change, ...] = (
    Change(
        ("PUT", f"{V1}/reactions/{{entity}}/{{entity_id}}/{{reaction}}"), f"{V1}/reactions/model/{{model}}/thumbs_up"
    ),
    Change(
        ("PUT", f"{V1}/reactions/{{entity}}/{{entity_id}}/{{reaction}}"),
        f"{V1}/reactions/image/{{image}}/like",
        on="image",
    ),
    Change(
        ("POST", f"{V1}/comments"),
        f"{V1}/comments",
        {"entity": "image", "entityId": "{image}", "content": "x"},
        "image",
    ),
)
"""What whoever sees a thing may do to it."""

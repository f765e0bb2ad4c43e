"""Who may do what, for every route that the live app has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from litestar import Litestar, get

from platform_api import openapi
from platform_api.access.guards import Open, Reads, Requires
from platform_api.app import create_app
from storage.postgres.accounts import accounts
from storage.postgres.connection import Query
from storage.records.accounts.accounts import Scope, make_key
from storage.records.notifications.channels import OUTWARD
from storage.settings import Settings
from tests.platform_api.door import SWITCHED_ON, UNLIMITED, Door, register_starter, serving

PROJECT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def shared_door(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door without limits: one account tries every scope at every route."""
    with serving(tmp_path_factory.mktemp("door"), module_database_url, limits=UNLIMITED) as door:
        register_starter(door.database)
        yield door


ID = "6f0c1e0a-2b1d-4d57-9a2f-0b7f3a0c9d11"
R, W = Scope.DATA_SETS_READ, Scope.DATA_SETS_WRITE
SOCIAL_READ, SOCIAL_WRITE = Scope.SOCIAL_READ, Scope.SOCIAL_WRITE
TOLD, TELLING = Scope.NOTIFICATIONS_READ, Scope.NOTIFICATIONS_WRITE
READ, WRITE, MODELS, CATALOGUE = Scope.JOBS_READ, Scope.JOBS_WRITE, Scope.MODELS_READ, Scope.MODELS_WRITE

PUBLIC: tuple[tuple[str, str], ...] = (
    ("GET", "/api/v1/models"),
    ("GET", "/api/v1/models/{model_id}"),
    ("GET", "/api/v1/model-versions/{version_id}"),
    ("GET", "/api/v1/model-versions/by-hash/{hash}"),
    ("POST", "/api/v1/model-versions/by-hash"),
    ("POST", "/api/v1/model-versions/by-hash/ids"),
    ("GET", "/api/v1/model-versions/mini/{version_id}"),
    ("GET", "/api/v1/model-versions/{version_id}/files/{path}"),
    ("HEAD", "/api/v1/model-versions/{version_id}/files/{path}"),
    ("GET", "/api/v1/search"),
    ("GET", "/api/v1/images"),
    ("GET", "/api/v1/creators"),
    ("GET", "/api/v1/users"),
    ("GET", "/api/v1/tags"),
    ("GET", "/api/v1/enums"),
    ("GET", "/api/v1/models/{model_id}/stats"),
    ("GET", "/api/v1/model-versions/{version_id}/stats"),
    ("GET", "/api/v1/images/{image_id}/stats"),
    ("GET", "/api/v1/leaderboards"),
    ("GET", "/api/v1/leaderboards/{board_id}"),
    ("GET", "/api/download/models/{version_id}"),
    ("HEAD", "/api/download/models/{version_id}"),
    ("GET", "/v2/resources/{air}"),
)
"""What everybody may read without a key; with one, it must carry the scope."""

COMMENTS = (("GET", "/api/v1/comments"), ("GET", "/api/v1/comments/{comment_id}"))
"""The same, with another scope."""
WRITES: tuple[tuple[str, str], ...] = (
    ("POST", "/api/v1/models"),
    *(
        (method, f"/api/v1/{noun}/{{{name}}}{rest}")
        for noun, name in (("models", "model_id"), ("model-versions", "version_id"))
        for method, rest in (("PATCH", ""), ("DELETE", ""), ("POST", "/publish"), ("POST", "/unpublish"))
    ),
    ("POST", "/api/v1/models/{model_id}/versions"),
    ("POST", "/api/v1/models/{model_id}/take-down"),
    ("POST", "/api/v1/models/{model_id}/restore"),
    ("PATCH", "/api/v1/model-versions/{version_id}/files/{path}"),
    ("DELETE", "/api/v1/model-versions/{version_id}/files/{path}"),
    ("POST", "/api/v1/model-versions/{version_id}/images"),
    ("PATCH", "/api/v1/model-versions/{version_id}/images/{image_id}"),
    ("DELETE", "/api/v1/model-versions/{version_id}/images/{image_id}"),
    ("POST", "/api/v1/users/{user_id}/ban"),
    ("POST", "/api/v1/users/{user_id}/unban"),
)
"""What is written of the catalogue."""

ORCHESTRATION: dict[tuple[str, str], Scope | None] = {
    (method, f"/v2{path}"): scope
    for method, path, scope in (
        ("POST", "/consumer/workflows", WRITE),
        ("GET", "/consumer/workflows", READ),
        ("GET", "/consumer/workflows/{workflow_id}", READ),
        *((method, "/consumer/workflows/{workflow_id}", WRITE) for method in ("PUT", "PATCH", "DELETE")),
        ("GET", "/consumer/workflows/{workflow_id}/steps/{step_name}", READ),
        *((method, "/consumer/workflows/{workflow_id}/steps/{step_name}", WRITE) for method in ("PUT", "PATCH")),
        *((method, "/consumer/workflows/{workflow_id}/tags", WRITE) for method in ("POST", "DELETE")),
        ("DELETE", "/consumer/workflows/{workflow_id}/tags/{tag}", WRITE),
        ("POST", "/consumer/recipes/{step_type}", WRITE),
        ("POST", "/consumer/blobs", WRITE),
        ("GET", "/consumer/blobs/upload", WRITE),
        *((method, "/consumer/blobs/{blob_id}", READ) for method in ("GET", "HEAD")),
        ("DELETE", "/consumer/blobs/{blob_id}", WRITE),
        ("POST", "/consumer/blobs/{blob_id}/refresh", WRITE),
        *((method, "/consumer/blobs/content/{token}", None) for method in ("GET", "HEAD")),
        ("GET", "/resources/{air}", MODELS),
        *(("GET", path, None) for path in ("/services", "/services/{rest}", "/consumer/streaming-blobs/{rest}")),
        *(("GET", f"/consumer/blobs/{word}/{{rest}}", None) for word in ("archive", "blocked")),
        ("DELETE", "/consumer/civitai/{rest}", None),
    )
}
"""Routes that a setting switches on."""

TABLE: dict[tuple[str, str], Scope | None] = {
    ("GET", "/api/v1/data-sets"): R,
    ("POST", "/api/v1/data-sets"): W,
    ("GET", "/api/v1/data-sets/{data_set_id}"): R,
    ("DELETE", "/api/v1/data-sets/{data_set_id}"): W,
    ("GET", "/api/v1/base-models"): MODELS,
    ("GET", "/api/v1/base-models/{name}"): MODELS,
    **{
        (method, f"/api/v1/{noun}{rest}"): scope
        for noun in ("training-jobs", "generations")
        for method, rest, scope in (
            ("GET", "", READ),
            ("POST", "", WRITE),
            ("GET", "/{job_id}", READ),
            ("POST", "/{job_id}/cancel", WRITE),
            ("POST", "/{job_id}/retry", WRITE),
            ("GET", "/{job_id}/events", READ),
            ("GET", "/{job_id}/samples", READ),
            ("GET", "/{job_id}/files", READ),
            ("DELETE", "/{job_id}/files", WRITE),
            ("GET", "/{job_id}/files/{name}", READ),
            ("HEAD", "/{job_id}/files/{name}", READ),
        )
    },
    ("POST", "/api/v1/training-jobs/estimate"): WRITE,
    ("POST", "/api/v1/generations/price"): WRITE,
    ("PATCH", "/api/v1/generations/{job_id}"): WRITE,
    ("DELETE", "/api/v1/generations/{job_id}"): WRITE,
    ("GET", "/api/v1/generations/{job_id}/preview"): READ,
    ("POST", "/api/v1/generations/{job_id}/images/{name}/publish"): CATALOGUE,
    ("GET", "/api/v1/generations/backends"): READ,
    ("POST", "/api/v1/generations/sources"): WRITE,
    **{(method, "/api/v1/generations/sources/{sha256}"): READ for method in ("GET", "HEAD")},
    ("DELETE", "/api/v1/generations/sources/{sha256}"): WRITE,
    ("GET", "/api/v1/training-jobs/{job_id}/checkpoints"): READ,
    ("PUT", "/api/v1/model-versions/{version_id}/files/{path}"): CATALOGUE,
    ("POST", "/api/v1/uploads"): CATALOGUE,
    **dict.fromkeys(
        ((method, "/api/v1/uploads/{upload_id}") for method in ("GET", "HEAD", "PATCH", "DELETE", "POST")), CATALOGUE
    ),
    ("GET", "/api/v1/me"): MODELS,
    ("GET", "/api/v1/me/models"): MODELS,
    ("GET", "/api/v1/follows"): SOCIAL_READ,
    ("PUT", "/api/v1/follows/{number}"): SOCIAL_WRITE,
    ("DELETE", "/api/v1/follows/{number}"): SOCIAL_WRITE,
    ("GET", "/api/v1/reactions/{entity}/{entity_id}"): SOCIAL_READ,
    ("PUT", "/api/v1/reactions/{entity}/{entity_id}/{reaction}"): SOCIAL_WRITE,
    ("DELETE", "/api/v1/reactions/{entity}/{entity_id}/{reaction}"): SOCIAL_WRITE,
    ("POST", "/api/v1/comments"): SOCIAL_WRITE,
    ("POST", "/api/v1/activity"): Scope.ACTIVITY_WRITE,
    ("GET", "/api/v1/activity/rejected"): Scope.ACTIVITY_READ,
    ("GET", "/api/v1/freshness"): Scope.ACTIVITY_READ,
    ("PATCH", "/api/v1/comments/{comment_id}"): SOCIAL_WRITE,
    ("DELETE", "/api/v1/comments/{comment_id}"): SOCIAL_WRITE,
    ("GET", "/api/v1/notifications"): TOLD,
    ("GET", "/api/v1/notifications/unread"): TOLD,
    ("GET", "/api/v1/notifications/events"): TOLD,
    ("GET", "/api/v1/notifications/preferences"): TOLD,
    ("PUT", "/api/v1/notifications/preferences"): TELLING,
    ("POST", "/api/v1/notifications/read"): TELLING,
    ("POST", "/api/v1/notifications/{notification_id}/read"): TELLING,
    ("GET", "/api/v1/keys"): Scope.KEYS_READ,
    ("POST", "/api/v1/keys"): Scope.KEYS_WRITE,
    ("DELETE", "/api/v1/keys/{key_id}"): Scope.KEYS_WRITE,
    **dict.fromkeys(WRITES, CATALOGUE),
    ("GET", "/api/v1/notifications/channels"): TOLD,
    **{
        (method, f"/api/v1/notifications/channels/{channel}"): TELLING
        for method in ("PUT", "DELETE")
        for channel in OUTWARD
    },
    ("POST", "/api/v1/notifications/channels/webhook/secret"): TELLING,
    ("GET", "/api/v1/notifications/channels/push/key"): TOLD,
    ("POST", "/api/v1/notifications/channels/{channel}/test"): TELLING,
    ("GET", "/api/v1/notifications/dead-letters"): TOLD,
    ("POST", "/api/v1/notifications/dead-letters/{sending_id}/replay"): TELLING,
    ("GET", "/api/v1/notifications/confirm"): None,
    ("POST", "/api/v1/notifications/confirm"): None,
    ("GET", "/api/v1/notifications/unsubscribe"): None,
    ("POST", "/api/v1/notifications/unsubscribe"): None,
    **dict.fromkeys(PUBLIC, MODELS),
    **dict.fromkeys(COMMENTS, SOCIAL_READ),
    ("GET", "/api/v1/images/{sha256}"): None,
    ("HEAD", "/api/v1/images/{sha256}"): None,
    ("GET", "/api/v1/images/{sha256}/{transform}/{name}"): None,
    ("HEAD", "/api/v1/images/{sha256}/{transform}/{name}"): None,
    ("GET", "/api/download/files/{file_id}/{name}"): None,
    ("HEAD", "/api/download/files/{file_id}/{name}"): None,
    **ORCHESTRATION,
    ("GET", "/health"): None,
    ("GET", "/health/ready"): None,
    ("GET", "/health/live"): None,
    ("GET", "/metrics"): None,
    ("GET", "/docs"): None,
    ("GET", "/docs/{version}/{name}"): None,
    ("GET", "/schema/openapi.json"): None,
}
"""The one table: every route and the scope it asks for, None where no key is needed."""


def routes(app: Litestar) -> dict[tuple[str, str], Scope | None]:
    """What the live app has, by its guards."""
    found: dict[tuple[str, str], Scope | None] = {}
    for route in app.routes:
        for handler in openapi.handlers_of(route):
            scopes = [guard.scope for guard in handler.resolve_guards() if isinstance(guard, Requires | Reads)]
            for method in handler.http_methods:
                found[(str(method), route.path_format)] = scopes[0] if scopes else None
    return found


def test_every_route_is_in_the_table_with_its_scope(tmp_path: Path):
    assert routes(create_app(Settings(data_folder=tmp_path, orchestration=SWITCHED_ON))) == TABLE
    assert routes(create_app(Settings(data_folder=tmp_path))) == {
        route: scope for route, scope in TABLE.items() if route not in ORCHESTRATION
    }


def test_every_route_times_every_scope(shared_door: Door):
    """The scope that a route asks for is enough, and all others together are not: so none of them is alone."""
    alone = {scope: shared_door.client(shared_door.new_key(scope)) for scope in Scope}
    others = {scope: shared_door.client(shared_door.new_key(*(set(Scope) - {scope}))) for scope in Scope}
    for (method, path), needed in TABLE.items():
        if needed is not None:
            for client, refused in ((alone[needed], False), (others[needed], True)):
                with client.stream(method, filled(path)) as response:  # one of the event streams never ends
                    assert (response.status_code == 403) == refused, (method, path, needed)


def test_every_scoped_route_refuses_without_a_key(shared_door: Door):
    stranger = shared_door.client("")
    for (method, path), needed in TABLE.items():
        refused = needed is not None and (method, path) not in PUBLIC + COMMENTS
        response = stranger.request(method, filled(path))
        assert (response.status_code == 401) == refused, (method, path)
        if refused:
            assert response.headers["www-authenticate"].startswith("Bearer")


def test_a_key_that_does_not_work_is_never_anybody(shared_door: Door):
    wrong = shared_door.client(f"{shared_door.key.rsplit('_', 1)[0]}_{'0' * 64}")
    for method, path in PUBLIC + COMMENTS:
        assert wrong.request(method, filled(path)).status_code == 401, (method, path)


def test_a_banned_accounts_key_is_refused_with_the_reason(door: Door):
    key = door.new_key(*Scope, account="spammer")
    ban = "update accounts set status = 'banned', ban_reason = 'sold spam' where name = 'spammer'"
    door.database.run(Query(ban, {}, len))
    for path in ("/api/v1/models", "/api/v1/me"):
        response = door.client(key).get(path)
        assert (response.status_code, response.json()["code"]) == (403, "account_banned")
        assert "sold spam" in response.json()["detail"]


def filled(path: str) -> str:
    """A path with something in each of its places."""
    for name in ("data_set_id", "job_id", "upload_id", "sending_id", "workflow_id"):
        path = path.replace("{" + name + "}", ID)
    for name in (
        *("model_id", "version_id", "number", "entity_id", "comment_id", "notification_id"),
        *("image_id", "user_id", "key_id"),
    ):
        path = path.replace("{" + name + "}", "999999")
    path = path.replace("{entity}", "model").replace("{reaction}", "thumbs_up")
    path = path.replace("{hash}", "0" * 64).replace("{transform}", "original=true").replace("{file_id}", "1")
    path = path.replace("{channel}", "email").replace("{step_type}", "textToImage").replace("{blob_id}", "0" * 64)
    for name in ("step_name", "tag", "token", "rest"):
        path = path.replace("{" + name + "}", "no-such")
    path = path.replace("{air}", "urn:air:sd1:checkpoint:civitai:9@999999")
    return path.replace("{name}", "no-such").replace("{path}", "a/b").replace("{sha256}", "0" * 64)


def test_a_route_that_states_no_scope_does_not_start():
    @get("/unguarded")
    async def unguarded() -> None: ...

    with pytest.raises(TypeError, match="states no scope"):
        openapi.state_scopes(Litestar([unguarded], openapi_config=None))


def test_open_routes_say_why(tmp_path: Path):
    app = create_app(Settings(data_folder=tmp_path, orchestration=SWITCHED_ON))
    opened = [
        guard for handler in openapi.handlers(app) for guard in handler.resolve_guards() if isinstance(guard, Open)
    ]
    assert opened
    assert all(len(guard.reason) > 20 for guard in opened)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer x",
        "Basic drk_a_b",
        "Bearer drk_a_b",
        "Bearer drk__",
        "Bearer drk_a_b_c",
        "Bearer drk_';--_x",
        "Bearer " + "x" * 4000,
        "Bearer drk_\u00e9_x",
    ],
)
def test_what_is_no_key_is_refused(shared_door: Door, header: str):
    response = httpx.get(f"{shared_door.url}/api/v1/me", headers={b"Authorization": header.encode("latin-1")})
    assert response.status_code == 401
    assert response.json()["code"] == "unauthenticated"


def test_the_right_id_with_another_secret_is_refused(shared_door: Door):
    prefix = shared_door.key.rsplit("_", 1)[0]
    assert shared_door.client(f"{prefix}_{'0' * 64}").get("/api/v1/models").status_code == 401


def test_a_revoked_key_stops_with_the_next_request(shared_door: Door):
    key = shared_door.new_key(Scope.MODELS_READ)
    client = shared_door.client(key)
    assert client.get("/api/v1/models").status_code == 200
    shared_door.database.run(accounts.revoke_key(key.split("_")[1]))
    assert client.get("/api/v1/models").status_code == 401


def test_an_expired_key_is_refused(shared_door: Door):
    key = make_key()
    past = datetime.now(UTC) - timedelta(seconds=1)
    shared_door.database.run(accounts.add_key(shared_door.account_id, key, "old", list(Scope), expires_at=past))
    assert shared_door.client(key.text).get("/api/v1/models").status_code == 401


def test_words_that_are_no_scope_allow_nothing(shared_door: Door):
    key = make_key()
    row = accounts.add_key(shared_door.account_id, key, "odd", [])
    shared_door.database.run(type(row)(row.statement, {**row.parameters, "scopes": ["*", "admin", "models"]}, row.read))
    assert shared_door.client(key.text).get("/api/v1/models").status_code == 403


def test_secrets_are_only_compared_in_constant_time():
    """`==` beside a name that holds a secret is what a timing attack needs."""
    for file in [*PROJECT.glob("platform_api/**/*.py"), PROJECT / "storage/records/accounts/accounts.py"]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                assert not any(word in ast.unparse(node) for word in ("secret", "signature", "_hash")), (
                    file,
                    ast.unparse(node),
                )

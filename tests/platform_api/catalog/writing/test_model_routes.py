"""Models and versions written through the API: drafts, publishing, hiding, deleting; whose they are; once each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Query
from storage.records.accounts.accounts import Role
from tests.platform_api.door import ALL, Door
from tests.platform_api.http.test_problems import assert_problem
from tests.storage.makers import a_file

MODELS, VERSIONS = "/api/v1/models", "/api/v1/model-versions"


def made(client: httpx.Client, name: str, **words: object) -> int:
    """The id of a new draft."""
    response = client.post(MODELS, json={"name": name, "type": "LORA", **words})
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


def with_file(door: Door, client: httpx.Client, model_id: int, sha256: str, name: str = "v1") -> int:
    """The id of a new version, which has a file as an upload would leave it."""
    response = client.post(f"{MODELS}/{model_id}/versions", json={"name": name, "baseModel": "SD 1.5"})
    assert response.status_code == 201, response.text
    door.database.run(catalog.add_files(response.json()["id"], [a_file(sha256 * 64)]))
    return int(response.json()["id"])


def listed(door: Door) -> list[int]:
    """The ids in everybody's list."""
    return [item["id"] for item in door.client("").get(f"{MODELS}?limit=100").json()["items"]]


@pytest.fixture
def stranger(shared_door: Door) -> httpx.Client:
    return shared_door.client(shared_door.new_key(*ALL, account="stranger"))


@pytest.fixture
def moderator(shared_door: Door) -> httpx.Client:
    shared_door.database.run(accounts.ensure_account("keeper", Role.MODERATOR))
    return shared_door.client(shared_door.new_key(*ALL, account="keeper"))


def test_a_model_is_made_given_a_file_and_published(shared_door: Door) -> None:
    owner, anybody = shared_door.client(), shared_door.client("")
    words = {"description": "<p>Warm.</p>", "tags": ["Style ", "style", "Old Master"], "allowCommercialUse": ["Image"]}
    response = owner.post(MODELS, json={"name": " Copper Lantern ", "type": "LORA", **words})
    model = response.json()
    assert (response.status_code, response.headers["location"]) == (201, f"{MODELS}/{model['id']}")
    assert owner.get(response.headers["location"]).json() == model
    assert (model["name"], model["status"], model["tags"]) == ("Copper Lantern", "Draft", ["old master", "style"])
    assert model["allowCommercialUse"] == ["Image"]
    assert_problem(anybody.get(f"{MODELS}/{model['id']}"), 404)
    assert_problem(owner.post(f"{MODELS}/{model['id']}/publish"), 409)
    version_id = with_file(shared_door, owner, model["id"], "1")
    shown = owner.get(f"{VERSIONS}/{version_id}").json()
    assert (shown["status"], shown["modelId"], shown["baseModel"]) == ("Draft", model["id"], "SD 1.5")
    published = owner.post(f"{MODELS}/{model['id']}/publish")
    assert (
        published.json() == owner.get(f"{MODELS}/{model['id']}").json() == anybody.get(f"{MODELS}/{model['id']}").json()
    )
    assert (published.status_code, published.json()["status"]) == (200, "Published")
    assert published.json()["lastVersionAt"] == published.json()["publishedAt"] is not None
    assert model["id"] in listed(shared_door)


def test_republishing_moves_no_date_and_hides_nothing_meanwhile(shared_door: Door) -> None:
    owner = shared_door.client()
    model_id = made(owner, "republished")
    with_file(shared_door, owner, model_id, "2")
    path = f"{MODELS}/{model_id}"
    first = owner.post(f"{path}/publish").json()["publishedAt"]
    assert owner.post(f"{path}/publish").json()["publishedAt"] == first
    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert "Unpublish it first" in str(assert_problem(owner.post(f"{path}/publish", json={"at": soon}), 409)["detail"])
    hidden = owner.post(f"{path}/unpublish").json()
    assert (hidden["status"], hidden["publishedAt"]) == ("Unpublished", first)
    assert model_id not in listed(shared_door)
    assert_problem(owner.post(f"{path}/unpublish"), 409)
    again = owner.post(f"{path}/publish").json()
    assert (again["status"], again["publishedAt"], again["lastVersionAt"]) == ("Published", first, first)


def test_a_model_is_published_when_its_date_has_come(shared_door: Door) -> None:
    owner, at = shared_door.client(), datetime.now(UTC) + timedelta(days=3)
    model_id = made(owner, "scheduled")
    version_id = with_file(shared_door, owner, model_id, "3")
    scheduled = owner.post(f"{MODELS}/{model_id}/publish", json={"at": at.isoformat()}).json()
    assert (scheduled["status"], datetime.fromisoformat(scheduled["publishedAt"])) == ("Scheduled", at)
    assert_problem(shared_door.client("").get(f"{MODELS}/{model_id}"), 404)
    for table, column, number in (("models", "id", model_id), ("model_versions", "id", version_id)):
        due = f"update {table} set scheduled_for = now() where {column} = %(id)s returning id"
        shared_door.database.run(Query(due, {"id": number}, len))
    shared_door.database.run(models.publish_due())
    assert shared_door.client("").get(f"{MODELS}/{model_id}").json()["status"] == "Published"
    for wrong in ("2026-11-24T10:00:00", "tomorrow", "9999-12-31T23:59:59-14:00", 5):
        response = owner.post(f"{MODELS}/{model_id}/publish", json={"at": wrong})
        assert set(assert_problem(response, 422)["errors"]) == {"at"}


def test_what_is_left_out_of_a_change_stays(shared_door: Door) -> None:
    owner = shared_door.client()
    model_id = made(owner, "changed", description="old", tags=["a"], nsfw=True, checkpointType=None)
    path = f"{MODELS}/{model_id}"
    changed = owner.patch(path, json={"name": "renamed", "allowDerivatives": False, "availability": "Unsearchable"})
    assert changed.json() == owner.get(path).json()
    body = changed.json()
    assert (body["name"], body["description"], body["tags"], body["nsfw"]) == ("renamed", "old", ["a"], True)
    assert (body["allowDerivatives"], body["availability"]) == (False, "Unsearchable")
    assert owner.patch(path, json={}).json()["name"] == "renamed"
    assert owner.patch(path, json={"tags": [], "type": "Checkpoint", "checkpointType": "Merge"}).json()["tags"] == []
    for wrong, field in (
        ({"type": "VAE"}, "checkpointType"),
        ({"minor": True}, "nsfw"),
        ({"sfwOnly": True}, "sfwOnly"),
    ):
        assert set(assert_problem(owner.patch(path, json=wrong), 422)["errors"]) == {field}
    assert owner.patch(path, json={"mode": "Archived"}).json()["mode"] == "Archived"
    assert "mode" not in owner.patch(path, json={"mode": None}).json()


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({"type": "LORA"}, {"name": "is required"}),
        ({"name": " \u2003", "type": "LORA"}, {"name": "blank"}),
        ({"name": "x" * 121, "type": "Sculpture"}, {"name": "<= 120", "type": "Sculpture"}),
        ({"name": "a\0b", "type": "LORA"}, {"name": "control"}),
        ({"name": "two\nlines", "type": "LORA"}, {"name": "control"}),
        ({"name": "x", "type": "LORA", "description": "a\0"}, {"description": "control"}),
        ({"name": "x", "type": "LORA", "tags": ["ok", "a,b"]}, {"tags": "'a,b' is no tag"}),
        ({"name": "x", "type": "LORA", "tags": ["a\0"]}, {"tags": "control"}),
        ({"name": "x", "type": "LORA", "tags": [str(n) for n in range(51)]}, {"tags": "<= 50"}),
        ({"name": "x", "type": "LORA", "allowCommercialUse": ["None", "Sell"]}, {"allowCommercialUse": "stands alone"}),
        (
            {"name": "x", "type": "LORA", "nsfw": "yes", "mode": "TakenDown"},
            {"nsfw": "true or false", "mode": "no such"},
        ),
        (
            {"name": "x", "type": "LORA", "status": "Published", "accountId": 1},
            {"status": "no such", "accountId": "no"},
        ),
    ],
)
def test_every_field_that_does_not_pass_is_named_and_nothing_is_made(
    shared_door: Door, body: dict[str, object], faults: dict[str, str]
) -> None:
    count = "select count(*) as n from models"
    before = shared_door.database.run(Query(count, {}, lambda rows: rows[0]["n"]))
    errors = assert_problem(shared_door.client().post(MODELS, json=body), 422)["errors"]
    assert isinstance(errors, dict)
    assert set(errors) == set(faults)
    assert all(reason in errors[name] for name, reason in faults.items()), errors
    assert shared_door.database.run(Query(count, {}, lambda rows: rows[0]["n"])) == before


def test_a_description_keeps_plain_formatting_only(shared_door: Door) -> None:
    said = 'A <b>warm</b>\nlamp & 1 < 2<script>alert(1)</script><img src=x onerror=y><a href="javascript:x">a</a>'
    owner = shared_door.client()
    path = f"{MODELS}/{made(owner, 'described', description=said)}"
    kept = owner.get(path).json()["description"]
    assert kept == 'A <b>warm</b>\nlamp &amp; 1 &lt; 2<a rel="nofollow noopener noreferrer">a</a>'
    assert owner.patch(path, json={"description": kept}).json()["description"] == kept


def test_a_name_is_taken_once_in_an_account(shared_door: Door, stranger: httpx.Client) -> None:
    owner = shared_door.client()
    made(owner, "Once")
    other = made(owner, "other")
    assert_problem(owner.post(MODELS, json={"name": "oNCE", "type": "VAE"}), 422)
    assert_problem(owner.patch(f"{MODELS}/{other}", json={"name": "ONCE"}), 422)
    made(stranger, "Once")


def test_others_may_not_write_what_they_see_and_do_not_find_what_they_do_not(
    shared_door: Door, stranger: httpx.Client
) -> None:
    owner = shared_door.client()
    draft, public = made(owner, "somebody's draft"), made(owner, "somebody's model")
    drafted, shown = with_file(shared_door, owner, draft, "4"), with_file(shared_door, owner, public, "5")
    owner.post(f"{MODELS}/{public}/publish")
    hidden = with_file(shared_door, owner, public, "6", "a draft of a public model")
    for model, version, status in ((draft, drafted, 404), (public, shown, 403), (public, hidden, 404)):
        requests: list[tuple[str, str, object]] = [
            ("PATCH", f"{VERSIONS}/{version}", {"name": "mine"}),
            ("DELETE", f"{VERSIONS}/{version}", None),
            ("POST", f"{VERSIONS}/{version}/publish", None),
            ("POST", f"{VERSIONS}/{version}/unpublish", None),
            ("PATCH", f"{VERSIONS}/{version}/files/x", {"fp": "fp16"}),
            ("DELETE", f"{VERSIONS}/{version}/files/x", None),
        ]
        if version != hidden:
            requests += [
                ("PATCH", f"{MODELS}/{model}", {"name": "mine"}),
                ("DELETE", f"{MODELS}/{model}", None),
                ("POST", f"{MODELS}/{model}/publish", {}),
                ("POST", f"{MODELS}/{model}/unpublish", None),
                ("POST", f"{MODELS}/{model}/versions", {"name": "mine", "baseModel": "SD 1.5"}),
            ]
        for method, path, body in requests:
            problem = assert_problem(stranger.request(method, path, json=body), status)
            assert problem["code"] == {403: "not_allowed", 404: "not_found"}[status], (method, path)
    for path in (f"{MODELS}/{draft}", f"{MODELS}/{public}", f"{VERSIONS}/{hidden}"):
        assert owner.get(path).json()["name"].startswith(("somebody's", "a draft"))


def test_an_account_that_only_reads_makes_nothing(shared_door: Door) -> None:
    shared_door.database.run(accounts.ensure_account("reader", Role.READER))
    reader = shared_door.client(shared_door.new_key(*ALL, account="reader"))
    assert_problem(reader.post(MODELS, json={"name": "x", "type": "LORA"}), 403)


def test_what_is_deleted_responds_that_it_is_gone_and_why(
    shared_door: Door, stranger: httpx.Client, moderator: httpx.Client
) -> None:
    owner = shared_door.client()
    model_id = made(owner, "short-lived", description="secret words")
    keeps, goes = (with_file(shared_door, owner, model_id, digit) for digit in "78")
    owner.post(f"{MODELS}/{model_id}/publish")
    assert owner.delete(f"{VERSIONS}/{goes}").status_code == 204
    for client in (owner, stranger):
        assert "deleted by its owner" in str(assert_problem(client.get(f"{VERSIONS}/{goes}"), 410)["detail"])
    for method, path in (("DELETE", ""), ("POST", "/publish")):
        assert_problem(owner.request(method, f"{VERSIONS}/{goes}{path}"), 410)
    assert [v["id"] for v in owner.get(f"{MODELS}/{model_id}").json()["modelVersions"]] == [keeps]
    assert moderator.delete(f"{MODELS}/{model_id}").status_code == 204
    for client in (owner, stranger, moderator):
        assert "deleted by a moderator" in str(assert_problem(client.get(f"{MODELS}/{model_id}"), 410)["detail"])
        assert_problem(client.patch(f"{MODELS}/{model_id}", json={"name": "back"}), 410)
    assert made(owner, "short-lived") != model_id


def test_a_repeated_creation_is_one_with_one_response(shared_door: Door, stranger: httpx.Client) -> None:
    owner, key = shared_door.client(), {"Idempotency-Key": "make-it"}
    body = {"name": "made once", "type": "LORA"}
    with ThreadPoolExecutor(6) as pool:
        responses = list(pool.map(lambda _: owner.post(MODELS, json=body, headers=key), range(6)))
    assert {response.status_code for response in responses} == {201}
    assert len({response.content for response in responses}) == 1
    first = responses[0]
    owner.patch(first.headers["location"], json={"name": "twice"})
    again = owner.post(MODELS, json=body, headers=key)
    assert (again.content, again.headers["location"]) == (first.content, first.headers["location"])
    reused = assert_problem(owner.post(MODELS, json={**body, "type": "VAE"}, headers=key), 422)
    assert reused["code"] == "idempotency_key_reused"
    theirs = stranger.post(MODELS, json=body, headers=key)
    assert theirs.json()["id"] != first.json()["id"]
    versions = f"{MODELS}/{first.json()['id']}/versions"
    version, other = {"name": "v", "baseModel": "Pony"}, {"Idempotency-Key": "another"}
    added = [owner.post(versions, json=version, headers=other) for _ in range(2)]
    assert added[0].content == added[1].content


def test_a_creation_that_was_refused_leaves_its_key_free(shared_door: Door) -> None:
    owner, key, body = shared_door.client(), {"Idempotency-Key": "try-again"}, {"name": "wanted", "type": "LORA"}
    blocking = made(owner, "wanted")
    assert_problem(owner.post(MODELS, json=body, headers=key), 422)
    owner.delete(f"{MODELS}/{blocking}")
    assert owner.post(MODELS, json=body, headers=key).status_code == 201


def test_changes_at_once_all_count(shared_door: Door) -> None:
    owner = shared_door.client()
    model_id = made(owner, "busy")
    words = [
        {"description": "d"},
        {"tags": ["t"]},
        {"nsfw": True},
        {"poi": True},
        {"allowNoCredit": False},
        {"name": "b"},
    ]
    with ThreadPoolExecutor(6) as pool:
        responses = list(pool.map(lambda body: owner.patch(f"{MODELS}/{model_id}", json=body), words))
    assert {response.status_code for response in responses} == {200}
    shown = owner.get(f"{MODELS}/{model_id}").json()
    assert all(shown[name] == value for body in words for name, value in body.items())


def test_who_names_a_model_and_who_publishes_into_it_wait_for_each_other_in_one_order(shared_door: Door) -> None:
    owner = shared_door.client()
    model_id = made(owner, "fine-tuned into")
    waiting = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    with shared_door.database.connect() as job, ThreadPoolExecutor(1) as pool:
        job.execute("begin")
        job.execute("select from accounts where id = %s for no key update", (shared_door.account_id,))
        renamed = pool.submit(owner.patch, f"{MODELS}/{model_id}", json={"name": "renamed meanwhile"})
        while not shared_door.database.run(Query(waiting, {}, len)):
            assert not renamed.done()
        job.execute("select from models where id = %s for update", (model_id,))
        job.execute("commit")
        assert renamed.result().status_code == 200

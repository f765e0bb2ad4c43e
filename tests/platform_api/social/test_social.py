"""Follows, reactions and comments, each with its event."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Query
from storage.postgres.events import outbox
from storage.records.catalog.catalog import Model, NewImage
from tests.platform_api.door import ALL, Door
from tests.storage.makers import a_model, a_published_model, a_version


@pytest.fixture(scope="module")
def model(shared_door: Door) -> Model:
    """A listed model of the owner's."""
    return a_published_model(shared_door.database, shared_door.account_id, "liked")


def someone(door: Door, name: str) -> httpx.Client:
    return door.client(door.new_key(*ALL, account=name))


def number_of(client: httpx.Client) -> int:
    return int(client.get("/api/v1/me").json()["id"])


def kinds_of(door: Door, subject: str) -> list[str]:
    return [row.kind for row in door.database.run(outbox.of_subject(subject))]


def comment(client: httpx.Client, model_id: int, content: str, **fields: object) -> dict[str, Any]:
    response = client.post(
        "/api/v1/comments", json={"entity": "model", "entityId": model_id, "content": content, **fields}
    )
    assert response.status_code == 201, response.text
    assert response.headers["location"] == f"/api/v1/comments/{response.json()['id']}"
    return response.json()


def test_following_twice_is_following_once(shared_door: Door) -> None:
    ann, bob = someone(shared_door, "ann"), someone(shared_door, "bob")
    number = number_of(bob)
    for following, ask in ((True, ann.put), (True, ann.put), (False, ann.delete), (False, ann.delete), (True, ann.put)):
        response = ask(f"/api/v1/follows/{number}")
        assert (response.status_code, response.json()) == (
            200,
            {"number": number, "username": "bob", "following": following},
        )
    subject = f"account:{shared_door.account('bob')}"
    assert kinds_of(shared_door, subject) == ["follow.added", "follow.removed", "follow.added"]
    assert [item["username"] for item in ann.get("/api/v1/follows").json()["items"]] == ["bob"]
    assert ann.put(f"/api/v1/follows/{number_of(ann)}").status_code == 409
    assert ann.put("/api/v1/follows/999999").status_code == 404


def test_whom_one_follows_comes_in_pages_newest_first(shared_door: Door) -> None:
    fan = someone(shared_door, "fan")
    for name in ("one", "two", "three"):
        fan.put(f"/api/v1/follows/{number_of(someone(shared_door, name))}")
    first = fan.get("/api/v1/follows?limit=2").json()
    assert [item["username"] for item in first["items"]] == ["three", "two"]
    second = fan.get(first["metadata"]["nextPage"]).json()
    assert [item["username"] for item in second["items"]] == ["one"]
    assert second["metadata"]["nextCursor"] is None


def test_a_reaction_counts_once_and_a_thumb_replaces_the_other(shared_door: Door, model: Model) -> None:
    client, at = someone(shared_door, "thumb"), f"/api/v1/reactions/model/{model.id}"
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: client.put(f"{at}/thumbs_up"), range(8)))
    assert {response.status_code for response in responses} == {200}
    assert kinds_of(shared_door, f"model:{model.id}") == ["reaction.added"]
    assert client.put(f"{at}/thumbs_down").json()["reactions"] == ["thumbs_down"]
    assert client.delete(f"{at}/thumbs_up").json()["reactions"] == ["thumbs_down"]
    assert client.delete(f"{at}/thumbs_down").json()["reactions"] == client.get(at).json()["reactions"] == []
    assert kinds_of(shared_door, f"model:{model.id}")[1:] == ["reaction.removed", "reaction.added", "reaction.removed"]
    assert client.put(f"{at}/heart").status_code == 404
    assert client.put(f"{at}/shrug").status_code == 422


def test_up_and_down_at_once_are_one_after_the_other(shared_door: Door, model: Model) -> None:
    client, at = someone(shared_door, "both"), f"/api/v1/reactions/model/{model.id}"
    thumbs = ["thumbs_up", "thumbs_down"] * 12
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda thumb: client.put(f"{at}/{thumb}").json()["reactions"], thumbs))
    assert responses == [[thumb] for thumb in thumbs]
    assert len(client.get(at).json()["reactions"]) == 1


def test_images_and_comments_take_faces(shared_door: Door) -> None:
    database = shared_door.database
    version = a_version(database, a_model(database, shared_door.account_id, "with an image"))
    picture = NewImage(sha256="e" * 64, size=1, media_type="image/png", width=1, height=1, blurhash="")
    [image] = database.run(catalog.add_images(version.id, shared_door.account_id, [picture]))
    client = shared_door.client()
    for reaction in ("heart", "laugh", "heart"):
        response = client.put(f"/api/v1/reactions/image/{image}/{reaction}")
    assert response.json()["reactions"] == ["heart", "laugh"]
    stranger = someone(shared_door, "stranger")
    assert stranger.put(f"/api/v1/reactions/image/{image}/heart").status_code == 404
    assert stranger.put(f"/api/v1/reactions/version/{version.id}/thumbs_up").status_code == 404
    assert stranger.put("/api/v1/reactions/image/999999/heart").status_code == 404


def test_a_comment_is_written_edited_and_deleted_by_its_author_alone(shared_door: Door, model: Model) -> None:
    author, other = someone(shared_door, "author"), someone(shared_door, "other")
    shared_door.account("carol")
    made = comment(author, model.id, "first,\n\tsecond line for @other and @nobody", parentId=None)
    at = f"/api/v1/comments/{made['id']}"
    assert (made["username"], made["mentions"], made["editedAt"]) == ("author", ["other"], None)
    reply = comment(other, model.id, "indeed", parentId=made["id"])
    assert other.patch(at, json={"content": "mine now"}).status_code == 403
    assert other.delete(at).status_code == 403
    edited = author.patch(at, json={"content": "for @author and @carol"}).json()
    assert (edited["content"], edited["mentions"]) == ("for @author and @carol", ["carol"])
    assert edited["editedAt"] is not None
    assert author.patch(at, json={"content": edited["content"]}).json() == edited
    assert author.delete(at).status_code == 204
    assert author.delete(at).status_code == author.patch(at, json={"content": "x"}).status_code == 410
    shown = shared_door.client("").get(f"/api/v1/comments?entity=model&entityId={model.id}&limit=2").json()
    assert [(item["id"], item["content"], item["mentions"], item["deleted"]) for item in shown["items"]] == [
        (reply["id"], "indeed", [], False),
        (made["id"], None, [], True),
    ]
    body = {"entity": "model", "entityId": model.id, "content": "too late", "parentId": made["id"]}
    assert other.post("/api/v1/comments", json=body).status_code == 410
    events = shared_door.database.run(outbox.of_subject(f"comment:{made['id']}"))
    assert [row.kind for row in events] == ["comment.written", "comment.edited", "comment.deleted"]
    assert [row.payload.get("mentioned") for row in events] == [
        [str(shared_door.account("other"))],
        [str(shared_door.account("carol"))],
        None,
    ]


def test_a_moderator_deletes_any_comment_and_a_banned_authors_words_are_hidden(door: Door) -> None:
    database = door.database
    database.run(Query("update accounts set role = 'moderator' where name = 'owner'", {}, len))
    model = a_published_model(database, door.account_id)
    spammer, moderator = someone(door, "spammer"), door.client()
    first, second = comment(spammer, model.id, "buy"), comment(spammer, model.id, "now")
    assert moderator.patch(f"/api/v1/comments/{first['id']}", json={"content": "x"}).status_code == 403
    assert moderator.delete(f"/api/v1/comments/{first['id']}").status_code == 204
    ban = "update accounts set status = 'banned', ban_reason = 'spam' where name = 'spammer'"
    database.run(Query(ban, {}, len))
    assert moderator.get(f"/api/v1/comments/{second['id']}").json()["content"] is None


def test_what_is_not_seen_takes_no_comment_and_shows_none(door: Door) -> None:
    database = door.database
    model = a_published_model(database, door.account_id)
    made = comment(door.client(), model.id, "here")
    database.run(models.unpublish(model))
    anybody, author = someone(door, "anybody"), door.client()
    body = {"entity": "model", "entityId": model.id, "content": "hidden"}
    assert anybody.post("/api/v1/comments", json=body).status_code == 404
    assert anybody.get(f"/api/v1/comments?entity=model&entityId={model.id}").status_code == 404
    assert anybody.get(f"/api/v1/comments/{made['id']}").status_code == 404
    assert author.delete(f"/api/v1/comments/{made['id']}").status_code == 204


@pytest.mark.parametrize("content", ["", "   \n", "bell \x07", "x" * 10_001, 7, None])
def test_a_comment_says_something_in_plain_text(shared_door: Door, model: Model, content: object) -> None:
    body = {"entity": "model", "entityId": model.id, "content": content}
    response = shared_door.client().post("/api/v1/comments", json=body)
    assert response.status_code == 422
    assert list(response.json()["errors"]) == ["content"]


def test_a_reply_is_about_the_same_thing(shared_door: Door, model: Model) -> None:
    other = a_published_model(shared_door.database, shared_door.account_id, "another")
    made = comment(shared_door.client(), other.id, "there")
    body = {"entity": "model", "entityId": model.id, "content": "here", "parentId": made["id"]}
    response = shared_door.client().post("/api/v1/comments", json=body)
    assert (response.status_code, list(response.json()["errors"])) == (422, ["parentId"])

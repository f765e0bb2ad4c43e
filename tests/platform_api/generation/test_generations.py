"""Generations through the API: submitted once, listed, shown, previewed, changed, retried."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest

from storage.errors import FreeSpaceLow
from storage.free_space import FreeSpace
from storage.postgres.connection import Query
from storage.postgres.jobs import jobs
from storage.records.generation.resolved_workflows import read_workflow
from storage.redis.progress import ProgressWriter
from tests.platform_api.door import ALL
from tests.platform_api.generation.conftest import Studio
from tests.platform_api.generation.drawing import GENERATIONS, drawable

HIRES: dict[str, Any] = {
    "name": "large",
    "operation": "upscale",
    "image": {"$ref": "base"},
    "width": 128,
    "height": 128,
}


def test_a_step_is_accepted_and_shown_with_all_that_it_means(studio: Studio) -> None:
    response = studio.ask(count=2, scheduler="dpm++ 2m karras", seed=7, width=64, height=64, tags=["a", "b"])
    job = response.json()
    assert (response.status_code, response.headers["location"]) == (202, f"{GENERATIONS}/{job['id']}")

    shown = studio.shown(job["id"])

    [step] = shown["steps"]
    facts = [step[name] for name in ("name", "operation", "state", "pictures", "drawn", "width", "scheduler", "seeds")]
    assert facts == ["0", "txt2img", "waiting", 2, 0, 64, "DPM++ 2M Karras", [7, 8]]
    assert shown["request"]["scheduler"] == "dpm++ 2m karras"
    assert (shown["priority"], shown["tags"], shown["images"]) == ("normal", ["a", "b"], [])
    assert shown["price"] == {"credits": step["price"], "charged": None}
    assert (shown["state"], shown["attempt"], shown["kind"]) == ("submitted", 1, "generation")
    assert isinstance(shown["queuePosition"], int)


def test_a_drawn_workflow_has_pictures_by_step_and_is_charged(studio: Studio) -> None:
    base = {"name": "base", "model": studio.model, "prompt": "a {red|blue} mug", "count": 2, "width": 64, "height": 64}
    job_id = studio.client.post(GENERATIONS, json={"workflow": [base, HIRES], "priority": "high"}).json()["id"]
    pictures = studio.artist.draw(job_id)

    shown = studio.shown(job_id)

    assert [image["name"] for image in shown["images"]] == ["base-000.png", "base-001.png", "large-000.png"]
    assert shown["images"][0]["prompt"] in ("a red mug", "a blue mug")
    assert [studio.client.get(image["url"]).content for image in shown["images"]] == pictures
    signed = shown["images"][2]["imageUrl"].replace(studio.door.settings.api.public_url, "")
    assert studio.door.client("").get(signed).content == pictures[2]
    assert [step["state"] for step in shown["steps"]] == ["succeeded", "succeeded"]
    assert [step["scheduler"] for step in shown["steps"]] == ["DDIM", None]
    assert shown["price"]["charged"] == shown["price"]["credits"] > 0
    assert (shown["priority"], shown["steps"][0]["backend"], shown["steps"][0]["seconds"]) == ("high", "local", 4.0)
    samples = studio.client.get(f"{GENERATIONS}/{job_id}/samples").json()["items"]
    assert [file["name"] for file in samples] == ["base-grid.png"]


def test_a_repeat_is_answered_while_the_disk_is_full(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"model": studio.model, "prompt": "x", "externalId": "full"}
    first = studio.client.post(GENERATIONS, json=body)
    monkeypatch.setattr(FreeSpace, "check", _full)
    new, repeated, other = (
        studio.client.post(GENERATIONS, json={**body, **change})
        for change in ({"externalId": "newer"}, {}, {"prompt": "another"})
    )
    assert (repeated.status_code, repeated.content) == (202, first.content)
    assert (new.status_code, new.json()["code"]) == (507, "free_space_low")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def _full(*_: object) -> None:
    raise FreeSpaceLow("The disk is full.")


@pytest.mark.parametrize("by", ["key", "external"])
def test_a_repeat_gets_the_very_same_bytes_and_makes_nothing(studio: Studio, by: str) -> None:
    headers = {"Idempotency-Key": "again"} if by == "key" else {}
    body = {"model": studio.model, "prompt": f"by {by}"} | ({"externalId": "again"} if by == "external" else {})
    first = studio.client.post(GENERATIONS, json=body, headers=headers)
    second = studio.client.post(GENERATIONS, json=body, headers=headers)
    other = studio.client.post(GENERATIONS, json={**body, "prompt": "another"}, headers=headers)
    assert (first.status_code, first.content) == (202, second.content)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"modelVersionId": 3, "prompt": "x"}, "modelVersionId", "named by `model`"),
        ({"model": 999_999, "prompt": "x"}, "model", "No model version 999999"),
        ({"prompt": "x"}, "model", "is needed by txt2img"),
        ({"model": "MODEL", "prompt": "x", "scheduler": "eular"}, "scheduler", "Euler"),
        ({"model": "MODEL", "prompt": "x", "width": 65}, "width", "multiple of 8"),
        ({"model": "MODEL", "prompt": "x", "count": 65}, "count", "<= 64"),
        ({"model": "MODEL", "prompt": "x", "adapters": [{"model": "MODEL"}]}, "adapters[0].model", "no adapter"),
        ({"workflow": [{"model": "MODEL", "prompt": "x", "stepz": 3}]}, "workflow[0].stepz", "did you mean steps"),
        (
            {"workflow": [{"model": "MODEL", "prompt": "x", "adapters": [{"model": 3, "strength": 9}]}]},
            "workflow[0].adapters[0].strength",
            "<= 4",
        ),
        ({"workflow": [HIRES]}, "workflow[0].image", "names no earlier step"),
        ({"model": "MODEL", "prompt": "x", "operation": "img2img", "image": "0" * 64}, "image", "generations/sources"),
        ({"model": "MODEL", "prompt": "x\x00"}, "prompt", "control characters"),
    ],
)
def test_bad_requests_are_refused_by_field_by_both_doors(
    studio: Studio, body: dict[str, Any], field: str, words: str
) -> None:
    meant = _with_model(body, studio.model)
    for path in (GENERATIONS, f"{GENERATIONS}/price"):
        response = studio.client.post(path, json=meant)
        assert (response.status_code, list(response.json()["errors"])) == (422, [field]), response.text
        assert words in response.json()["errors"][field]


def test_prompts_may_have_lines_and_a_workflow_be_longer_than_other_bodies(studio: Studio) -> None:
    step = {"model": studio.model, "prompt": "a mug,\n" * 1200, "width": 64, "height": 64}
    response = studio.client.post(GENERATIONS, json={"workflow": [step] * 12})
    assert response.status_code == 202, response.text
    studio.client.post(response.json()["links"]["cancel"])


def test_the_price_is_what_the_generation_costs(studio: Studio) -> None:
    body = {"model": studio.model, "prompt": "a mug", "count": 3, "steps": 50, "width": 512, "height": 512}
    price = studio.client.post(f"{GENERATIONS}/price", json={**body, "priority": "high"}).json()
    assert (price["credits"], price["pictures"]) == (9, 3)
    assert [step["credits"] for step in price["steps"]] == [9]
    assert (price["steps"][0]["scheduler"], price["steps"][0]["steps"]) == ("DDIM", 50)
    job_id = studio.client.post(GENERATIONS, json={**body, "priority": "high"}).json()["id"]
    assert studio.shown(job_id)["price"] == {"credits": 9, "charged": None}


def test_lists_have_what_is_asked_for_and_go_on(studio: Studio) -> None:
    made = [studio.submitted(tags=["listed", f"number {number % 2}"]) for number in range(3)]
    studio.client.post(f"{GENERATIONS}/{made[2]}/cancel")

    def ids(query: str) -> list[str]:
        return [item["id"] for item in studio.client.get(f"{GENERATIONS}?{query}").json()["items"]]

    assert ids("tag=listed") == made[::-1]
    assert ids("tag=listed&tag=number%200") == [made[2], made[0]]
    assert ids("tag=listed&state=cancelled") == [made[2]]
    assert ids("tag=listed&since=2999-01-01T00:00:00Z") == []
    assert ids("tag=listed&until=2999-01-01T00:00:00Z") == made[::-1]
    for query, field in (("tag=a%00", "tag"), ("since=2020-01-01T00:00:00", "since"), ("until=5", "until")):
        refused = studio.client.get(f"{GENERATIONS}?{query}")
        assert (refused.status_code, list(refused.json()["errors"])) == (422, [field])
    first = studio.client.get(
        f"{GENERATIONS}?tag=listed&tag=number%200&limit=1&since=2020-01-01T00:00:00%2B02:00"
    ).json()
    second = studio.client.get(first["metadata"]["nextPage"]).json()
    assert [page["items"][0]["id"] for page in (first, second)] == [made[2], made[0]]
    assert second["metadata"]["nextPage"] is None
    assert first["items"][0]["tags"] == ["listed", "number 0"]


def test_tags_and_metadata_are_changed_and_what_is_deleted_is_in_no_list(studio: Studio) -> None:
    job_id = studio.submitted(tags=["kept"])
    path = f"{GENERATIONS}/{job_id}"

    assert studio.client.patch(path, json={"metadata": {"a": {"b": [1]}}}).json()["tags"] == ["kept"]
    assert studio.client.patch(path, json={"tags": ["other"]}).json()["tags"] == ["other"]
    assert studio.shown(job_id)["metadata"] == {"a": {"b": [1]}}
    for depth in (33, 960):
        content = b'{"metadata": {"a": ' + b"[" * depth + b"]" * depth + b"}}"
        refused = studio.client.patch(path, content=content)
        assert (refused.status_code, list(refused.json()["errors"])) == (422, ["metadata"]), depth
    refused = studio.client.delete(path)
    assert (refused.status_code, "Cancel it first" in refused.json()["detail"]) == (409, True)
    studio.client.post(f"{path}/cancel")
    assert studio.client.delete(path).status_code == 204
    assert studio.client.get(f"{GENERATIONS}?tag=other").json()["items"] == []
    assert studio.shown(job_id)["state"] == "cancelled"


def test_a_retry_draws_the_same_again(studio: Studio) -> None:
    job_id = studio.submitted(tags=["again"], externalId="retried")
    path = f"{GENERATIONS}/{job_id}/retry"
    assert studio.client.post(path).status_code == 409
    studio.client.post(f"{GENERATIONS}/{job_id}/cancel")

    first, second = (studio.client.post(path, headers={"Idempotency-Key": "r"}) for _ in range(2))

    assert (first.status_code, first.content) == (202, second.content)
    old, new = studio.shown(job_id), studio.shown(first.json()["id"])
    assert (new["retryOf"], new["tags"], new["externalId"]) == (job_id, ["again"], None)
    assert new["steps"][0]["seeds"] == old["steps"][0]["seeds"]


def test_a_preview_is_a_jpeg_that_nobody_keeps(studio: Studio) -> None:
    job_id = studio.submitted()
    job = studio.artist.claim(job_id)
    path = f"{GENERATIONS}/{job_id}/preview"
    assert studio.client.get(path).status_code == 404
    writer = ProgressWriter(studio.door.settings.redis)
    writer.show(job.id, b"\xff\xd8 a jpeg")
    writer.close()

    response = studio.client.get(path)

    assert (response.status_code, response.content) == (200, b"\xff\xd8 a jpeg")
    assert (response.headers["content-type"], response.headers["cache-control"]) == ("image/jpeg", "no-store")
    stranger = studio.door.client(studio.door.new_key(*ALL, account="stranger"))
    assert stranger.get(path).status_code == 404
    studio.door.database.run(jobs.fail(job.id, 1, "broken", "It broke."))
    assert studio.client.get(path).status_code == 404


def test_the_estimate_counts_what_is_ahead_and_what_is_left(studio: Studio) -> None:
    studio.artist.draw(studio.submitted(width=512, height=512, steps=25), seconds=2.0)
    before, last = (studio.submitted(width=512, height=512, steps=25, count=4) for _ in range(2))
    pace = studio.client.post(
        f"{GENERATIONS}/price", json={"model": studio.model, "prompt": "x", "width": 512, "height": 512, "steps": 25}
    ).json()["seconds"]

    first, second = studio.shown(before), studio.shown(last)

    assert second["queuePosition"] == first["queuePosition"] + 1
    assert first["estimatedSeconds"] >= 4 * pace
    assert second["estimatedSeconds"] == pytest.approx(first["estimatedSeconds"] + 4 * pace, abs=0.2)
    job = studio.artist.claim(before)
    studio.artist.begin(job)
    studio.artist.put(job, read_workflow(job.request).steps[0], 0)
    assert studio.shown(before)["estimatedSeconds"] == pytest.approx(3 * pace, abs=0.2)


def test_a_generation_of_before_workflows_is_shown_and_keeps_its_place(studio: Studio) -> None:
    job_id = studio.submitted()
    request = {"model_version_id": studio.model, "prompt": "an old mug", "negative_prompt": "", "count": 1, "seed": 1}
    for statement in (
        "delete from workflow_steps where job_id = %(id)s returning job_id",
        "delete from workflows where job_id = %(id)s returning job_id",
    ):
        studio.door.database.run(Query(statement, {"id": UUID(job_id)}, len))
    rewritten = {**request, "sampler": {"steps": 5, "guidance_scale": 1.0}}
    studio.door.database.run(jobs.rewrite(UUID(job_id), rewritten, "0" * 64))

    shown = studio.shown(job_id)

    assert (shown["request"]["modelVersionId"], shown["steps"], shown["price"]) == (studio.model, [], None)
    assert job_id in [item["id"] for item in studio.client.get(GENERATIONS).json()["items"]]
    refused = studio.client.patch(f"{GENERATIONS}/{job_id}", json={"tags": ["x"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")


def _with_model(value: Any, model: int) -> Any:
    if isinstance(value, dict):
        return {name: _with_model(one, model) for name, one in value.items()}
    if isinstance(value, list):
        return [_with_model(one, model) for one in value]
    return model if value == "MODEL" else value


def test_a_picture_of_a_model_that_was_taken_down_is_gone(studio: Studio) -> None:
    model = drawable(studio.door, studio.client)
    adapted = studio.submitted(model=studio.model, adapters=[{"model": studio.adapter}], width=64, height=64)
    drawn = studio.submitted(model=model, width=64, height=64)
    links = []
    for job_id in (drawn, adapted):
        studio.artist.draw(job_id)
        link = studio.shown(job_id)["images"][0]["imageUrl"]
        links.append(link.replace(studio.door.settings.api.public_url, ""))
    take_down = (
        "update models set mode = 'TakenDown', gone_at = now(), gone_reason = 'a claim' where id = "
        "(select model_id from model_versions where id = %(id)s) returning id"
    )
    anybody = studio.door.client("")
    assert [anybody.get(link).status_code for link in links] == [200, 200]
    studio.door.database.run(Query(take_down, {"id": model}, len))
    assert [anybody.get(link).status_code for link in links] == [410, 200]
    refused = studio.ask(model=model)
    assert refused.status_code == 410


def test_strangers_find_nothing(studio: Studio) -> None:
    stranger: httpx.Client = studio.door.client(studio.door.new_key(*ALL, account="stranger"))
    job_id = studio.submitted()
    assert stranger.get(f"{GENERATIONS}/{job_id}").status_code == 404
    assert stranger.patch(f"{GENERATIONS}/{job_id}", json={"tags": []}).status_code == 404
    assert stranger.delete(f"{GENERATIONS}/{job_id}").status_code == 404
    assert stranger.get(GENERATIONS).json()["items"] == []

"""Pictures of generations in the gallery of the version that drew them: once, with their bytes and their `meta`."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from PIL import Image

from storage.postgres.catalog import catalog, images
from storage.postgres.connection import Query
from storage.postgres.jobs import jobs
from storage.records.generation.resolved_workflows import read_workflow
from tests.platform_api.door import ALL
from tests.platform_api.generation.conftest import Studio
from tests.platform_api.generation.drawing import GENERATIONS, drawable

SMALL = {"width": 64, "height": 64, "seed": 5}


def publish(studio: Studio, job_id: str, name: str, query: str = "", client: httpx.Client | None = None) -> Any:
    return (client or studio.client).post(f"{GENERATIONS}/{job_id}/images/{name}/publish{query}")


def gallery(studio: Studio, version: int) -> list[Any]:
    return studio.door.database.run(images.of_versions([version], 100))


def test_a_picture_is_shown_once_with_its_bytes_and_its_meta(studio: Studio) -> None:
    asked = {**SMALL, "negativePrompt": "blurred", "scheduler": "DPM++ 2M Karras", "clipSkip": 2, "count": 2}
    job_id = studio.submitted(**asked, adapters=[{"model": studio.adapter, "strength": 0.5}])
    pictures = studio.artist.draw(job_id)

    first, second = (publish(studio, job_id, "0-001.png", "?nsfwLevel=2") for _ in range(2))

    assert (first.status_code, first.json()) == (201, second.json()), first.text
    [image] = gallery(studio, studio.model)
    assert (image.sha256, image.size) == (hashlib.sha256(pictures[1]).hexdigest(), len(pictures[1]))
    assert (image.width, image.height, image.media_type, image.nsfw_level) == (64, 64, "image/png", 2)
    assert studio.client.get(first.headers["location"]).content == pictures[1]
    meta = first.json()["meta"]
    version = studio.door.database.run(catalog.version_by_id(studio.model))
    model = studio.door.database.run(catalog.model_by_id(version.model_id))
    said = {
        "prompt": "a sks mug",
        "negativePrompt": "blurred",
        "steps": meta["steps"],
        "sampler": "DPM++ 2M Karras",
        "cfgScale": meta["cfgScale"],
        "seed": 6,
        "Size": "64x64",
        "Model": f"{model.name} {version.name}",
        "clipSkip": 2,
    }
    assert {name: meta[name] for name in said} == said
    checkpoint, adapter = meta["resources"]
    assert (checkpoint["type"], checkpoint["hash"], meta["Model hash"]) == ("model", *[meta["hashes"]["model"]] * 2)
    assert (adapter["type"], adapter["weight"], adapter["hash"]) == ("lora", 0.5, [*meta["hashes"].values()][1])
    assert [one["modelVersionId"] for one in meta["civitaiResources"]] == [studio.model, studio.adapter]
    assert meta["civitaiResources"][1]["air"].endswith(f"@{studio.adapter}")


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_another_format_is_shown_as_a_png(studio: Studio, form: str) -> None:
    job_id = studio.submitted(**SMALL, format=form, prompt=f"as {form}")
    [content] = studio.artist.draw(job_id)
    [name] = [image["name"] for image in studio.shown(job_id)["images"]]

    published = publish(studio, job_id, name)

    assert published.status_code == 201, published.text
    shown = studio.client.get(published.headers["location"])
    pixels = Image.open(io.BytesIO(shown.content))
    assert (pixels.format, shown.headers["content-type"]) == ("PNG", "image/png")
    assert pixels.tobytes() == Image.open(io.BytesIO(content)).convert("RGB").tobytes()
    assert publish(studio, job_id, name).json()["id"] == published.json()["id"]


def test_an_enlarged_picture_is_shown_with_what_drew_the_one_before_it(studio: Studio) -> None:
    base = {
        "name": "base",
        "model": studio.adapter,
        "prompt": "a mug",
        "count": 2,
        "width": 64,
        "height": 64,
        "seed": 8,
    }
    large = {"name": "large", "operation": "upscale", "image": {"$ref": "base", "image": 1}, "width": 128, "height": 96}
    job_id = studio.client.post(GENERATIONS, json={"workflow": [base, large]}).json()["id"]
    studio.artist.draw(job_id)

    published = publish(studio, job_id, "large-000.png").json()

    assert (published["meta"]["seed"], published["meta"]["Size"], published["width"]) == (9, "128x96", 128)
    # An adapter that was named as the model has drawn it, on a base that is none of the catalogue.
    assert [image.id for image in gallery(studio, studio.adapter)] == [published["id"]]


def test_the_version_may_be_chosen_among_those_that_drew_it(studio: Studio) -> None:
    job_id = studio.submitted(**SMALL, adapters=[{"model": studio.adapter}], prompt="chosen")
    studio.artist.draw(job_id)
    before = len(gallery(studio, studio.adapter))

    refused = publish(studio, job_id, "0-000.png", "?modelVersionId=999")
    published = publish(studio, job_id, "0-000.png", f"?modelVersionId={studio.adapter}")

    assert f"{studio.model}, {studio.adapter} did" in refused.json()["errors"]["modelVersionId"]
    assert (published.status_code, len(gallery(studio, studio.adapter))) == (201, before + 1)


def test_it_is_for_who_drew_it_and_owns_the_version(studio: Studio) -> None:
    stranger = studio.door.client(studio.door.new_key(*ALL, account="stranger"))
    public = drawable(studio.door, studio.client, availability="Public")
    job_id = stranger.post(GENERATIONS, json={"model": public, "prompt": "a mug", **SMALL}).json()["id"]
    studio.artist.draw(job_id)

    anothers = publish(studio, job_id, "0-000.png", client=stranger)

    assert (anothers.status_code, anothers.json()["code"]) == (403, "not_allowed")
    assert publish(studio, job_id, "0-000.png").status_code == 404
    assert gallery(studio, public) == []


def test_what_cannot_be_shown_is_refused_by_its_reason(studio: Studio) -> None:
    job_id = studio.submitted(**SMALL, count=2)
    studio.artist.draw(job_id)
    assert publish(studio, job_id, "0-000.png", "?nsfwLevel=3").json()["errors"].keys() == {"nsfwLevel"}
    assert publish(studio, job_id, "0-000.png", "?nsfwLevel=32").status_code == 403
    assert "is no picture" in publish(studio, job_id, "0-grid.png").json()["detail"]
    assert publish(studio, job_id, "no-such.png").status_code == 404


def test_a_picture_that_was_sent_has_no_version(studio: Studio) -> None:
    sent = studio.client.get(studio.shown(_drawn(studio))["images"][0]["url"]).content
    source = studio.client.post(f"{GENERATIONS}/sources", content=sent, headers={"Content-Type": "image/png"}).json()
    body = {"operation": "upscale", "image": source["sha256"], "width": 128, "height": 128}
    job_id = studio.client.post(GENERATIONS, json=body).json()["id"]
    studio.artist.draw(job_id)
    refused = publish(studio, job_id, "0-000.png")
    assert (refused.status_code, "no model drew it" in refused.json()["detail"]) == (409, True)


def test_a_picture_of_before_workflows_is_shown(studio: Studio) -> None:
    job_id = studio.submitted(**SMALL)
    recipe = {"model_version_id": studio.model, "prompt": "an old mug", "negative_prompt": "", "count": 1, "seed": 1}
    recipe |= {"sampler": {"steps": 5, "guidance_scale": 1.0}}
    job = studio.artist.claim(job_id)
    studio.artist.put(job, read_workflow(job.request).steps[0], 0)
    studio.door.database.run(jobs.rewrite(job.id, recipe, "0" * 64))
    studio.door.database.run(jobs.succeed(job.id, job.attempt, studio.model))
    bare = "update job_files set details = '{\"seed\": 4}' where job_id = %(id)s and role = 'image' returning name"
    studio.door.database.run(Query(bare, {"id": UUID(job_id)}, len))

    published = publish(studio, job_id, "0-000.png")

    assert published.status_code == 201, published.text
    meta = published.json()["meta"]
    assert [meta[name] for name in ("prompt", "seed", "sampler", "Size")] == ["an old mug", 4, "DDIM", "64x64"]


def _drawn(studio: Studio) -> str:
    job_id = studio.submitted(**SMALL)
    studio.artist.draw(job_id)
    return job_id


def test_a_picture_drawn_with_what_was_taken_down_is_not_shown(studio: Studio) -> None:
    job_id = studio.submitted(**SMALL, prompt="taken down", adapters=[{"model": studio.adapter}])
    studio.artist.draw(job_id)
    database, before = studio.door.database, len(gallery(studio, studio.model))
    modes = (
        "update models set mode = %(mode)s, gone_reason = %(reason)s, gone_at = %(at)s from model_versions version"
        " where version.model_id = models.id and version.id = %(id)s returning 1"
    )
    taken_down = {"id": studio.adapter, "mode": "TakenDown", "reason": "claim 12", "at": datetime.now(UTC)}
    database.run(Query(modes, taken_down, len))

    refused = publish(studio, job_id, "0-000.png")
    database.run(Query(modes, {**taken_down, "mode": None, "reason": None, "at": None}, len))

    assert (refused.status_code, len(gallery(studio, studio.model))) == (410, before), refused.text
    assert "claim 12" in refused.json()["detail"]

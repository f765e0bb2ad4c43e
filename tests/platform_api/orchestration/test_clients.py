"""Civitai's npm packages `@civitai/client` and `@civitai/app-sdk`, unchanged, against the live API.

States are moved as the flow that draws moves them: by the functions of storage that it calls.
"""

from __future__ import annotations

import base64
from typing import Any

import pytest

from storage.postgres.generation import workflows
from storage.postgres.jobs import jobs
from storage.records.accounts.accounts import Scope
from storage.records.jobs.jobs import Job, Progress
from tests.platform_api.door import photo
from tests.platform_api.orchestration.node_clients import Thrown, as_blob, bytes_of
from tests.platform_api.orchestration.world import World


def test_a_workflow_is_priced_submitted_drawn_and_fetched(world: World) -> None:
    steps = (world.step(quantity=2, seed=7, scheduler="dpM2MKarras", outputFormat="png"),)
    priced = world.submit(*steps, query={"whatif": True})
    assert (priced.status, priced.data["id"], priced.data["status"]) == (200, None, "unassigned")
    assert priced.data["cost"]["total"] == 2
    made = world.submit(*steps, tags=["mugs"], metadata={"order": 17}, externalId="order-17", currencies=["blue"])
    assert made.status == 200
    assert made.headers["x-ignored-parameters"] == "currencies"
    assert made.data["cost"]["total"] == priced.data["cost"]["total"]
    identity = made.data["id"]
    [step] = made.data["steps"]
    assert step["jobs"][0]["queuePosition"]["support"] == "available"
    assert [image["available"] for image in step["output"]["images"]] == [False, False]
    job = world.claimed(identity)
    assert world.node.client("getWorkflow", path={"workflowId": identity}).data["status"] == "preparing"
    world.draw(job, pictures=2)
    world.finish(job)
    ended = world.node.client("getWorkflow", path={"workflowId": identity}, query={"wait": 5})
    assert (ended.status, ended.data["status"], ended.data["cost"]["total"]) == (200, "succeeded", 2)
    images = ended.data["steps"][0]["output"]["images"]
    assert [(image["available"], image["width"], image["type"]) for image in images] == [(True, 64, "image")] * 2
    found = world.node.client("getBlob", path={"blobId": images[1]["id"]})
    assert bytes_of(found.data) == photo(1)
    assert world.door.client("").get(images[0]["url"]).content == photo(0)


def test_the_sdk_prices_submits_polls_and_finds_the_pictures(world: World) -> None:
    node = world.node
    body = node.call(
        "sdk", "buildTextToImageBody", {"prompt": "a fox", "model": world.model, "width": 64, "height": 64}
    )
    assert node.sdk("estimateWorkflow", body)["cost"]["total"] == 1
    made = node.sdk("submitWorkflow", body)
    assert not node.call("sdk", "isTerminal", made)
    job = world.claimed(made["id"])
    world.draw(job, name="step_0")
    world.finish(job)
    ended = node.sdk("pollWorkflow", made["id"], {"timeoutMs": 5000, "intervalMs": 50})
    assert node.call("sdk", "isTerminal", ended)
    [url] = node.call("sdk", "extractImageUrls", ended)
    assert world.door.client("").get(url).content == photo(0)


def test_the_sdk_reads_a_refusal(world: World) -> None:
    body = world.node.call("sdk", "buildTextToImageBody", {"prompt": "a fox"})
    with pytest.raises(Thrown, match="HTTP 400") as thrown:
        world.node.sdk("submitWorkflow", body)
    assert "steps[0].input.model" in thrown.value.body["errors"]


def test_an_external_id_is_one_workflow_however_often_it_is_sent(world: World) -> None:
    first = world.submit(externalId="order-18").data["id"]
    again = world.submit(externalId="order-18")
    assert (again.status, again.data["id"], again.data["externalId"]) == (200, first, "order-18")
    other = world.submit(world.step(prompt="another"), externalId="order-18")
    assert (other.status, other.error["code"]) == (400, "idempotency_key_reused")


def test_a_client_that_waits_is_woken_by_the_end(world: World) -> None:
    thread = world.meanwhile(world.drawn)
    ended = world.submit(query={"wait": 20})
    thread.join()
    assert (ended.status, ended.data["status"]) == (200, "succeeded")


def test_a_client_that_waited_in_vain_gets_202(world: World) -> None:
    assert world.submit(query={"wait": 0.05}).status == 202
    assert world.submit(query={"wait": 61}).error["errors"]["wait"] == ["expected a number <= 60.0"]


CIVITAIS = "urn:air:sdxl:checkpoint:civitai:101055@1"
REFUSED: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"model": CIVITAIS}, "input.model", "is no resource of this platform: its version 1 is urn:air:sd1"),
    ({"model": "urn:air:sd1:checkpoint:civitai:9@99"}, "input.model", "99"),
    ({"model": "dreamshaper"}, "input.model", "is no AIR"),
    ({"scheduler": "dpmFast"}, "input.scheduler", "Nearest"),
    ({"scheduler": "eulerB"}, "input.scheduler", "Nearest"),
    ({"prompt": ""}, "input.prompt", "is needed"),
    ({"steps": 500}, "input.steps", "150"),
    ({"quantity": 90}, "input.quantity", "64"),
    ({"width": 65}, "input.width", "multiple"),
    ({"height": "64"}, "input.height", "whole number"),
    ({"hieght": 64}, "input.hieght", "did you mean height"),
    ({"controlNets": [{"weight": 1}]}, "input.controlNets", "ControlNets"),
    ({"imageMetadata": "{}"}, "input.imageMetadata", "metadata"),
    ({"engine": "flux"}, "input.engine", "local"),
    ({"outputFormat": "avif"}, "input.outputFormat", "known are"),
    ({"sourceImage": "https://example.com/a.png"}, "input.sourceImage", "nothing is fetched"),
    ({"sourceImage": "f" * 64}, "input.sourceImage", "no picture"),
    ({"sourceImage": "data:image/png;base64,AAAA"}, "input.sourceImage", "picture"),
    ({"sourceImage": {"$ref": "later"}}, "input.sourceImage", "names no earlier step"),
    ({"additionalNetworks": {CIVITAIS: {}}}, f"input.additionalNetworks[{CIVITAIS}]", "whole model"),
)


@pytest.mark.parametrize(("fields", "field", "reason"), REFUSED, ids=[f"{one[1]} {one[2]}" for one in REFUSED])
def test_what_is_not_here_is_refused_by_its_field(
    world: World, fields: dict[str, Any], field: str, reason: str
) -> None:
    refused = world.submit(world.step(**fields))
    assert refused.status == 400
    assert reason in refused.error["errors"][f"steps[0].{field}"][0]


@pytest.mark.parametrize(
    ("step", "field"),
    [
        ({"$type": "comfy", "input": {"comfyWorkflow": {}}}, "$type"),
        ({"$type": "videoGen", "input": {"engine": "veo3"}}, "$type"),
        ({"$type": "drawing", "input": {}}, "$type"),
        ({"$type": "imageGen", "input": {"engine": "google", "model": "nano-banana-2"}}, "input.engine"),
        (
            {"$type": "imageUpscaler", "input": {"image": "0" * 64, "model": "urn:air:other:upscaler:civitai:1@1"}},
            "input.model",
        ),
        ({"$type": "imageUpscaler", "input": {"image": "0" * 64}}, "input.image"),
    ],
    ids=str,
)
def test_step_types_and_engines_that_do_not_draw_here_are_refused(
    world: World, step: dict[str, Any], field: str
) -> None:
    assert list(world.submit(step).error["errors"]) == [f"steps[0].{field}"]


@pytest.mark.parametrize(
    "fields",
    [
        {"callbacks": [{"url": "https://example.com", "type": ["workflow:*"]}]},
        {"arguments": {"a": 1}},
        {"ephemeral": True},
        {"tips": {"civitai": 0.1, "creators": 0}},
        {"allowMatureContent": False},
        {"tags": ["x"] * 11},
        {"externalId": "a b"},
        {"metadata": {"$template": {}}},
    ],
    ids=str,
)
def test_wishes_without_an_effect_are_refused_and_never_passed_over(world: World, fields: dict[str, Any]) -> None:
    refused = world.submit(**fields)
    assert refused.status == 400
    assert [name.split(".")[0] for name in refused.error["errors"]] == list(fields)


def test_steps_go_on_from_each_others_pictures(world: World) -> None:
    made = world.submit(
        world.step(name="base"),
        world.step(
            name="again", sourceImage={"$ref": "$base", "path": "output.images[0].url"}, sourceImageDenoiseStrenght=0.5
        ),
        {"$type": "imageUpscaler", "name": "large", "input": {"image": {"$ref": "again"}, "numberOfRepeats": 2}},
        metadata={"of": "hires"},
    ).data
    identity = made["id"]
    assert [step["$type"] for step in made["steps"]] == ["textToImage", "textToImage", "imageUpscaler"]
    assert made["steps"][2]["output"]["blob"]["width"] == 256
    job = world.claimed(identity)
    world.draw(job, name="base")
    world.door.database.run(workflows.begin_step(job.id, job.attempt, 1, "local"))
    progress = Progress(phase="again", step=3, total=4)
    world.door.database.run(jobs.heartbeat(job.id, job.attempt, progress))
    standing = world.get(identity)
    assert [step["status"] for step in standing["steps"]] == ["succeeded", "processing", "scheduled"]
    step = world.node.client("getWorkflowStep", path={"workflowId": identity, "stepName": "again"}).data
    assert (step["estimatedProgressRate"], step["jobs"][0]["estimatedProgressRate"]) == (0.75, 0.75)
    assert step["input"]["sourceImage"] == {"$ref": "$base", "path": "output.images[0].url"}
    world.door.database.run(jobs.fail(job.id, job.attempt, "out_of_memory", "The device has no room."))
    ended = world.get(identity)
    assert [step["status"] for step in ended["steps"]] == ["succeeded", "failed", "canceled"]
    assert ended["steps"][1]["output"]["errors"] == ["The device has no room."]
    assert (ended["status"], ended["cost"]["total"]) == ("failed", 1)


def test_image_gen_keeps_its_type_and_draws_with_adapters(world: World) -> None:
    step = world.image_gen(sampleMethod="dpm++2m", schedule="karras", loras={world.adapter: 0.5}, seed=3)
    [made] = world.submit(step).data["steps"]
    assert (made["$type"], made["input"]["engine"], made["input"]["loras"]) == (
        "imageGen",
        "sdcpp",
        {world.adapter: 0.5},
    )
    asked = world.door.client().get(f"/api/v1/generations/{world.newest()}").json()["request"]["workflow"][0]
    assert asked["adapters"] == [{"model": world.adapter, "strength": 0.5}]
    assert (asked["scheduler"], asked["spacing"]) == ("dpm++2m", "karras")
    comfy = world.image_gen(engine="comfy", sampleMethod=None, sampler="euler", scheduler="karras")
    del comfy["input"]["sampleMethod"]
    assert world.submit(comfy).status == 200
    wrong = world.submit(world.image_gen(ecosystem="sdxl"))
    assert wrong.error["errors"] == {"steps[0].input.ecosystem": ["the model is of the ecosystem sd1"]}


def test_lists_are_paged_and_filtered(world: World) -> None:
    ids = [world.submitted(tags=["listed", f"n{n}"], metadata={"note": f"Blau {n}"}) for n in range(3)]
    world.node.client("updateWorkflow", path={"workflowId": ids[0]}, body={"status": "canceled"})

    def listed(**query: Any) -> list[str]:
        found = world.node.client("queryWorkflows", query={"tags": ["listed"], **query}).data
        return [item["id"] for item in found["items"]]

    assert listed() == ids[::-1]
    assert listed(ascending=True) == ids
    assert listed(excludeFailed=True) == ids[:0:-1]
    assert listed(query="blau 1") == [ids[1]]
    assert listed(tags=["listed", "n2"]) == [ids[2]]
    assert listed(fromDate="2100-01-01T00:00:00Z") == []
    assert listed(toDate="2100-01-01T00:00:00Z") == ids[::-1]
    page = world.node.client("queryWorkflows", query={"tags": ["listed"], "take": 2}).data
    rest = world.node.client("queryWorkflows", query={"tags": ["listed"], "take": 2, "cursor": page["next"]}).data
    assert ([one["id"] for one in rest["items"]], rest["next"]) == ([ids[0]], None)


def test_a_workflow_is_cancelled_tagged_patched_and_deleted(world: World) -> None:
    identity = world.submitted(tags=["a"], metadata={"deep": {"list": [1]}})
    path = {"workflowId": identity}
    change = [
        {"op": "add", "path": "/metadata/deep/list/-", "value": 2},
        {"op": "add", "path": "/tags/-", "value": "b/c"},
    ]
    assert world.node.client("patchWorkflow", path=path, body=change).status == 204
    assert world.node.client("addWorkflowTag", path=path, body="d").status == 204
    assert (world.get(identity)["metadata"], world.get(identity)["tags"]) == (
        {"deep": {"list": [1, 2]}},
        ["a", "b/c", "d"],
    )
    assert world.node.client("removeWorkflowTag", path={**path, "tag": "b/c"}).status == 204
    assert world.node.client("removeWorkflowTag", path={**path, "tag": "b/c"}).status == 404
    assert world.get(identity)["tags"] == ["a", "d"]
    assert world.node.client("removeAllWorkflowTags", path=path).status == 204
    bad = world.node.client("patchWorkflow", path=path, body=[{"op": "remove", "path": "/metadata/no"}])
    assert bad.error["errors"] == {"[0]": ["there is nothing at '/metadata/no'"]}
    step = {**path, "stepName": "0"}
    assert world.node.client("updateWorkflowStep", path=step, body={"metadata": {"liked": True}}).status == 204
    more = [{"op": "add", "path": "/metadata/hidden", "value": False}]
    assert world.node.client("patchWorkflowStep", path=step, body=more).status == 204
    found = world.node.client("getWorkflowStep", path=step).data
    assert (found["metadata"], found["input"]["prompt"]) == ({"liked": True, "hidden": False}, "a mug")
    stop = {"status": "canceled", "metadata": {"why": "late"}}
    assert [world.node.client("updateWorkflow", path=path, body=stop).status for _ in range(2)] == [204, 204]
    ended = world.get(identity)
    assert (ended["status"], ended["cost"]["total"], ended["metadata"]) == ("canceled", 0, {"why": "late"})
    assert world.node.client("deleteWorkflow", path=path).status == 204
    assert world.node.client("getWorkflow", path=path).status == 404
    assert world.node.client("deleteWorkflow", path=path).status == 404


def test_a_workflow_that_runs_is_cancelled_by_its_deletion(world: World) -> None:
    identity = world.submitted()
    job = world.claimed(identity)
    assert world.node.client("deleteWorkflow", path={"workflowId": identity}).status == 204
    assert world.door.database.run(jobs.get(job.id)).state == "cancelling"


def test_blobs_are_sent_read_renewed_and_deleted(world: World) -> None:
    sent = world.node.client(
        "uploadConsumerBlob", body=as_blob(photo(5)), bodySerializer=None, headers={"Content-Type": "image/png"}
    )
    blob = sent.data
    assert (sent.status, blob["width"], blob["height"], blob["available"]) == (201, 64, 48, True)
    path = {"blobId": blob["id"]}
    assert world.node.client("headBlob", path=path).status == 204
    content = bytes_of(world.node.client("getBlob", path=path, query={"download": True, "filename": "mug.png"}).data)
    assert content == world.door.client("").get(blob["url"]).content
    renewed = world.node.client("refreshBlob", path=path)
    assert (renewed.status, renewed.data["urlExpiresAt"]) == (200, blob["urlExpiresAt"])
    inline = f"data:image/png;base64,{base64.b64encode(photo(5)).decode()}"
    for picture in (blob["id"], blob["url"], inline, base64.b64encode(photo(5)).decode()):
        [step] = world.submit(world.step(sourceImage=picture)).data["steps"]
        assert step["input"]["sourceImage"] == blob["id"]
    assert world.door.client().delete(f"/v2/consumer/blobs/{blob['id']}").status_code == 204
    assert world.node.client("headBlob", path=path).status == 404
    assert world.door.client("").get(blob["url"]).status_code == 404


def test_a_page_without_the_key_sends_a_picture_to_a_signed_address(world: World) -> None:
    signed = world.node.client("getConsumerBlobUploadUrl").data
    page = world.door.client("")
    sent = page.post(signed["uploadUrl"], content=photo(6), headers={"Content-Type": "image/png"})
    assert sent.status_code == 201
    assert world.node.client("headBlob", path={"blobId": sent.json()["id"]}).status == 204
    forged = signed["uploadUrl"][:-3] + "AAA"
    assert page.post(forged, content=photo(6), headers={"Content-Type": "image/png"}).status_code == 403


def test_recipes_return_a_steps_output(world: World) -> None:
    thread = world.meanwhile(world.drawn)
    drawn = world.node.client("invokeTextToImageStepTemplate", body=world.step()["input"])
    thread.join()
    [image] = drawn.data["images"]
    assert (drawn.status, world.door.client("").get(image["url"]).content) == (200, photo(0))
    inline = f"data:image/png;base64,{base64.b64encode(photo(7)).decode()}"
    sent = world.node.client("invokeImageUploadStepTemplate", body=inline)
    assert sent.data["blob"]["width"] == 64
    refused = world.node.client("invokeTextToImageStepTemplate", body={**world.step()["input"], "scheduler": "x"})
    assert list(refused.error["errors"]) == ["scheduler"]
    assert list(
        world.node.client("invokeTextToImageStepTemplate", body=world.step()["input"], query={"whatif": True}).error[
            "errors"
        ]
    ) == ["whatif"]


def test_a_recipe_that_fails_says_why(world: World) -> None:
    def fail(job: Job) -> None:
        world.door.database.run(jobs.fail(job.id, job.attempt, "out_of_memory", "The device has no room."))

    thread = world.meanwhile(fail)
    response = world.door.client().post("/v2/consumer/recipes/textToImage", json=world.step()["input"])
    thread.join()
    assert (response.status_code, response.json()["code"]) == (502, "drawing_failed")
    assert "out_of_memory: The device has no room." in response.json()["detail"]


def test_a_resource_is_found_by_its_air(world: World) -> None:
    found = world.node.client("getResource", path={"air": world.model}).data
    assert (found["air"], found["canGenerate"], found["checkPermission"]) == (world.model, True, True)
    assert world.node.client("getResource", path={"air": CIVITAIS}).status == 404
    assert world.node.client("getResource", path={"air": "mug"}).status == 400


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("listServices", {}),
        ("getService", {"path": {"serviceId": "image/flux2"}}),
        ("getStreamingBlob", {"path": {"blobKey": "x"}}),
        ("getBlobArchive", {"path": {"encryptedToken": "x"}}),
        ("getBlockedContent", {"path": {"encryptedToken": "x"}}),
        ("invalidateUserCache", {"path": {"userId": 1}}),
        ("invalidateUserTokens", {"path": {"userId": 1}}),
        ("invokeVideoGenStepTemplate", {"body": {}}),
        ("invokeComfyStepTemplate", {"body": {}}),
    ],
)
def test_what_clients_have_and_is_not_served_says_so(world: World, name: str, options: dict[str, Any]) -> None:
    assert world.node.client(name, **options).status == 501


def test_nothing_of_one_account_is_another_ones(world: World) -> None:
    identity = world.submitted()
    world.drawn(world.claimed(identity))
    blob = world.get(identity)["steps"][0]["output"]["images"][0]["id"]
    world.node.connect(world.door.url, world.door.new_key(*Scope, account="stranger"), "stranger")
    path = {"workflowId": identity, "stepName": "0", "tag": "x"}
    for name, body in (
        *(("getWorkflow", None), ("deleteWorkflow", None), ("getWorkflowStep", None), ("removeAllWorkflowTags", None)),
        *(
            ("removeWorkflowTag", None),
            ("updateWorkflow", {"tags": []}),
            ("patchWorkflow", []),
            ("patchWorkflowStep", []),
        ),
        *(("updateWorkflowStep", {"metadata": {}}), ("addWorkflowTag", "x")),
    ):
        options = {} if body is None else {"body": body}
        assert world.node.client(name, of="stranger", path=path, **options).status == 404, name
    for name in ("getBlob", "headBlob", "refreshBlob"):
        assert world.node.client(name, of="stranger", path={"blobId": blob}).status == 404, name
    stolen = world.node.client("submitWorkflow", of="stranger", body={"steps": [world.step()]})
    assert (stolen.status, list(stolen.error["errors"])) == (400, ["steps[0].input.model"])
    world.node.connect(world.door.url, world.door.key)

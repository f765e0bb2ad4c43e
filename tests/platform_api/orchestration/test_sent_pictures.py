"""Pictures that stand in a request: taken one request at a time, and kept only of what is accepted."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from platform_api.http.limits import ConcurrencyLimit
from storage.postgres.orchestration import workflow_orders
from tests.platform_api.door import photo
from tests.platform_api.orchestration.world import Plain

WORKFLOWS = "/v2/consumer/workflows"


def inline(number: int) -> str:
    return f"data:image/png;base64,{base64.b64encode(photo(number)).decode()}"


def submit(plain: Plain, *steps: dict[str, Any], whatif: bool = False, **body: Any) -> httpx.Response:
    return plain.client.post(WORKFLOWS, params={"whatif": whatif}, json={"steps": list(steps), **body})


def test_a_price_keeps_no_picture(plain: Plain) -> None:
    before = len(plain.door.blobs)
    enlarged = {"$type": "imageUpscaler", "name": "large", "input": {"image": inline(31)}}
    priced = submit(plain, plain.step(sourceImage=inline(31)), enlarged, whatif=True)
    assert priced.status_code == 200, priced.text
    sha256 = priced.json()["steps"][0]["input"]["sourceImage"]
    assert priced.json()["steps"][1]["input"]["image"] == sha256
    assert plain.client.head(f"/v2/consumer/blobs/{sha256}").status_code == 404
    assert (len(plain.door.blobs), plain.door.staging) == (before, [])
    made = submit(plain, plain.step(sourceImage=inline(31)))
    assert made.json()["steps"][0]["input"]["sourceImage"] == sha256
    assert plain.client.head(f"/v2/consumer/blobs/{sha256}").status_code == 204


def test_a_request_that_is_refused_keeps_no_picture(plain: Plain) -> None:
    before = len(plain.door.blobs)
    refused = submit(plain, plain.step(sourceImage=inline(32), scheduler="eulerB"))
    assert list(refused.json()["errors"]) == ["steps[0].input.scheduler"]
    assert len(plain.door.blobs) == before


def test_a_small_request_with_a_picture_holds_one_of_the_uploads(plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []
    hold = ConcurrencyLimit.hold

    def noted(self: ConcurrencyLimit, *arguments: Any) -> Any:
        held.append(vars(self)["_what"])
        return hold(self, *arguments)

    monkeypatch.setattr(ConcurrencyLimit, "hold", noted)
    step = plain.step(sourceImage=inline(33))
    assert submit(plain, step, plain.step(sourceImage=inline(34)), whatif=True).status_code == 200
    assert plain.client.post("/v2/consumer/recipes/imageUpload", json=inline(35)).status_code == 200
    assert held == ["uploads"] * 2


def test_an_external_id_stands_for_what_was_written_too(plain: Plain) -> None:
    first = submit(plain, plain.step(seed=1), externalId="written-1", metadata={"order": 1}).json()["id"]
    assert submit(plain, plain.step(seed=1), externalId="written-1", metadata={"order": 1}).json()["id"] == first
    other = submit(plain, plain.step(seed=1), externalId="written-1", metadata={"order": 2})
    assert (other.status_code, other.json()["code"]) == (400, "idempotency_key_reused")
    noted = plain.step(seed=1) | {"metadata": {"liked": True}}
    assert submit(plain, noted, externalId="written-1", metadata={"order": 1}).status_code == 400


def test_prompts_are_read_once_however_many_steps_enlarge(plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    resolve = workflow_orders.resolve_workflow

    def noted(request: Any, *arguments: Any) -> Any:
        read.extend(step.prompt for step in request.workflow)
        return resolve(request, *arguments)

    monkeypatch.setattr(workflow_orders, "resolve_workflow", noted)
    large = [{"$type": "imageUpscaler", "name": f"large{n}", "input": {"image": {"$ref": "base"}}} for n in range(3)]
    priced = submit(plain, plain.step(name="base"), *large, whatif=True)
    assert priced.status_code == 200, priced.text
    assert [prompt for prompt in read if prompt] == ["x", "a mug"]


def test_an_address_that_cannot_be_read_is_refused(plain: Plain) -> None:
    refused = submit(plain, plain.step(sourceImage="http://[::1/x"))
    assert "nothing is fetched" in refused.json()["errors"]["steps[0].input.sourceImage"][0]

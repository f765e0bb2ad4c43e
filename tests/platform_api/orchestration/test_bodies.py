"""Bodies are bounded before anything is made of them, and refusals of them are short."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from storage.records.orchestration.reading import read_template
from tests.platform_api.orchestration.world import Plain

WORKFLOWS = "/v2/consumer/workflows"


def errors(response: httpx.Response) -> dict[str, list[str]]:
    assert response.status_code == 400, response.text
    return response.json()["errors"]


def priced(plain: Plain, *steps: dict[str, Any], **body: Any) -> httpx.Response:
    return plain.client.post(f"{WORKFLOWS}?whatif=true", json={"steps": list(steps) or [plain.step()], **body})


@pytest.mark.parametrize("pad", [0, 70_000], ids=["small", "large"])
def test_members_are_counted_before_they_are_made(plain: Plain, monkeypatch: pytest.MonkeyPatch, pad: int) -> None:
    monkeypatch.setattr("platform_api.orchestration.bodies.MAX_MEMBERS", 50)
    many = priced(plain, metadata={"a": "x" * pad, "b": [[]] * 30})
    assert (many.status_code, "more than 50 members" in many.json()["detail"]) == (400, True)
    assert priced(plain, metadata={"b": [[]] * 5}).status_code == 200


def test_a_large_body_is_read_in_a_thread(plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def read(content: Any) -> Any:
        names.append(threading.current_thread().name)
        return read_template(content)

    monkeypatch.setattr("platform_api.orchestration.workflows.read_template", read)
    priced(plain)
    assert errors(priced(plain, metadata={"a": "x" * 70_000})) == {"metadata": ["must have 65,536 bytes at most"]}
    assert [name.startswith("images") for name in names] == [False, True]


def test_a_refusal_names_the_first_fields_by_the_beginnings_of_their_names(plain: Plain) -> None:
    refused = priced(plain, plain.step(**{f"field{n}": 1 for n in range(200)}, **{"n" * 9000: 1}))
    found = errors(refused)
    assert (len(found), found["body"]) == (51, ["151 more fields are wrong"])
    assert len(errors(priced(plain, **{"n" * 9000: 1})).popitem()[0]) == 200
    assert len(refused.json()["detail"]) < 5000


def test_what_is_written_is_not_nested_deeply(plain: Plain) -> None:
    deep: Any = 1
    for _ in range(40):
        deep = {"a": deep}
    assert "nested more than 32 deep" in priced(plain, metadata=deep).json()["detail"]


@pytest.mark.parametrize("field", ["tags", "query"])
def test_control_characters_in_parameters_are_refused_by_name(plain: Plain, field: str) -> None:
    found = errors(plain.client.get(f"{WORKFLOWS}?{field}=a%00"))
    assert found == {field: ["must not hold control characters"]}


def test_no_step_has_a_control_character_in_its_name(plain: Plain) -> None:
    made = plain.client.post(WORKFLOWS, json={"steps": [plain.step()]}).json()["id"]
    for method, body in (("GET", None), ("PUT", {"metadata": {}}), ("PATCH", [])):
        missing = plain.client.request(method, f"{WORKFLOWS}/{made}/steps/%00", json=body)
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found"), method

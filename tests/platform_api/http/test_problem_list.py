"""Every code that a response can have is on the page and in the document."""

from __future__ import annotations

from platform_api.http import problems
from platform_api.http.problem_list import ERRORS
from storage import errors
from tests.platform_api.door import Door
from tests.platform_api.http.test_problems import descendants, ours_to_return


def test_the_page_has_an_anchor_for_every_code_that_a_response_can_have(shared_door: Door):
    page = shared_door.client("").get("/docs").text
    returned = {(problems.status_of(kind.__new__(kind)), kind.code) for kind in returnable()}
    listed = {(status, code) for status, known in ERRORS.items() for code in known}
    assert {one for one in returned if one[0] != 500} <= listed
    assert [code for _, code in listed if f"id='problem-{code}'" not in page] == []
    refused = shared_door.client("").get("/api/v1/me").json()
    assert f"id='{refused['type'].split('#')[1]}'" in page


def test_the_document_names_each_code_of_a_status(shared_door: Door):
    responses = shared_door.client("").get("/schema/openapi.json").json()["paths"]["/api/v1/training-jobs"]["post"]
    for status, code in ((403, "quota_exceeded"), (403, "account_banned"), (507, "free_space_low"), (503, "pool_busy")):
        assert f"`{code}`" in responses["responses"][str(status)]["description"]
    assert "whichever of its keys" in shared_door.client("").get("/docs").text


def returnable() -> list[type[errors.DarkroomError]]:
    """Every error that a request can meet and that is no fault of ours."""
    kinds = filter(ours_to_return, descendants(errors.DarkroomError))
    return [kind for kind in kinds if kind not in (errors.BackupRefused, problems.ProtocolRefusal)]

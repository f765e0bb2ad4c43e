"""Wrong queries."""

from __future__ import annotations

from tests.platform_api.door import Door
from tests.platform_api.http.test_problems import assert_problem


def test_a_wrong_query_is_named_as_it_was_sent(shared_door: Door):
    response = shared_door.client().get("/api/v1/training-jobs?state=asleep")
    assert assert_problem(response, 422)["errors"].keys() == {"state"}

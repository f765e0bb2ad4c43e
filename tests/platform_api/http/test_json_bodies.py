"""Bodies that are no request."""

from __future__ import annotations

import pytest

from tests.platform_api.door import Door
from tests.platform_api.http.test_problems import assert_problem


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 50_000, 400),
        (b'{"a":' * 5_000, 400),
        (b'{"classWord": "\xff"}', 400),
        (b'{"classWord": "\\ud800"}', 400),
        (b'{"classWord": NaN}', 400),
        (b"[]", 422),
        (b"null", 422),
        (b"{}", 422),
        (b'{"steps": ' + b"9" * 5000 + b"}", 422),
        (b'{"learningRate": 1e999}', 422),
        (b'{"\\u0000": 1}', 422),
        (b"x" * 70_000, 413),
    ],
)
def test_each_body_that_is_no_request_is_a_problem(shared_door: Door, body: bytes, status: int):
    client = shared_door.client()
    assert_problem(client.post("/api/v1/training-jobs", content=body), status)
    assert client.get("/api/v1/training-jobs").json()["items"] == []

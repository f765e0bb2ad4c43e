"""Downloads: the file that fits, and whom a token opens it to."""

from __future__ import annotations

import pytest

from tests.platform_api.catalog.reading.shelf import FULL, PRUNED, Shelf, put
from tests.platform_api.http.test_problems import assert_problem


def test_a_download_leads_to_the_file_that_fits(shelf: Shelf) -> None:
    root = f"/api/download/models/{shelf.version.id}"
    for query, content in (("", PRUNED), ("?size=full", FULL), ("?fp=FP32&format=SafeTensor", FULL)):
        led = shelf.get(root + query)
        assert (led.status_code, led.headers["cache-control"]) == (307, "no-store")
        assert "response-content-disposition" in led.headers["location"]
        got = shelf.get(led.headers["location"])
        assert got.content == content
        part = shelf.get(led.headers["location"], headers={"Range": "bytes=-3"})
        assert (part.status_code, part.content) == (206, content[-3:])
    assert got.headers["content-disposition"] == 'attachment; filename="Copper-Lantern_v1.safetensors"'
    assert shelf.door.client("").head(led.headers["location"]).headers["content-length"] == str(len(FULL))
    assert_problem(shelf.get(f"{root}?fp=int4"), 404)
    forged = led.headers["location"].replace("signature=", "signature=0")
    assert_problem(shelf.get(forged), 403)


def test_a_token_in_the_query_opens_downloads_only(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    model, version = put(shelf.door, "token", b"token", availability="Private")
    caplog.set_level("INFO", logger="darkroom.api")
    led = shelf.get(f"/api/download/models/{version.id}?token={shelf.door.key}")
    assert led.status_code == 307
    assert_problem(shelf.get(f"/api/v1/models/{model.id}?token={shelf.door.key}"), 404)
    assert_problem(shelf.get(f"/api/download/models/{version.id}?token=drk_a_b"), 401)
    secret = shelf.door.key.rsplit("_", 1)[1]
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]  # not the client's
    assert any("/api/download/models" in line for line in ours)
    assert secret not in str(ours) + str(led.headers)

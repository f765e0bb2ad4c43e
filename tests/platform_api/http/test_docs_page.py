"""The page on which the API can be tried: nothing from elsewhere, no script but its own, and the whole document."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from typing import Any

import httpx
import pytest
from litestar import Request, get
from litestar.testing import create_test_client

from platform_api.http.docs_page import ASSETS, VERSION, TryItPage, page_headers
from platform_api.http.fixed_responses import FixedResponse, takes_gzip
from tests.platform_api.door import Door
from tests.platform_api.http.test_problems import assert_problem


def policy_of(page: httpx.Response) -> dict[str, list[str]]:
    """What a page's policy allows, by directive."""
    stated = page.headers["content-security-policy"]
    return {name: values for name, *values in (part.split() for part in stated.split(";"))}


def test_the_page_may_reach_nothing_but_this_api_and_runs_its_own_script_alone(shared_door: Door) -> None:
    page = shared_door.client("").get("/docs")
    policy = policy_of(page)
    assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == ["'none'"]
    assert policy["connect-src"] == ["'self'"]
    assert "unsafe" not in page.headers["content-security-policy"]
    for kind, tag in (("script-src", r"<script type='text/javascript'>(.*?)</script>"), ("style-src", "<style>(.*?)<")):
        [inline] = re.findall(tag, page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy[kind] == ["'self'", f"'sha256-{digest}'"]
    assert "deepLinking: false" in page.text  # the fragment is an error's, to which `type` of a problem leads
    assert page.text.count("<script") == 3
    assert page.text.count("</script") == 3


def test_all_that_the_page_loads_is_served_here_as_what_it_is_and_kept(shared_door: Door) -> None:
    client = shared_door.client("")
    loaded = re.findall(r"(?:src|href)=[\"']([^\"'#]*)", client.get("/docs").text)
    assert sorted(loaded) == sorted(f"/docs/{VERSION}/{name}" for name in ASSETS)
    for address in loaded:
        asset = client.get(address)
        kind = ASSETS[address.rsplit("/", 1)[1]]
        stated = f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
        assert (asset.status_code, asset.headers["content-type"]) == (200, stated)
        assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert "@import" not in asset.text
        if address.endswith(".css"):
            assert set(re.findall(r"url\(['\"]?([a-z]+:)", asset.text)) <= {"data:"}
    assert int(VERSION.split(".")[0]) >= 5


@pytest.mark.parametrize("path", [f"{VERSION}/index.css", f"{VERSION}/..%2findex.css", "5.0.0/swagger-ui.css"])
def test_no_other_file_is_served(shared_door: Door, path: str) -> None:
    assert_problem(shared_door.client("").get(f"/docs/{path}"), 404)


def test_the_page_holds_the_document_that_the_api_serves(shared_door: Door) -> None:
    client = shared_door.client("")
    document = client.get("/schema/openapi.json").json()
    written = client.get("/docs").text.split("spec: ", 1)[1]
    assert json.JSONDecoder().raw_decode(written)[0] == document
    submit = document["paths"]["/api/v1/training-jobs"]["post"]
    assert submit["security"] == [{"key": ["jobs:write"]}]
    assert submit["description"].endswith("Scope: `jobs:write`.")
    whatever = document["paths"]["/api/v1/models"]["get"]["description"]
    assert whatever.endswith("Scope: `models:read` for what is your own; everybody may read what is public.")
    assert document["paths"]["/health"]["get"]["description"].endswith("No key.")
    body = submit["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    assert document["components"]["schemas"][body]["additionalProperties"] is False
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


@get("/", media_type="text/html", sync_to_thread=False)
def odd_page(request: Request[Any, Any, Any]) -> bytes:
    """The page of a document with an odd description."""
    return TryItPage().render(request, {"info": {"title": "Odd", "description": "</script><script>odd()</script>"}})


def test_no_text_of_the_document_ends_the_script_that_it_stands_in() -> None:
    with create_test_client([odd_page]) as client:
        page = client.get("/").text
    assert page.count("</script") == 3
    assert (
        json.JSONDecoder().raw_decode(page.split("spec: ", 1)[1])[0]["info"]["description"].endswith("odd()</script>")
    )


def test_two_scripts_have_two_hashes() -> None:
    script = b"<script type='text/javascript'>%s</script>"
    stated = page_headers(script % b"a" + script % b"b")["Content-Security-Policy"]
    assert stated.count("sha256-") == 3


@pytest.mark.parametrize("path", ["/docs", "/schema/openapi.json"])
def test_the_page_and_the_document_are_made_once_and_sent_compressed_or_not_at_all(
    shared_door: Door, path: str
) -> None:
    client = shared_door.client("")
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    zipped = client.get(path, headers={"Accept-Encoding": "gzip, deflate, br"})
    assert "content-encoding" not in plain.headers
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.content == plain.content
    assert int(zipped.headers["content-length"]) < len(plain.content) / 5
    for response in (plain, zipped):
        assert response.headers["vary"] == "Accept-Encoding"
        assert response.headers["cache-control"] == "public, max-age=0, must-revalidate"
        asked = {
            "If-None-Match": response.headers["etag"],
            "Accept-Encoding": response.request.headers["accept-encoding"],
        }
        unchanged = client.get(path, headers=asked)
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == response.headers["etag"]
    assert plain.headers["etag"] != zipped.headers["etag"], "one validator names one sequence of bytes"
    head = client.head(path, headers={"Accept-Encoding": "gzip"})
    assert head.headers["content-length"] == zipped.headers["content-length"]


def test_a_page_is_put_together_for_the_first_request_alone(shared_door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    client = shared_door.client("")
    first = client.get("/docs")
    monkeypatch.setattr(TryItPage, "render", None)
    assert client.get("/docs").content == first.content


@pytest.mark.parametrize(
    ("sent", "zipped"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.0, br", False),
    ],
)
def test_gzip_goes_to_whoever_reads_it(sent: str, zipped: bool) -> None:
    assert takes_gzip(sent) == zipped


def test_the_bytes_that_compressing_makes_do_not_depend_on_when() -> None:
    made = FixedResponse.of(b"text " * 1000, "text/plain")
    assert gzip.decompress(made.compressed) == made.plain
    assert made.compressed[4:8] == bytes(4), "where gzip says when (RFC 1952, MTIME)"

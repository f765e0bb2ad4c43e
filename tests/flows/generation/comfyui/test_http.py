"""Each response within its time and size, each failure by its name; the secret goes nowhere else."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from pydantic import SecretStr

from flows.generation.comfyui.address import ComfyAddress
from flows.generation.comfyui.backend import ComfyBackend
from flows.generation.comfyui.http import ComfyHttp, RefusedPrompt
from storage.errors import BackendBroken, BackendRefused, BackendUnavailable, InvalidSettings
from tests.conftest import free_port
from tests.flows.generation.comfyui.conftest import IMPATIENT, PEERS_MODEL, QUICK, SOON, drawing, picture_named
from tests.flows.generation.comfyui.scripted_peer import ScriptedPeer

SECRET = "Bearer s3cret-of-the-proxy"


def asked(http: ComfyHttp, match: str, kind: type[Exception] = BackendUnavailable, limit: int = 1000) -> float:
    """How long a read takes to fail by its name."""
    began = time.monotonic()
    with pytest.raises(kind, match=match):
        http.read("system_stats", dict[str, Any], limit)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("status", "match"),
    [
        (500, "status 500. Its log says why; try again"),
        (503, "status 503"),
        (401, "status 401. Put what its proxy wants into the setting of the header Authorization"),
        (404, "status 404. Check its URL"),
        (302, "status 302. It points elsewhere, which is not followed"),
    ],
)
def test_a_status_is_named_with_what_to_do(http: ComfyHttp, peer: ScriptedPeer, status: int, match: str) -> None:
    peer.script.statuses["system_stats"] = status
    peer.script.headers["system_stats"] = {"Location": f"{peer.url}/api/features"}
    asked(http, match)
    assert peer.requests == ["GET system_stats"]


def test_a_server_that_is_not_there_is_named() -> None:
    http = ComfyHttp(ComfyAddress(url=f"http://127.0.0.1:{free_port()}"), QUICK)
    asked(http, r"does not respond to system_stats \(ConnectError\). Start it, or check its URL")
    http.close()


@pytest.mark.parametrize(("how", "match"), [("hangs", "ReadTimeout"), ("slowly", "was not whole after 1 s")])
def test_a_server_that_hangs_or_trickles_is_left_in_time(peer: ScriptedPeer, how: str, match: str) -> None:
    getattr(peer.script, how).add("system_stats")
    http = ComfyHttp(ComfyAddress(url=peer.url), IMPATIENT)
    assert asked(http, match) < SOON
    http.close()


def test_an_endless_response_is_read_up_to_its_limit(http: ComfyHttp, peer: ScriptedPeer) -> None:
    peer.script.endless.add("system_stats")
    assert asked(http, "over its limit of 1,000 bytes", BackendBroken) < SOON


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'{"a"', b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_the_expected_json_is_broken(http: ComfyHttp, peer: ScriptedPeer, body: bytes) -> None:
    peer.script.bodies["system_stats"] = body
    asked(http, "not the JSON that it returns", BackendBroken, 1 << 20)


def test_a_compressed_response_is_not_unpacked(http: ComfyHttp, peer: ScriptedPeer) -> None:
    peer.script.bodies["system_stats"] = b"x"
    peer.script.headers["system_stats"] = {"Content-Encoding": "gzip"}
    asked(http, "compressed, though it was asked not to", BackendBroken)


def test_a_refused_graph_comes_with_its_reasons(http: ComfyHttp, peer: ScriptedPeer) -> None:
    peer.script.statuses["prompt"] = 400
    with pytest.raises(RefusedPrompt):
        http.post("prompt", {})


def test_an_upload_over_the_limit_is_a_fault_of_the_source(http: ComfyHttp, peer: ScriptedPeer) -> None:
    peer.script.statuses["upload"] = 413
    with pytest.raises(BackendRefused, match="source: ComfyUI takes no upload of 3 bytes"):
        http.upload("upload/image", "a.png", b"123", {})


def test_a_route_is_there_or_not(http: ComfyHttp, peer: ScriptedPeer) -> None:
    assert http.has("features")
    assert not http.has("no-such-route")
    peer.script.statuses["features"] = 500
    with pytest.raises(BackendUnavailable):
        http.has("features")


@pytest.mark.parametrize(
    "url", ["localhost:8188", "ftp://host", "http://", "http://user:hush@host", "http://host?key=1"]
)
def test_an_address_that_cannot_be_or_holds_a_secret_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidSettings) as refusal:
        ComfyAddress(url=url)
    assert "host?" not in str(refusal.value)
    assert "hush" not in str(refusal.value)


def test_the_secret_is_sent_to_both_doors_and_is_in_no_log_and_no_text(
    peer: ScriptedPeer, caplog: pytest.LogCaptureFixture
) -> None:
    peer.script.wanted_header = ("X-Key", SECRET)
    peer.script.steps = [(1, 4)]
    address = ComfyAddress(url=f"{peer.url}/", header="X-Key", secret=SecretStr(SECRET))
    backend = ComfyBackend(address, picture_named, names=PEERS_MODEL, limits=QUICK)
    with caplog.at_level(logging.DEBUG):
        assert [one.number for one in backend.draw(drawing())] == [0]
    backend.close()

    assert peer.opened == 1
    assert caplog.text
    for text in (caplog.text, repr(address), str(address)):
        assert SECRET not in text
    assert "mug" not in caplog.text


def test_a_wrong_secret_is_named_without_it(peer: ScriptedPeer) -> None:
    peer.script.wanted_header = ("X-Key", SECRET)
    backend = ComfyBackend(
        ComfyAddress(url=peer.url, header="X-Key", secret=SecretStr("wrong")), picture_named, limits=QUICK
    )
    with pytest.raises(BackendUnavailable, match="the setting of the header X-Key") as error:
        backend.version()
    assert "wrong" not in str(error.value)
    backend.close()

"""Pictures to go on from: canonical, their sender's alone, and drawn from."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from storage.postgres.accounts import quotas
from storage.postgres.generation import source_pictures
from tests.platform_api.door import ALL, form, photo
from tests.platform_api.generation.conftest import Studio

SOURCES = "/api/v1/generations/sources"


def send(studio: Studio, content: bytes, kind: str = "image/png"):
    return studio.client.post(SOURCES, content=content, headers={"Content-Type": kind})


def test_a_picture_is_made_canonical_and_a_step_goes_on_from_it(studio: Studio) -> None:
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    sent = studio.client.post(SOURCES, files=form(("a photo.jpg", photo(1, (64, 48), "JPEG", exif=exif))))
    source = sent.json()
    assert (sent.status_code, sent.headers["location"]) == (201, source["url"]), sent.text
    assert (source["width"], source["height"]) == (48, 64)
    kept = studio.client.get(source["url"]).content
    assert hashlib.sha256(kept).hexdigest() == source["sha256"]
    assert (Image.open(io.BytesIO(kept)).format, len(kept)) == ("PNG", source["size"])

    job = studio.submitted(operation="img2img", image=source["sha256"], strength=0.5, width=64, height=64)

    assert studio.shown(job)["steps"][0]["operation"] == "img2img"
    assert send(studio, kept).json() == source, "the same picture is the same source"
    other = send(studio, photo(2, (128, 64))).json()["sha256"]
    wrong = studio.ask(operation="inpaint", image=source["sha256"], mask=other)
    assert (wrong.status_code, list(wrong.json()["errors"])) == (422, ["mask"])
    assert "must be equal" in wrong.json()["errors"]["mask"]


def test_a_source_is_its_senders_alone(studio: Studio) -> None:
    source = send(studio, photo(3)).json()
    stranger = studio.door.client(studio.door.new_key(*ALL, account="stranger"))
    assert stranger.get(source["url"]).status_code == 404
    assert stranger.delete(source["url"]).status_code == 404
    body = {"model": studio.model, "prompt": "x", "operation": "img2img", "image": source["sha256"]}
    assert "image" in stranger.post("/api/v1/generations", json=body).json()["errors"]
    assert studio.client.delete(source["url"]).status_code == 204
    assert studio.client.get(source["url"]).status_code == 404
    assert studio.client.delete(f"{SOURCES}/no-hash").status_code == 404


def test_a_picture_is_added_while_what_its_account_holds_is_locked(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    hold, release, add = quotas.hold, quotas.release, source_pictures.add

    def holding(*arguments: Any, **named: Any) -> Any:
        order.append("hold")
        return hold(*arguments, **named)

    def releasing(*arguments: Any) -> Any:
        order.append("release")
        return release(*arguments)

    def adding(*arguments: Any) -> Any:
        order.append("add")
        return add(*arguments)

    monkeypatch.setattr(quotas, "hold", holding)
    monkeypatch.setattr(quotas, "release", releasing)
    monkeypatch.setattr(source_pictures, "add", adding)
    assert send(studio, photo(6)).status_code == 201
    # What was reserved is held while it comes; the row needs the lock of its own transaction.
    assert order[: order.index("add") + 1][-3:] == ["release", "hold", "add"]


def test_what_is_no_picture_is_refused_and_nothing_is_kept(studio: Studio) -> None:
    before = len(studio.door.blobs)
    garbage = send(studio, b"no picture at all")
    assert (garbage.status_code, "is not a PNG" in garbage.json()["detail"]) == (422, True)
    assert send(studio, b"x", "text/plain").status_code == 415
    assert "files" in studio.client.post(SOURCES, files=[("mask", ("a.png", photo(4)))]).text
    two = studio.client.post(SOURCES, files=form(("a.png", photo(4)), ("b.png", photo(5))))
    assert two.status_code == 422
    assert "pixels, which is the limit" in send(studio, bomb(30_000, 30_000)).json()["detail"]
    assert (len(studio.door.blobs), studio.door.staging) == (before, [])


def test_a_picture_of_100_mib_is_refused_by_its_size_before_it_has_come(studio: Studio) -> None:
    def pieces():
        for _ in range(100):
            yield bytes(1024 * 1024)

    told = send(studio, bytes(100 * 1024 * 1024))
    counted = studio.client.post(SOURCES, content=pieces(), headers={"Content-Type": "image/png"})
    for response in (told, counted):
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says that it has so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(width * 3 + 1))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )

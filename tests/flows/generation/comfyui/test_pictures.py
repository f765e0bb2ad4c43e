"""Pictures that come back are what was asked for, and those that are sent have names of their own."""

from __future__ import annotations

import io
import json
import struct
import zlib

import pytest
from PIL import Image

from flows.generation.comfyui.http import ComfyHttp
from flows.generation.comfyui.limits import METADATA_BYTES
from flows.generation.comfyui.pictures import PictureGone, download, picture_of, upload
from flows.generation.comfyui.prompt_states import SavedFile
from storage.errors import BackendBroken
from tests.flows.generation.comfyui.scripted_peer import ScriptedPeer, png

SIZE = (64, 64)


def header_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = zlib.crc32(b"IHDR" + data)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(data)) + b"IHDR" + data + struct.pack(">I", checksum)


def written(kind: str, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, SIZE, 5).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("content", [png(), written("PNG", "L"), written("PNG", "RGBA"), written("PNG", "P")])
def test_a_picture_of_the_size_is_rgb(content: bytes) -> None:
    picture = picture_of(content, SIZE)
    assert (picture.mode, picture.size) == ("RGB", SIZE)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        png()[:60],
        png()[:-20],
        png()[:40] + b"\x00" * 30,
        png()[:80] + bytes([png()[80] ^ 1]) + png()[81:],
        written("JPEG"),
        header_of(64, 64),
    ],
)
def test_what_is_no_whole_png_is_broken(content: bytes) -> None:
    with pytest.raises(BackendBroken, match="cannot be read"):
        picture_of(content, SIZE)


def test_another_size_is_broken_before_it_is_decoded() -> None:
    with pytest.raises(BackendBroken, match="of 64 x 32 pixels instead of 64 x 64"):
        picture_of(png(64, 32), SIZE)
    for side in (9_000, 20_000, 2**31 - 1):
        with pytest.raises(BackendBroken):
            picture_of(header_of(side, side), SIZE)


@pytest.mark.parametrize("count", [0, 2])
def test_one_picture_is_one_picture(http: ComfyHttp, count: int) -> None:
    with pytest.raises(BackendBroken, match=f"drew {count} pictures instead of one"):
        download(http, (SavedFile("a.png"),) * count, SIZE)


def test_a_picture_is_fetched_from_where_it_was_saved(http: ComfyHttp, peer: ScriptedPeer) -> None:
    peer.files["a b/../&type=x.png"] = png()
    assert download(http, (SavedFile("a b/../&type=x.png", "", "temp"),), SIZE).size == SIZE
    with pytest.raises(PictureGone, match="has lost a picture that it drew"):
        download(http, (SavedFile("gone.png"),), SIZE)


def test_more_bytes_than_the_pixels_and_a_graph_need_are_not_read(http: ComfyHttp, peer: ScriptedPeer) -> None:
    peer.files["a.png"] = png() + b"\x00" * (METADATA_BYTES + 4 * 64 * 64)
    with pytest.raises(BackendBroken, match="view is over its limit"):
        download(http, (SavedFile("a.png"),), SIZE)


def test_a_repeated_upload_has_the_same_name(http: ComfyHttp, peer: ScriptedPeer) -> None:
    one, other = Image.new("RGB", SIZE, "red"), Image.new("RGB", SIZE, "blue")
    assert upload(http, one) == upload(http, one.copy()) != upload(http, other)
    assert len(peer.uploads) == 2


def test_a_name_of_the_servers_own_is_used_if_it_is_ours_with_a_number(http: ComfyHttp, peer: ScriptedPeer) -> None:
    name = upload(http, Image.new("RGB", SIZE)).removeprefix("darkroom/")
    numbered = name.replace(".png", " (1).png")
    peer.script.bodies["upload"] = json.dumps({"name": numbered, "subfolder": "darkroom"}).encode()
    assert upload(http, Image.new("RGB", SIZE)) == f"darkroom/{numbered}"
    peer.script.bodies["upload"] = json.dumps({"name": "../../etc/passwd"}).encode()
    with pytest.raises(BackendBroken, match="under another name"):
        upload(http, Image.new("RGB", SIZE))

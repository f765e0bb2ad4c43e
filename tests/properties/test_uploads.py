"""However an upload is cut, sent twice, sent wrong or interrupted by a new process: the same bytes and hashes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage.blobs.hashing import ModelHasher
from tests.hypothesis_checks import ALL_HEALTH_CHECKS
from tests.platform_api.door import Door, listening, serving
from tests.platform_api.sending import BYTES, TUS, Sender, a_sender, weights

CONTENT = weights(6, 700_000, ss_network_dim="4")
HASHER = ModelHasher()
HASHER.take(CONTENT)
SHA256, HASHES = HASHER.finish()

PLACES = st.integers(0, len(CONTENT)) | st.sampled_from([1, 8, 9, 511, 512, 513, 0x100000, 0x110000, len(CONTENT) - 1])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "send with checksum", "wrong checksum", "wrong offset", "move"]), PLACES
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def doors(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Door, str]]:
    """Two APIs over the same stores: what one has hashed the other must hash again."""
    folder = tmp_path_factory.mktemp("cuts")
    with (
        serving(folder, module_database_url) as door,
        listening(door.settings.model_copy(deep=True)) as other,
    ):
        yield door, other


def checksum(content: bytes) -> dict[str, str]:
    """The Upload-Checksum of these bytes."""
    return {"Upload-Checksum": f"sha1 {base64.b64encode(hashlib.sha1(content).digest()).decode()}"}


def step(sender: Sender, url: str, offset: int, what: str, place: int) -> int:
    """One request; returns the offset that the upload must have then."""
    end = max(offset, place)
    piece, headers = CONTENT[offset:end], {**BYTES, "Upload-Offset": str(offset)}
    match what:
        case "wrong checksum":
            sent = sender.http.patch(url, content=piece, headers={**headers, **checksum(piece + b"x")})
            assert sent.status_code == 460
            return offset
        case "wrong offset":
            wrong = {**headers, "Upload-Offset": str(offset + 1 + place)}
            assert sender.http.patch(url, content=piece, headers=wrong).status_code == 409
            return offset
        case "send with checksum":
            headers |= checksum(piece)
        case _:
            pass
    assert sender.http.patch(url, content=piece, headers=headers).status_code == 204
    return end


@example(steps=[("send", 1000), ("move", 0), ("send", 2000), ("move", 0)])  # a hasher that must catch up
@example(steps=[("send", 1000), ("wrong checksum", 5000)])  # and one that must go back
@given(steps=STEPS)
@settings(max_examples=25, deadline=None, suppress_health_check=ALL_HEALTH_CHECKS)
def test_the_same_bytes_and_hashes_come_of_any_cuts(doors: tuple[Door, str], steps: list[tuple[str, int]]):
    door, other = doors
    sender = a_sender(door)
    path, offset, urls = sender.begin(len(CONTENT)), 0, [door.url, other]
    for what, place in steps:
        if what == "move":
            urls.reverse()
        elif offset < len(CONTENT):
            offset = step(sender, f"{urls[0]}{path}", offset, what, place)
        assert sender.http.head(f"{urls[0]}{path}", headers=TUS).headers["upload-offset"] == str(offset)
    if offset < len(CONTENT):
        step(sender, f"{urls[0]}{path}", offset, "send", len(CONTENT))

    file = sender.http.get(path).json()["file"]
    assert (file["sha256"], file["size"]) == (SHA256, len(CONTENT))
    assert {name: file["hashes"][name] for name in ("AutoV1", "AutoV3", "CRC32", "BLAKE3")} == {
        "AutoV1": HASHES.auto_v1,
        "AutoV3": HASHES.auto_v3,
        "CRC32": HASHES.crc32,
        "BLAKE3": HASHES.blake3,
    }
    assert sender.http.get(file["url"]).content == CONTENT
    assert sender.parts == []

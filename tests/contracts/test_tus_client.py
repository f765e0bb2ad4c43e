"""A tus client that others wrote uploads here, and goes on after a cut and after the API was killed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tusclient import client as tus
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tusclient.fingerprint.fingerprint import Fingerprint
from tusclient.storage.filestorage import FileStorage
from tusclient.uploader.uploader import Uploader

from tests.platform_api.door import Door, serving
from tests.platform_api.process import Process
from tests.platform_api.sending import Sender, a_sender, weights

CONTENT = weights(9, 400_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def door(module_database_url: str, tmp_path_factory: pytest.TempPathFactory):
    """A door of this module's."""
    with serving(tmp_path_factory.mktemp("tus"), module_database_url) as door:
        yield door


@pytest.fixture
def sender(door: Door) -> Sender:
    """The owner with a new version."""
    return a_sender(door)


@pytest.fixture
def uploader(sender: Sender, tmp_path: Path) -> Iterator[Callable[..., Uploader]]:
    """Makes the client's uploader of one file, which it finds again by its own store of addresses."""
    path = tmp_path / "lantern.safetensors"
    path.write_bytes(CONTENT)
    with contextlib.ExitStack() as stores:

        def make(url: str = sender.door.url, **options: Any) -> Uploader:
            speaking = tus.TusClient(f"{url}/api/v1/uploads", headers={"Authorization": f"Bearer {sender.door.key}"})
            metadata = {"versionId": str(sender.version_id), "filename": path.name, "sha256": SHA256}
            return speaking.uploader(
                str(path),
                metadata=metadata,
                chunk_size=100_000,
                store_url=True,
                url_storage=stores.enter_context(contextlib.closing(FileStorage(str(tmp_path / "addresses.json")))),
                fingerprinter=Fingerprint(),
                retries=0,
                **options,
            )

        yield make


def test_a_client_uploads_in_chunks_with_checksums(sender: Sender, uploader: Callable[..., Uploader]):
    uploader(upload_checksum=True).upload()
    assert sender.files() == [("lantern.safetensors", SHA256)]
    assert sender.parts == []


def test_a_client_goes_on_where_it_stopped(sender: Sender, uploader: Callable[..., Uploader]):
    first = uploader()
    first.upload(stop_at=300_000)
    second = uploader()
    assert (second.url, second.offset) == (first.url, 300_000)
    second.upload()
    assert sender.files() == [("lantern.safetensors", SHA256)]


def test_a_client_learns_why_a_file_is_refused(sender: Sender, door: Door, tmp_path: Path):
    path = tmp_path / "evil.safetensors"
    path.write_bytes(b"\x80\x04\x95" + bytes(1000))
    speaking = tus.TusClient(f"{door.url}/api/v1/uploads", headers={"Authorization": f"Bearer {door.key}"})
    metadata = {"versionId": str(sender.version_id), "filename": path.name}
    before = sender.everything()
    with pytest.raises(TusCommunicationError) as refused:
        speaking.uploader(str(path), metadata=metadata).upload()
    assert (refused.value.status_code, b"can run code" in (refused.value.response_content or b"")) == (422, True)
    assert sender.everything() == before


def test_a_client_goes_on_after_the_api_was_killed(sender: Sender, uploader: Callable[..., Uploader]):
    with Process(sender.door.settings) as api:
        first = uploader(api.url)
        first.upload(stop_at=200_000)
        api.kill()
        with pytest.raises((TusUploadFailed, TusCommunicationError)):
            first.upload()
        api.start()
        second = uploader(api.url)
        assert (second.url, second.offset) == (first.url, 200_000)
        second.upload()
    assert sender.files() == [("lantern.safetensors", SHA256)]
    assert sender.http.get(f"/api/v1/model-versions/{sender.version_id}/files/lantern.safetensors").content == CONTENT

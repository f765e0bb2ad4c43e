"""Files that come over connections that break."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from deployments.client.api import ApiUnreachable, open_api
from deployments.client.downloads import DownloadFailed, fetch_file, safe_target
from deployments.client.responses import Version
from storage.settings import load_settings
from tests.deployments.client.cable import cable_to
from tests.deployments.line import Line

WEIGHTS = b"weights" * 100_000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def weights_url(line: Line) -> str:
    """The address of a published weights file."""
    version = line.trained()
    with open_api(load_settings()) as api:
        files = api.get(f"/api/v1/model-versions/{version}", Version).stored_files
    return next(file.url for file in files if file.role == "weights")


def test_a_download_goes_on_where_each_break_left_it(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    url, target = weights_url(line), line.folder / "model.safetensors"
    heard: list[int] = []
    with cable_to(line.door.url, cut_after=250_000) as cable:
        monkeypatch.setenv("DARKROOM_API__PUBLIC_URL", cable.url)
        with open_api(load_settings()) as api:
            fetch_file(api, url, target, sha256=SHA256, size=len(WEIGHTS), on_bytes=heard.append)

    assert target.read_bytes() == WEIGHTS
    assert sum(heard) == len(WEIGHTS)
    assert cable.connections >= 3


def test_a_connection_that_never_holds_leaves_no_file_under_the_name_and_a_later_try_goes_on(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, target = weights_url(line), line.folder / "model.safetensors"
    with cable_to(line.door.url, cut_after=250_000, connections=2) as cable:
        monkeypatch.setenv("DARKROOM_API__PUBLIC_URL", cable.url)
        with open_api(load_settings()) as api, pytest.raises(ApiUnreachable, match="darkroom up"):
            fetch_file(api, url, target, sha256=SHA256, size=len(WEIGHTS))
    left = (line.folder / "model.safetensors.part").stat().st_size
    heard: list[int] = []

    monkeypatch.setenv("DARKROOM_API__PUBLIC_URL", line.door.url)
    assert not target.exists()
    with open_api(load_settings()) as api:
        fetch_file(api, url, target, sha256=SHA256, size=len(WEIGHTS), on_bytes=heard.append)

    assert 0 < left < len(WEIGHTS)
    assert heard[0] == left
    assert target.read_bytes() == WEIGHTS


def test_bytes_that_do_not_agree_with_their_hash_are_never_kept(line: Line) -> None:
    url, target = weights_url(line), line.folder / "model.safetensors"

    with open_api(load_settings()) as api, pytest.raises(DownloadFailed, match="other bytes than its SHA-256"):
        fetch_file(api, url, target, sha256="0" * 64, size=len(WEIGHTS))

    assert list(line.folder.glob("model.safetensors*")) == []


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a\\..\\x"])
def test_a_name_that_leads_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="leads out"):
        safe_target(tmp_path, name)

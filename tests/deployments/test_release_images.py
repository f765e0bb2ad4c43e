"""The images of a release by digest, asked of a real registry where this machine has one (Debian's docker-registry)."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployments.release_images import COMPOSE, DIGEST, ImageUnknown, digest_of, main, override, pinned
from tests.conftest import free_port

DOCUMENT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
BUILT = frozenset(name for name, service in DOCUMENT["services"].items() if "build" in service)
needs_registry = pytest.mark.skipif(
    not (shutil.which("skopeo") and shutil.which("docker-registry")),
    reason="skopeo and docker-registry are not installed: apt install skopeo docker-registry",
)


class _Loader(yaml.SafeLoader):
    """Compose's own tag for what an override takes away."""


_Loader.add_constructor("!reset", lambda loader, node: "reset")


def digest_for(image: str) -> str:
    return "sha256:" + hashlib.sha256(image.encode()).hexdigest()


def test_each_service_is_named_by_tag_and_digest_and_nothing_is_built() -> None:
    asked: list[str] = []

    def ask(image: str) -> str:
        asked.append(image)
        return digest_for(image)

    services = pinned(DOCUMENT, "registry.example", ask)
    written = yaml.load(override(services, BUILT), Loader=_Loader)["services"]
    assert set(written) == set(DOCUMENT["services"])
    assert len(asked) == len(set(asked))
    for name, service in written.items():
        image, digest = service["image"].split("@")
        assert digest == digest_for(image)
        assert ("build" in service) == ("build" in DOCUMENT["services"][name])
        assert image == (
            f"registry.example/{DOCUMENT['services'][name]['image']}"
            if DOCUMENT["services"][name]["image"].startswith("darkroom-")
            else DOCUMENT["services"][name]["image"]
        )


def test_without_an_image_of_its_own_what_is_built_stays_so() -> None:
    services = pinned(DOCUMENT, None, digest_for)
    assert set(services) == {
        name for name, service in DOCUMENT["services"].items() if not service["image"].startswith("darkroom-")
    }


def test_without_skopeo_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageUnknown, match="skopeo is not installed"):
        digest_of("postgres:18.0")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """host:port of an empty registry, to which skopeo may speak without TLS."""
    address = f"127.0.0.1:{free_port()}"
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": address},
    }
    (tmp_path / "registry.yml").write_text(yaml.safe_dump(settings))
    hosts = tmp_path / ".config" / "containers" / "registries.conf"
    hosts.parent.mkdir(parents=True)
    hosts.write_text(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    command = ["docker-registry", "serve", str(tmp_path / "registry.yml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://{address}/v2/").raise_for_status()
            break
        except httpx.HTTPError:
            assert process.poll() is None, "the registry has ended"
            time.sleep(0.05)
    else:
        pytest.fail("the registry does not respond")
    yield address
    process.kill()
    process.wait()


def push(address: str, name: str, tag: str) -> str:
    """An image of one file; returns the digest of its manifest."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("hello"))
    diff = "sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff]}, "config": {}}
    media = "application/vnd.docker."
    with httpx.Client(base_url=f"http://{address}/v2/{name}/") as client:

        def upload(content: bytes, kind: str) -> dict[str, Any]:
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            place = client.post("blobs/uploads/").headers["location"]
            client.put(f"{place}&digest={digest}", content=content).raise_for_status()
            return {"mediaType": media + kind, "size": len(content), "digest": digest}

        manifest = {
            "schemaVersion": 2,
            "mediaType": media + "distribution.manifest.v2+json",
            "config": upload(json.dumps(config).encode(), "container.image.v1+json"),
            "layers": [upload(layer.getvalue(), "image.rootfs.diff.tar")],
        }
        sent = client.put(
            f"manifests/{tag}", content=json.dumps(manifest), headers={"content-type": manifest["mediaType"]}
        )
        return str(sent.raise_for_status().headers["docker-content-digest"])


@needs_registry
def test_a_registry_says_the_digest_of_a_tag(registry: str) -> None:
    digest = push(registry, "darkroom", "0.1.0")
    assert DIGEST.fullmatch(digest)
    assert digest_of(f"{registry}/darkroom:0.1.0") == digest


def half_written(file: Path, text: str) -> int:
    with file.open("w") as stream:
        stream.write(text[: len(text) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


@needs_registry
def test_a_file_of_before_stays_until_there_is_a_whole_one(registry: str, tmp_path: Path) -> None:
    file = tmp_path / "release.yaml"
    file.write_text("of before")
    document = {"services": {"api": {"image": "darkroom-api:0.1.0", "build": "."}}}
    push(registry, "darkroom-api", "0.1.0")
    with pytest.MonkeyPatch.context() as patch:
        (tmp_path / "compose.yaml").write_text(yaml.safe_dump(document))
        patch.setattr("deployments.release_images.COMPOSE", tmp_path / "compose.yaml")
        with pytest.raises(SystemExit, match="No digest of"):
            main(f"{registry}/elsewhere", file)
        with patch.context() as full, pytest.raises(SystemExit, match="No space left"):
            full.setattr(Path, "write_text", half_written)
            main(registry, file)
        with pytest.raises(SystemExit, match="Not a directory"):
            main(registry, file / "release.yaml")
        assert file.read_text() == "of before"
        assert [one.name for one in tmp_path.iterdir() if one.name.endswith(".new")] == []
        main(registry, file)
    assert "/darkroom-api:0.1.0@sha256:" in yaml.load(file.read_text(), Loader=_Loader)["services"]["api"]["image"]
    assert [one.name for one in tmp_path.iterdir() if one.name.endswith(".new")] == []


@needs_registry
def test_an_image_that_was_not_pushed_is_named_and_nothing_is_printed(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    push(registry, "darkroom-api", "0.1.0")
    services = {name: {"image": f"darkroom-{name}:0.1.0", "build": "."} for name in ("api", "worker")}
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump({"services": services}))
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match=r"No digest of .*/darkroom-worker"):
        patch.setattr("deployments.release_images.COMPOSE", tmp_path / "compose.yaml")
        main(registry)
    assert capsys.readouterr().out == ""

    command = [sys.executable, "-m", "deployments.release_images", "--registry", registry]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "No digest of" in done.stderr

"""The images of a release by their digests, as an override of compose.yaml: what was tested is what starts later.

    python -m deployments.release_images --registry REGISTRY --output deployments/compose.release.yaml
    export COMPOSE_FILE=deployments/compose.yaml:deployments/compose.release.yaml

A tag can be moved to other bytes, a digest cannot. skopeo asks the registries, with the sign-in and the mirrors of
whoever runs it; it needs no container engine. A digest is that of the whole index, so it fits every architecture.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from storage.errors import DarkroomError

COMPOSE = Path(__file__).with_name("compose.yaml")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SECONDS = 120.0


class ImageUnknown(DarkroomError):
    """The digest of an image cannot be had; nothing was written."""

    code = "image_unknown"


def digest_of(image: str) -> str:
    """The digest that `image` (NAME:TAG) has in its registry now. Raises ImageUnknown."""
    command = ["skopeo", "inspect", "--no-tags", "--format", "{{.Digest}}", f"docker://{image}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError as error:
        raise ImageUnknown("skopeo is not installed. It is a package of that name, as in Debian.") from error
    except subprocess.TimeoutExpired as error:
        raise ImageUnknown(f"The registry of {image} did not respond within {SECONDS:.0f} s. Try again.") from error
    digest = done.stdout.strip()
    if done.returncode or not DIGEST.fullmatch(digest):
        raise ImageUnknown(f"No digest of {image}. Is it pushed, and are you signed in? {done.stderr.strip()}")
    return digest


def pinned(document: Mapping[str, Any], registry: str | None, ask: Callable[[str], str]) -> dict[str, dict[str, str]]:
    """The image of each service as NAME:TAG@DIGEST, each asked for once.

    `registry` has the images that compose.yaml builds, under their names there; without it those services are left to
    be built.
    """
    digests: dict[str, str] = {}
    found: dict[str, dict[str, str]] = {}
    own = {service["image"] for service in document["services"].values() if "build" in service}
    for name, service in document["services"].items():
        built = service["image"] in own
        if registry is not None or not built:
            image = f"{registry}/{service['image']}" if built else service["image"]
            digests[image] = digests.get(image) or ask(image)
            found[name] = {"image": f"{image}@{digests[image]}"}
    return found


def override(services: Mapping[str, Mapping[str, str]], built: frozenset[str]) -> str:
    """The override file; services of `built` are not built any more."""
    lines = ["# Written by python -m deployments.release_images: the images of this release.", "services:"]
    for name, service in services.items():
        # Compose merges the two files: without the reset it would still build the image.
        build = ", build: !reset null" if name in built else ""
        lines.append(f"  {name}: {{image: {service['image']!r}{build}}}")
    return "\n".join(lines) + "\n"


def main(
    registry: Annotated[
        str | None, typer.Option(help="Where Darkroom's own images are pushed. Without it, compose builds them.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write; left out: it is printed.")] = None,
) -> None:
    """Write an override of compose.yaml that names each image by its digest; nothing when one has none."""
    document = yaml.safe_load(COMPOSE.read_text())
    try:
        services = pinned(document, registry, digest_of)
    except ImageUnknown as error:
        raise SystemExit(str(error)) from error
    built = frozenset(name for name, service in document["services"].items() if "build" in service)
    text = override(services, built)
    if output is None:
        sys.stdout.write(text)
        return
    new = output.with_name(f".{output.name}.new")
    try:
        new.write_text(text)
        new.replace(output)
    except OSError as error:
        raise SystemExit(f"{output} was not written: {error.strerror}. Fix that, then repeat it.") from error
    finally:
        with suppress(OSError):
            new.unlink()


if __name__ == "__main__":
    typer.run(main)

"""Pictures that a request goes on from, sent to the API; and requests that are read from pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast
from urllib.parse import quote

from deployments.client.api import Api, ApiRefusal
from deployments.client.generation_input import SOURCES, GenerationInput, InvalidGeneration, is_file
from deployments.client.responses import Made, SourceResponse, job_root
from storage.blobs.pictures.read import PictureFacts, read_picture
from storage.blobs.pictures.seed_requests import read_seed_request
from storage.errors import ImageRefused
from storage.records.generation.step_requests import WorkflowRequest

NOT_FOUND = 404
MAX_PICTURE_BYTES = 64 * 1024 * 1024
_HASH = re.compile(r"[0-9A-Fa-f]{8,64}")
_AIR = re.compile(r"urn:air:", re.IGNORECASE)
_KINDS = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
# The same again would be the same job, and tags are words for a job.
_OF_JOBS = ("externalId", "tags", "priority")


def read_from_picture(given: GenerationInput, file: Path) -> tuple[str, ...]:
    """Take a request from what a picture says; returns what of it could not be taken. Raises InvalidGeneration."""
    facts = picture_facts(file)
    found = read_seed_request(facts)
    known = set(WorkflowRequest.__struct_encode_fields__) - set(_OF_JOBS)
    fields = {name: value for name, value in found.fields.items() if name in known}
    if not fields.get("prompt") and "operation" not in fields and "workflow" not in fields:
        raise InvalidGeneration([(str(file), "says nothing of how it was drawn; give PROMPT and --model in its place")])
    given.add(fields, file.name)
    return (*found.left_out, *(name for name in found.fields if name not in (*known, *_OF_JOBS)))


def picture_facts(file: Path) -> PictureFacts:
    """What a picture says of itself. Raises InvalidGeneration naming the file."""
    content = _start_of(file, "--from")
    try:
        return read_picture(content)
    except ImageRefused as refusal:
        raise InvalidGeneration([("--from", f"{file} {refusal}")]) from refusal


def find_models(api: Api, given: GenerationInput, facts: PictureFacts, file: Path) -> None:
    """Put the numbers of versions here in place of the hashes that a picture has. What options set is left as it is.

    Raises InvalidGeneration for what is not here, and for the names of another place, ApiRefusal, ApiUnreachable.
    """
    # Numbers in a picture that was drawn by Darkroom are taken for this one's.
    ours = bool(facts.request) or facts.drawn.version.startswith("Darkroom")
    faults: list[tuple[str, str]] = []
    if not given.given_by_option("model") and "model" in given.values:
        found = _version_here(api, given.values["model"], ours=ours)
        if isinstance(found, str):
            faults.append((file.name, f"its model: {found}. Name one with --model"))
        else:
            given.values["model"] = found[0]
    if not given.given_by_option("adapters"):
        for adapter in given.values.get("adapters") or ():
            found = _version_here(api, adapter["model"], ours=ours)
            if isinstance(found, str):
                faults.append((file.name, f"its adapter: {found}. Name others with --adapter, or --adapter none"))
            else:
                adapter["model"] = found[0]
    if faults:
        raise InvalidGeneration(faults)


def send_sources(api: Api, given: GenerationInput, folder: Path) -> None:
    """Send the files that steps name as `image` or `mask`, relative to `folder`, and put their SHA-256 in their place.

    Raises InvalidGeneration naming the file.
    """
    sent: dict[Path, str] = {}
    for step in given.steps():
        for field in SOURCES:
            if not is_file(named := step.get(field)):
                continue
            path = folder / cast(str, named)
            if path not in sent:
                sent[path] = send_source(api, path, f"--{field}" if given.given_by_option(field) else field)
            step[field] = sent[path]


def send_source(api: Api, path: Path, called: str) -> str:
    """Send a picture; returns the SHA-256 by which steps name it. Raises InvalidGeneration, ApiRefusal."""
    content = _start_of(path, called)
    kind = next((kind for magic, kind in _KINDS.items() if content.startswith(magic)), None)
    if kind is None:
        raise InvalidGeneration([(called, f"{path} is not a PNG, JPEG or WebP image")])
    try:
        answer = api.post(
            f"{job_root('generation')}/sources", SourceResponse, content=content, headers={"Content-Type": kind}
        )
    except ApiRefusal as refusal:
        raise InvalidGeneration([(called, f"{path}: {refusal}")]) from refusal
    return answer.sha256


def _version_here(api: Api, named: object, *, ours: bool) -> tuple[int | str] | str:
    """What to ask for: the number or AIR of a version here; a text says why there is none."""
    if isinstance(named, int) or (isinstance(named, str) and ours and _AIR.match(named)):
        return (named,)
    if not isinstance(named, str) or not _HASH.fullmatch(named):
        return f"{str(named)[:100]} is a name of another catalogue, whose numbers mean other versions here"
    try:
        return (api.get(f"/api/v1/model-versions/by-hash/{quote(named, safe='')}", Made).id,)
    except ApiRefusal as refusal:
        if refusal.status != NOT_FOUND:
            raise
        return f"no version here has a file with the hash {named}"


def _start_of(path: Path, called: str) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_PICTURE_BYTES + 1)
    except OSError as error:
        raise InvalidGeneration([(called, f"{path}: {error.strerror}")]) from error
    if len(content) > MAX_PICTURE_BYTES:
        raise InvalidGeneration([(called, f"{path} has more than {MAX_PICTURE_BYTES:,} bytes. Export it smaller")])
    return content

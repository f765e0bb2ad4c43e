"""What a sender says of each photo, in lines of JSON: `metadata.jsonl` of Hugging Face's image folders.

    {"file_name": "a.png", "text": "on the beach", "repeats": 2}

`whole_prompt` is ours too: the caption is the prompt as it stands, also without the identifier.

Source: https://huggingface.co/docs/datasets/image_dataset, "ImageFolder". `repeats` is ours: how often an image comes
in each pass, as kohya's folders name it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from storage.errors import InvalidRequest

MAX_CAPTION = 2_000
MAX_REPEATS = 1_000


class PhotoMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """One line. Its caption is `text`, or `caption` or `prompt`, as data sets have it; other fields are left alone."""

    file_name: Annotated[str, Meta(min_length=1, max_length=1_000)]
    text: Annotated[str, Meta(max_length=MAX_CAPTION)] = ""
    caption: Annotated[str, Meta(max_length=MAX_CAPTION)] = ""
    prompt: Annotated[str, Meta(max_length=MAX_CAPTION)] = ""
    repeats: Annotated[int, Meta(ge=1, le=MAX_REPEATS)] = 1
    whole_prompt: bool = False

    @property
    def words(self) -> str:
        """The caption on one line; empty where there is none."""
        return " ".join((self.text or self.caption or self.prompt).split())


def read_metadata(lines: str) -> dict[str, PhotoMetadata]:
    """What is said of each file, by its name. Raises InvalidRequest naming the line at fault."""
    found: dict[str, PhotoMetadata] = {}
    # By line feeds alone: str.splitlines also breaks at characters that stand within texts.
    for number, line in enumerate(lines.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            one = msgspec.json.decode(line, type=PhotoMetadata)
        # DecodeError also for what is JSON, but of another form; RecursionError for what is nested without end.
        except (msgspec.DecodeError, RecursionError) as error:
            example = '{"file_name": "a.png", "text": "on the beach"}'
            raise InvalidRequest({"metadata": f"line {number}: {error}. A line is like: {example}"}) from error
        if not (one.file_name + one.words).isprintable():
            raise InvalidRequest({"metadata": f"line {number}: the file name or the caption holds control characters"})
        if one.file_name in found:
            raise InvalidRequest({"metadata": f"line {number}: '{one.file_name}' was named before"})
        found[one.file_name] = one
    return found


def write_metadata(photos: list[PhotoMetadata]) -> str:
    """Lines that `read_metadata` reads."""
    return "\n".join(msgspec.json.encode(photo).decode() for photo in photos)

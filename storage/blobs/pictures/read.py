"""What a picture says of how it was drawn, whichever tool wrote it. No pixel is decoded, and Pillow is not needed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, cast

from storage.blobs.pictures.containers import Container, read_container
from storage.blobs.pictures.exif import USER_COMMENT, read_comment, read_fields, read_texts
from storage.records.generation.drawings import PictureFormat
from storage.records.generation.graph_facts import facts_of_graph
from storage.records.generation.parameter_values import DrawnFacts
from storage.records.generation.parameters import has_settings, read_parameters


@dataclass(frozen=True)
class PictureFacts:
    """A picture file without its pixels: its size, and what was found of how it was drawn, empty where nothing was.

    `parameters` is the text as it stands; `drawn` is what it says, or else the graph. `graph` is ComfyUI's, node by
    name; `request` is our own, as it was written. All of it is a stranger's word, and nothing personal is in it but
    what a prompt says.
    """

    format: PictureFormat
    width: int
    height: int
    size: int
    parameters: str = ""
    drawn: DrawnFacts = field(default_factory=DrawnFacts)
    graph: dict[str, Any] = field(default_factory=dict[str, Any])
    request: dict[str, Any] = field(default_factory=dict[str, Any])


def read_picture(content: bytes) -> PictureFacts:
    """The facts of a PNG, JPEG or WebP. Metadata of tools that we do not know is passed over.

    Raises ImageRefused, with a reason and a message that goes on after the file's name: for what is no such picture, is
    damaged or too large, or holds a text or EXIF data that cannot be read safely.
    """
    container = read_container(content)
    texts = container.texts | _exif_texts(container)
    parameters, graph = texts.get("parameters", ""), _graph(texts.get("prompt", ""))
    return PictureFacts(
        container.format,
        container.width,
        container.height,
        len(content),
        parameters=parameters,
        drawn=_drawn(parameters) or facts_of_graph(graph),
        graph=graph,
        request=_mapping(texts.get("darkroom", "")),
    )


def _exif_texts(container: Container) -> dict[str, str]:
    """Texts of EXIF data whose keys the container itself does not have."""
    if not container.exif:
        return {}
    fields = read_fields(container.exif)
    texts = read_texts(fields)
    comment = read_comment(fields.get(USER_COMMENT, b""))
    # Cameras and people write into this field, too.
    if has_settings(comment):
        texts["parameters"] = comment
    return {key: text for key, text in texts.items() if key not in container.texts}


def _drawn(parameters: str) -> DrawnFacts | None:
    """What a text says; None without one. SwarmUI and Fooocus write JSON under the same key, which is no prompt."""
    if not parameters or (not has_settings(parameters) and _mapping(parameters)):
        return None
    return read_parameters(parameters)


def _graph(text: str) -> dict[str, Any]:
    """A graph as ComfyUI's API takes it: what others keep under that key has no nodes with classes."""
    graph = _mapping(text)
    nodes = [cast(dict[str, Any], node) for node in graph.values() if isinstance(node, dict)]
    sound = all(isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict) for node in nodes)
    return graph if sound and len(nodes) == len(graph) else {}


def _mapping(text: str) -> dict[str, Any]:
    """A JSON object; empty for anything else. ComfyUI writes NaN, which is no JSON, and no value either."""
    try:
        value = json.loads(text, parse_constant=lambda _name: None)
    # ValueError also for a number of thousands of digits; RecursionError for what is nested without end.
    except (ValueError, RecursionError):
        return {}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}

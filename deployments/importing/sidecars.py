"""What lies beside a model file on a disk: a description as Civitai's helpers write it, and a preview image."""

from __future__ import annotations

from pathlib import Path

import msgspec

from storage.records.catalog.vocabulary import ModelType

MAX_BYTES = 4 * 1024 * 1024
# Civitai's own response first: it says more than what drawing programs keep.
_SUFFIXES = (".civitai.info", ".json")
_PREVIEWS = (".preview.png", ".preview.jpeg", ".preview.jpg", ".preview.webp", ".png", ".jpeg", ".jpg", ".webp")
_VERSIONS = {"SD1": "SD 1.5", "SD2": "SD 2.1", "SDXL": "SDXL 1.0"}


class SidecarModel(msgspec.Struct, frozen=True, rename="camel"):
    """The model, as Civitai's response about a version has it."""

    name: str | None = None
    type: str | None = None
    nsfw: bool | None = None
    poi: bool | None = None
    description: str | None = None
    tags: tuple[str, ...] | None = None


class Sidecar(msgspec.Struct, frozen=True, rename="camel"):
    """Civitai's response about a version, or the shorter object that image programs keep. All may be missing."""

    name: str | None = None
    description: str | None = None
    base_model: str | None = None
    trained_words: tuple[str, ...] | None = None
    model: SidecarModel = SidecarModel()
    activation_text: str | None = msgspec.field(name="activation text", default=None)
    sd_version: str | None = msgspec.field(name="sd version", default=None)

    @property
    def base(self) -> str | None:
        """The base model's catalogue name, if it is given."""
        return self.base_model or _VERSIONS.get(self.sd_version or "")

    @property
    def words(self) -> tuple[str, ...]:
        """What to say in a prompt, if it is given."""
        return self.trained_words or tuple(filter(None, [(self.activation_text or "").strip()]))

    @property
    def type(self) -> ModelType | None:
        """The model's type, if it is one of ours."""
        return next((known for known in ModelType if known.value == self.model.type), None)


def sidecar_of(weights: Path) -> tuple[Sidecar, str | None]:
    """The description beside a file, empty when there is none; and why one that is there was passed over."""
    for suffix in _SUFFIXES:
        path = weights.with_name(f"{weights.stem}{suffix}")
        if not path.is_file():
            continue
        if path.stat().st_size > MAX_BYTES:
            return Sidecar(), f"{path.name} has more than {MAX_BYTES:,} bytes"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Sidecar), None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Sidecar(), f"{path.name} is no description of a model: {error}"
    return Sidecar(), None


def preview_of(weights: Path) -> Path | None:
    """The preview image beside a file, if there is one."""
    places = (weights.with_name(f"{weights.stem}{suffix}") for suffix in _PREVIEWS)
    return next((path for path in places if path.is_file()), None)

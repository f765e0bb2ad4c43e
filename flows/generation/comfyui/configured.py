"""The ComfyUI that the settings name."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from flows.generation.comfyui.address import ComfyAddress
from flows.generation.comfyui.backend import ComfyBackend
from storage.comfyui_settings import ComfyuiSettings
from storage.errors import InvalidSettings
from storage.records.generation.comfyui.comfy_models import ComfyNames, InstalledModel


def configured_backend(settings: ComfyuiSettings, read_picture: Callable[[str], Image.Image]) -> ComfyBackend:
    """A backend on the installation of the settings; see ComfyBackend for the function. Nothing is connected to yet.

    Raises InvalidSettings if they name none, or a URL that cannot be.
    """
    if not settings.url:
        raise InvalidSettings("No ComfyUI is named: set DARKROOM_COMFYUI__URL.")
    return ComfyBackend(
        ComfyAddress(url=settings.url, header=settings.header, secret=settings.secret),
        read_picture,
        names=ComfyNames(
            models={version: InstalledModel(name=name) for version, name in settings.models.items()},
            adapters=settings.adapters,
        ),
    )

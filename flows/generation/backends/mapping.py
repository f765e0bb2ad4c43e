"""Every generation backend by its name."""

from flows.generation.backends.local import LocalBackend
from flows.generation.backends.protocol import Backend

BACKENDS: dict[str, Backend] = {"local": LocalBackend()}

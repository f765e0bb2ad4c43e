"""The backend `local`: the engine that `darkroom up` runs on this machine."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from flows.generation.backends.protocol import Backend, BackendFacts, Opener
from flows.generation.callbacks import DrawingCallbacks
from flows.generation.drawn_pictures import DrawnPicture
from flows.generation.engine.backend import EngineBackend
from storage.records.generation.drawings import Drawing, Operation
from storage.records.jobs.choices import ModelFamily
from storage.stores import Stores


class LocalBackend:
    """See Backend. An engine that loses its caller draws no more for it, and has no credits to count."""

    repeats_freely = True

    def __init__(self, engine: EngineBackend) -> None:
        self._engine = engine

    def facts(self) -> BackendFacts:
        """See Backend."""
        status = self._engine.status()
        capabilities = {
            "operations": [operation.value for operation in Operation],
            "families": [family.value for family in ModelFamily],
            **{name: status[name] for name in ("device", "threads", "budget") if name in status},
        }
        return BackendFacts(version=str(status.get("release", "")), capabilities=capabilities)

    def missing_for(self, drawing: Drawing) -> dict[str, str]:
        """It draws whatever a request can ask for with the families that it knows."""
        family, known = drawing.model.family, [one.value for one in ModelFamily]
        if drawing.operation is Operation.UPSCALE or family in known:
            return {}
        return {"model": f"is of the family '{family}'; the engine draws with {', '.join(known)}"}

    def draw(
        self, drawing: Drawing, callbacks: DrawingCallbacks, *, key: str, wanted: Sequence[int], urgency: int
    ) -> Generator[DrawnPicture]:
        """See Backend."""
        return self._engine.draw(drawing, callbacks, wanted=wanted, urgency=urgency, key=key)

    def close(self) -> None:
        """Each drawing has a connection of its own."""


def open_backend(stores: Stores) -> Backend | None:
    """The engine of this machine, unless the settings leave it out."""
    settings = stores.settings
    return LocalBackend(EngineBackend(settings.engine_socket)) if settings.generation.engine else None


BACKEND: Opener = open_backend

"""Which backend draws a drawing: by what it can do, by its health, by how much it draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from flows.generation.backends.protocol import Backend
from flows.generation.callbacks import DrawingCallbacks
from flows.generation.drawn_pictures import DrawnPicture
from storage.errors import BackendRefused
from storage.postgres.generation import backends as backend_rows
from storage.records.generation.drawings import Drawing
from storage.stores import Stores


class BackendSelection:
    """The backends that the settings name, for the threads of one process.

    `backends`: by their names, in the order in which they are preferred where all else is equal. See `open_backends`.
    """

    def __init__(self, stores: Stores, backends: Mapping[str, Backend]) -> None:
        self._stores, self._backends = stores, dict(backends)

    def look(self) -> None:
        """Ask every backend what it is and write that down. Raises nothing. Call it every fifteen seconds or so."""
        for name, backend in self._backends.items():
            facts = backend.facts()
            self._stores.database.run(lambda n=name, f=facts: backend_rows.looked(n, f.version, f.capabilities))

    def draw(
        self,
        drawing: Drawing,
        callbacks: DrawingCallbacks,
        *,
        key: str,
        wanted: Sequence[int],
        urgency: int,
        only: str = "",
        held_by: str | None = None,
        begins: Callable[[str], None],
    ) -> Iterator[tuple[str, DrawnPicture]]:
        """The wanted pictures of a drawing, each once, with the name of the backend that drew it. Who leaves the loop
        cancels the rest.

        key, urgency: see Backend.draw. only: the one backend that may draw it; empty: any. held_by: the one that an
        earlier attempt gave it to. begins: called with a backend's name before anything is given to it.

        Raises BackendRefused by field where no backend can draw it; BackendUnavailable where those that can do not
        respond now: the same call goes on later; and what Backend.draw raises.
        """
        for name, backend in self._backends.items():
            if only and name != only:
                continue
            begins(name)
            for picture in backend.draw(drawing, callbacks, key=key, wanted=wanted, urgency=urgency):
                yield name, picture
            return
        raise BackendRefused({"backend": f"no backend {only!r} is set up"})

    def close(self) -> None:
        """Close the backends' connections."""
        for backend in self._backends.values():
            backend.close()

"""Which backend draws a drawing, and when another one takes it over.

Asked in this order: the backend that an earlier attempt gave the drawing to; then the one that has the fewest pictures
to draw; where two have equally many, the one that the settings name first. Left out are those that the request rules
out, those whose circuit is open, and those that say that they lack something (a model, a scheduler, an operation).

When another one takes over. Nothing is stored twice: what has come is wanted no more, from whomever. Nothing is paid
twice:

- Before `begins` nothing was given to a backend. Whether it does not respond, lacks something or refuses the drawing,
  the next one is asked at once.
- Once it was given to a backend, that one may hold pictures of ours, drawn and paid for. It is asked again, with the
  same key, as long as it responds; while it does not, the caller gets BackendUnavailable and tries again later.
- A backend that `repeats_freely` is left for another one when its circuit opens, and at once when it returns something
  broken or draws nothing any more: it has been told to stop, and if it draws on, that costs time and no credits.
- A backend that does not is never left, whatever happens: only it knows what it has drawn for the key.

A backend that the settings name no more cannot be asked: the others take over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from flows.generation.backends.health import BackendHealth, Visit
from flows.generation.backends.protocol import Backend, BackendFacts
from flows.generation.callbacks import DrawingCallbacks
from flows.generation.drawn_pictures import DrawnPicture
from storage.errors import BackendBroken, BackendRefused, BackendStalled, BackendUnavailable, StoreUnavailable
from storage.records.generation.circuits import CircuitState
from storage.records.generation.drawings import Drawing
from storage.stores import Stores

log = logging.getLogger("darkroom.backends")

LOOK_SECONDS = 10.0
"""So long a look waits for responses; a backend that is slower does not respond."""
Begins = Callable[[str], None]


class BackendSelection:
    """The backends that the settings name, for the threads of one process.

    backends: by their names, in the order in which they are preferred where all else is equal. See `open_backends`.
    """

    def __init__(self, stores: Stores, backends: Mapping[str, Backend], look_seconds: float = LOOK_SECONDS) -> None:
        self._backends, self._look_seconds = dict(backends), look_seconds
        self.health = BackendHealth(stores.database, self._backends)
        self._looks: dict[str, _Look] = {}
        self._closed = threading.Event()

    def look(self) -> None:
        """Ask every backend what it is and write that down. Raises nothing, and takes `look_seconds` at most besides
        what Postgres takes. Call it from one thread, every fifteen seconds or so."""
        self.health.read()
        until = time.monotonic() + self._look_seconds
        for name, backend in self._backends.items():
            # One that hangs is not asked a second time meanwhile.
            if name not in self._looks:
                self._looks[name] = _Look(name, backend, self._closed)
        for name, look in list(self._looks.items()):
            self._take(name, look, until)
        if not self._closed.is_set():
            self.health.write()

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
        begins: Begins,
    ) -> Generator[tuple[str, DrawnPicture]]:
        """The wanted pictures of a drawing, each once, with the name of the backend that drew it. Who leaves the loop
        cancels the rest.

        key, urgency: see Backend.draw. only: the one backend that may draw it; empty: any. held_by: the one that an
        earlier attempt gave it to. begins: called with a backend's name before anything is given to it.

        Raises BackendRefused by field where no backend can draw it; BackendUnavailable where those that can do not
        respond now: the same call goes on later; and what Backend.draw raises.
        """
        self.health.read()
        left = list(dict.fromkeys(wanted))
        attempt = _Attempt(drawing, callbacks, key, left, urgency, begins)
        names = [name for name in self._backends if only in ("", name)]
        if not names:
            raise BackendRefused({"backend": self._not_there(only)})
        outcome = _Outcome()
        while names and left:
            name = self._first_of(names, held_by)
            names.remove(name)
            visit = self.health.visit(name, len(left))
            if visit is None:
                outcome.silent[name] = self.health.reason(name)
            else:
                with visit:
                    yield from self._drawn_by(self._backends[name], visit, attempt, outcome)
            if name == held_by and not self._may_be_left(name, outcome):
                break
        if left:
            raise outcome.error()

    def close(self) -> None:
        """Say that nothing is drawn any more, and close the backends' connections. A look that goes on meanwhile in
        another thread finds nothing any more."""
        self._closed.set()
        self.health.end()
        for backend in self._backends.values():
            backend.close()

    def _first_of(self, names: Sequence[str], held_by: str | None) -> str:
        return held_by if held_by is not None and held_by in names else min(names, key=self.health.load)

    def _not_there(self, only: str) -> str:
        known = ", ".join(self._backends) or "none at all"
        return f"'{only}' is not set up here; there is: {known}" if only else "none is set up here"

    def _may_be_left(self, name: str, outcome: _Outcome) -> bool:
        """Whether another backend may draw what this one may hold."""
        if not self._backends[name].repeats_freely:
            return False
        return name not in outcome.silent or self.health.circuit(name) is not CircuitState.CLOSED

    def _drawn_by(
        self, backend: Backend, visit: Visit, attempt: _Attempt, outcome: _Outcome
    ) -> Generator[tuple[str, DrawnPicture]]:
        """What a backend draws; why it does not draw the rest is noted. Raises what ends the drawing."""
        name = visit.name
        try:
            if lacking := backend.missing_for(attempt.drawing):
                outcome.lacking[name] = lacking
                return
        except (BackendUnavailable, BackendBroken) as error:
            # Nothing has been given to it, so that even a broken response fails no drawing.
            visit.failed(error, unheard=isinstance(error, BackendUnavailable))
            outcome.silent[name] = str(error)
            return
        attempt.begins(name)
        try:
            for picture in attempt.pictures(backend, visit):
                visit.drawn()
                yield name, picture
        except BackendRefused as refusal:
            outcome.lacking[name] = refusal.fields
        except (BackendBroken, BackendStalled) as error:
            visit.failed(error, unheard=False)
            if not backend.repeats_freely:
                raise
            outcome.broken = error
        except BackendUnavailable as error:
            visit.failed(error, unheard=True)
            raise

    def _take(self, name: str, look: _Look, until: float) -> None:
        """Note what a look has found, or that it has found nothing in time."""
        look.ended.wait(max(0.0, until - time.monotonic()))
        if self._closed.is_set():
            return
        if look.facts is not None:
            self.health.looked(name, look.facts)
        elif not self.health.drawings(name):
            # Where something is drawn, its own failures count.
            reason = look.reason or f"It did not say what it is within {self._look_seconds:g} s."
            self.health.failed(name, reason, unheard=True, since=look.began)
        if look.ended.is_set():
            del self._looks[name]


class _Look:
    """A backend that is asked what it is, in a thread that the process does not wait for at its end."""

    def __init__(self, name: str, backend: Backend, closed: threading.Event) -> None:
        self._name, self._backend, self._closed = name, backend, closed
        self.began, self.ended = time.monotonic(), threading.Event()
        self.facts: BackendFacts | None = None
        self.reason = ""
        threading.Thread(target=self._ask, name=f"look-{name}", daemon=True).start()

    def _ask(self) -> None:
        try:
            self.facts = self._backend.facts()
        except (StoreUnavailable, BackendBroken) as error:
            self.reason = str(error)
        except Exception as error:
            # A fault of one backend's own must not hide the others. One that is closed meanwhile has none.
            if not self._closed.is_set():
                log.exception("look_failed backend=%s", self._name)
            self.reason = f"Asking it failed ({type(error).__name__}). The log says more."
        finally:
            self.ended.set()


class _Attempt:
    """A drawing and the pictures of it that have not come; `begins` as BackendSelection.draw has it."""

    def __init__(
        self, drawing: Drawing, callbacks: DrawingCallbacks, key: str, left: list[int], urgency: int, begins: Begins
    ) -> None:
        self.drawing, self.begins, self._left = drawing, begins, left
        self._callbacks, self._key, self._urgency = callbacks, key, urgency

    def pictures(self, backend: Backend, visit: Visit) -> Generator[DrawnPicture]:
        """What a backend draws of the rest. Raises BackendBroken for a picture that was not asked for, that comes
        twice, has another size or is missing at the end, and what Backend.draw raises."""
        name, report = visit.name, self._callbacks.step

        def step(number: int, done: int, steps: int) -> None:
            visit.heard()
            report(number, done, steps)

        callbacks = replace(self._callbacks, step=step)
        drawn = backend.draw(self.drawing, callbacks, key=self._key, wanted=tuple(self._left), urgency=self._urgency)
        with closing(drawn):
            for picture in drawn:
                self._check(picture, name)
                self._left.remove(picture.number)
                yield picture
        if self._left:
            raise BackendBroken(f"The backend {name} ended without pictures {self._left}. Its log may say why.")

    def _check(self, picture: DrawnPicture, name: str) -> None:
        if picture.number not in self._left:
            raise BackendBroken(f"The backend {name} returned picture {picture.number}, which nobody waits for.")
        size, asked = picture.image.size, (self.drawing.width, self.drawing.height)
        if size != asked or picture.image.mode != "RGB":
            found = f"{size[0]} x {size[1]} pixels ({picture.image.mode})"
            raise BackendBroken(f"The backend {name} returned {found} instead of {asked[0]} x {asked[1]} (RGB).")


class _Outcome:
    """Why no backend has drawn it: by name what they lack, why they do not respond, and the last that broke it."""

    def __init__(self) -> None:
        self.lacking: dict[str, dict[str, str]] = {}
        self.silent: dict[str, str] = {}
        self.broken: BackendBroken | BackendStalled | None = None

    def error(self) -> Exception:
        """What to raise: that waiting helps goes before that nobody can."""
        if self.broken is not None:
            return self.broken
        if self.silent:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.silent.items())
            return BackendUnavailable(f"No backend that may draw this responds now. {reasons}")
        fields: dict[str, list[str]] = {}
        for name, lacking in self.lacking.items():
            for field, reason in lacking.items():
                fields.setdefault(field, []).append(f"{name}: {reason}")
        return BackendRefused({field: "; ".join(reasons) for field, reasons in fields.items()})

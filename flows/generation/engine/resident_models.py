"""Models in the memory of one device, held from one request to the next; those used longest ago go first.

One is loaded at a time, by a thread of its own, while others draw.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

import torch

from flows.diffusion.families.lookup import family_named
from flows.diffusion.memory import lay_out_weights, return_freed
from flows.generation.engine.news import News
from flows.generation.engine.resident_model import AdapterSource, ResidentModel
from storage.records.generation.drawings import DrawnModel
from storage.records.jobs.sampled_sets import fingerprint

log = logging.getLogger("darkroom.engine")


class ModelSource(AdapterSource, Protocol):
    """Where the files of models and adapters come from."""

    def folder(self, model: DrawnModel) -> AbstractContextManager[Path]:
        """A model's diffusers folder on this machine, verified, which stays while the block reads it.

        Raises BlobMissing, BlobCorrupted, DiskFull, StoreUnavailable.
        """
        ...


def key_of(model: DrawnModel) -> str:
    """What a model is held under: its bytes and how they are held, not its name."""
    return fingerprint(DrawnModel(version_id=0, family=model.family, files=model.files, held_in=model.held_in))


class ResidentModels:
    """The models of one device. `budget`: bytes that they may take together; one that is larger is held alone.

    reading: held while libraries read a model, which changes torch for the whole process: its default type, how modules
    take parameters, how weights begin. Whoever makes modules or random numbers holds it, too. narrow: held while one is
    read in 16 bits; the UNet's calls hold it.
    """

    def __init__(self, files: ModelSource, device: torch.device, budget: int, news: News) -> None:
        """news: is told when a model is there, or could not be loaded."""
        self._files, self._device, self._budget, self._news = files, device, budget, news
        self._models: OrderedDict[str, ResidentModel] = OrderedDict()
        self._failed: dict[str, tuple[float, Exception]] = {}
        self._sizes: dict[str, int] = {}
        self._loading, self._since = "", 0.0
        self.reading, self.narrow = threading.Lock(), threading.Lock()
        self.loads = 0

    def has(self, key: str) -> bool:
        """Whether a model is here."""
        with self._news.lock:
            return key in self._models

    def find(self, key: str) -> ResidentModel | None:
        """The model if it is here; it counts as used now."""
        with self._news.lock:
            found = self._models.get(key)
            if found is not None:
                self._models.move_to_end(key)
                found.used = time.monotonic()
            return found

    def failure_since(self, key: str, moment: float) -> Exception | None:
        """What the loading of a model failed by, if that was after a moment of the monotonic clock."""
        with self._news.lock:
            failed = self._failed.get(key)
            return failed[1] if failed is not None and failed[0] >= moment else None

    def held(self) -> dict[str, int]:
        """The models that are here, by key, with their bytes."""
        with self._news.lock:
            return {key: model.size for key, model in self._models.items()}

    def loading_seconds(self) -> float:
        """For how long a model is being loaded by now; 0 while none is."""
        with self._news.lock:
            return time.monotonic() - self._since if self._loading else 0.0

    def want(self, model: DrawnModel, busy: Collection[str]) -> bool:
        """Begin to load a model that is not here, unless another one is being loaded; False when there is no room for
        it beside the busy ones."""
        key = key_of(model)
        with self._news.lock:
            if self._loading:
                return True
            if not self._make_room(self._sizes.get(key, model.size_bytes), busy):
                return False
            self._loading, self._since = key, time.monotonic()
            self._failed.pop(key, None)
        threading.Thread(target=self._load, args=(key, model), name="load-model", daemon=True).start()
        return True

    def shrink(self, busy: Collection[str]) -> None:
        """Let models go, but for the busy ones and the last, when those here turned out larger than was known."""
        with self._news.lock:
            if len(self._models) > 1 and sum(model.size for model in self._models.values()) > self._budget:
                self._make_room(0, {*busy, next(reversed(self._models))})

    def drop_idle(self, seconds: float, busy: Collection[str] = ()) -> int:
        """Forget models that nobody has used for so long; returns how many."""
        limit = time.monotonic() - seconds
        with self._news.lock:
            idle = [key for key, model in self._models.items() if key not in busy and model.used <= limit]
            for key in idle:
                del self._models[key]
        if idle:
            return_freed(self._device)
        return len(idle)

    def _make_room(self, size: int, busy: Collection[str]) -> bool:
        held = self.held()
        for key in [key for key in held if key not in busy]:
            if sum(held.values()) + size <= self._budget:
                break
            del self._models[key], held[key]
            return_freed(self._device)
        return not held or sum(held.values()) + size <= self._budget

    def _load(self, key: str, model: DrawnModel) -> None:
        began = time.monotonic()
        try:
            loaded = self._loaded(model)
        except Exception as error:
            log.exception("model version %d was not loaded", model.version_id)
            # Without the frames of what was loaded so far.
            error = error.with_traceback(None)
            with self._news.told():
                self._failed, self._loading = {key: (time.monotonic(), error)}, ""
            return_freed(self._device)
            return
        with self._news.told():
            self._models[key], self._sizes[key], self._loading = loaded, loaded.size, ""
            self.loads += 1
        log.info("model version %d is loaded in %.1f s", model.version_id, time.monotonic() - began)

    def _loaded(self, model: DrawnModel) -> ResidentModel:
        family = family_named(model.family)
        with self._files.folder(model) as folder:
            with self.reading, self.narrow if model.held_in != "float32" else nullcontext():
                components = family.load(folder, dtype=model.held_in)
            for module in components.modules.values():
                # Out of the mapped files, which may be deleted from now on.
                lay_out_weights(module)
        return ResidentModel(family, components.to(self._device))

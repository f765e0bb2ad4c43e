"""A BERT-style sentence encoder in numpy. `encoder.py` imports it when a text is encoded for the first time.

What a folder in the layout of sentence-transformers says is done: lower-casing, truncation, transformer, pooling.
Vectors come out with length 1, so that a dot product is the cosine. Equal to sentence-transformers within 1e-4.

Sources: Devlin et al. 2019 (the transformer), Reimers and Gurevych 2019 (mean pooling), Abramowitz and Stegun 7.1.26
(the error function inside GELU, within 1.5e-7; numpy has none).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file  # pyright: ignore[reportUnknownVariableType]
from threadpoolctl import threadpool_limits
from tokenizers import Tokenizer

from storage.errors import EncoderUnavailable

Array: TypeAlias = NDArray[np.float32]

TOKENS_AT_ONCE = 512
"""A batch has about this many tokens; the values between the layers of a larger one leave the processor's cache."""
# transformers writes 1e30 as model_max_length where a tokenizer has no limit.
UNKNOWN_LENGTH = 1_000_000
MASKED = np.float32(-1e9)


@dataclass(frozen=True)
class EncoderLayout:
    """What an encoder's folder says about itself. Lengths count tokens, with the two around a text."""

    layers: int
    heads: int
    epsilon: float
    max_tokens: int
    lower_case: bool
    pooling: str


class Bert:
    """A loaded encoder."""

    def __init__(self, folder: Path) -> None:
        try:
            self._layout = read_layout(folder)
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            weights = load_file(folder / "model.safetensors")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise EncoderUnavailable(f"The encoder in {folder} cannot be read: {error}") from error
        except Exception as error:  # tokenizers raises a bare one for a file it cannot read
            raise EncoderUnavailable(f"The encoder in {folder} cannot be read: {error}") from error
        # Matrices this small gain little from a second thread, and OpenBLAS's threads wait for each other by spinning:
        # on a busy machine a query took 400 ms with two of them, 22 ms with one. It holds for the whole process.
        threadpool_limits(limits=1, user_api="blas")
        self._tokenizer.no_padding()
        # Ignored, as at the import of load_file: neither library types its functions wholly.
        self._tokenizer.enable_truncation(self._layout.max_tokens)  # pyright: ignore[reportUnknownMemberType]
        try:
            self._take(weights)
        except KeyError as error:
            raise EncoderUnavailable(f"The encoder in {folder} has no tensor {error}: is it a BERT?") from error
        self.name = _name(folder, self._layout)
        self.dimensions = int(self._words.shape[1])

    def _take(self, weights: Mapping[str, NDArray[Any]]) -> None:
        tensors = {name.removeprefix("bert."): tensor.astype(np.float32) for name, tensor in weights.items()}
        self._words = tensors["embeddings.word_embeddings.weight"]
        # Every text is sequence A, so the type embedding is one row that may as well be part of the positions.
        types = tensors["embeddings.token_type_embeddings.weight"][0]
        self._positions = tensors["embeddings.position_embeddings.weight"] + types
        self._norm = _norm_of(tensors, "embeddings.LayerNorm")
        self._layers = [_Layer(tensors, f"encoder.layer.{number}.") for number in range(self._layout.layers)]

    def encode(self, texts: Sequence[str]) -> Array:
        """(texts, dimensions) float32 rows of length 1."""
        readable = [text.lower() for text in texts] if self._layout.lower_case else list(texts)
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(readable)]
        vectors = np.empty((len(tokens), self.dimensions), np.float32)
        # Texts of one length go together: a batch costs as much as its longest.
        order = sorted(range(len(tokens)), key=lambda number: len(tokens[number]))
        while order:
            fitting = max(1, TOKENS_AT_ONCE // len(tokens[order[-1]]))
            batch, order = order[-fitting:], order[:-fitting]
            vectors[batch] = self._encode_batch([tokens[number] for number in batch])
        return vectors

    def _encode_batch(self, tokens: Sequence[Sequence[int]]) -> Array:
        length = max(len(ids) for ids in tokens)
        ids = np.zeros((len(tokens), length), np.int64)
        present = np.zeros((len(tokens), length), np.float32)
        for row, line in enumerate(tokens):
            ids[row, : len(line)] = line
            present[row, : len(line)] = 1
        states = _normalised(self._words[ids] + self._positions[:length], self._norm, self._layout.epsilon)
        mask = ((1 - present) * MASKED)[:, None, None, :]
        for layer in self._layers:
            states = layer.forward(states, mask, self._layout)
        if self._layout.pooling == "cls":
            pooled = states[:, 0]
        else:
            pooled = (states * present[:, :, None]).sum(axis=1) / present.sum(axis=1, keepdims=True)
        return cast(Array, pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12))


class _Layer:
    """One transformer layer; weights are kept as (in, out)."""

    def __init__(self, tensors: Mapping[str, Array], prefix: str) -> None:
        # Side by side in one matrix: one product instead of three.
        parts = [prefix + f"attention.self.{part}." for part in ("query", "key", "value")]
        self.query_key_value = (
            np.concatenate([tensors[part + "weight"].T for part in parts], axis=1),
            np.concatenate([tensors[part + "bias"] for part in parts]),
        )
        self.attention_out = _dense_of(tensors, prefix + "attention.output.dense")
        self.attention_norm = _norm_of(tensors, prefix + "attention.output.LayerNorm")
        self.inner = _dense_of(tensors, prefix + "intermediate.dense")
        self.out = _dense_of(tensors, prefix + "output.dense")
        self.out_norm = _norm_of(tensors, prefix + "output.LayerNorm")

    def forward(self, states: Array, mask: Array, layout: EncoderLayout) -> Array:
        """states: (B, L, D). mask: (B, 1, 1, L), 0 where a token is and hugely negative where none is."""
        batch, length, width = states.shape
        mixed = (states @ self.query_key_value[0] + self.query_key_value[1]).reshape(
            batch, length, 3, layout.heads, width // layout.heads
        )
        query, key, value = (mixed[:, :, part].transpose(0, 2, 1, 3) for part in range(3))
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(math.sqrt(width // layout.heads)) + mask
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        attended = attended.transpose(0, 2, 1, 3).reshape(batch, length, width)
        states = _normalised(
            states + attended @ self.attention_out[0] + self.attention_out[1], self.attention_norm, layout.epsilon
        )
        inner = gelu(states @ self.inner[0] + self.inner[1])
        return _normalised(states + inner @ self.out[0] + self.out[1], self.out_norm, layout.epsilon)


def gelu(values: Array) -> Array:
    """x times the normal distribution function of x, elementwise."""
    scaled = np.abs(values)
    scaled *= np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * scaled)
    polynomial = np.float32(1.061405429) * t
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        polynomial += np.float32(coefficient)
        polynomial *= t
    np.multiply(scaled, -scaled, out=scaled)
    np.exp(scaled, out=scaled)
    polynomial *= scaled
    error = np.copysign(np.subtract(1, polynomial, out=polynomial), values, out=polynomial)
    error += 1
    error *= values
    error *= np.float32(0.5)
    return error


def _normalised(values: NDArray[Any], norm: tuple[Array, Array], epsilon: float) -> Array:
    centred = values - values.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(epsilon))
    return centred / spread * norm[0] + norm[1]


def _dense_of(tensors: Mapping[str, Array], name: str) -> tuple[Array, Array]:
    return np.ascontiguousarray(tensors[name + ".weight"].T), tensors[name + ".bias"]


def _norm_of(tensors: Mapping[str, Array], name: str) -> tuple[Array, Array]:
    if name + ".gamma" in tensors:  # files converted from the first release of BERT
        return tensors[name + ".gamma"], tensors[name + ".beta"]
    return tensors[name + ".weight"], tensors[name + ".bias"]


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.is_file() else {}


def read_layout(folder: Path) -> EncoderLayout:
    """What the folder's JSON files say. Raises ValueError for an architecture that is not carried out here."""
    config, sentence = _read(folder / "config.json"), _read(folder / "sentence_bert_config.json")
    pooling_config = _read(folder / "1_Pooling" / "config.json")
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        raise ValueError(
            f"model_type {config.get('model_type')!r} with {config.get('hidden_act')!r}; bert with gelu is."
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError("its positions are not absolute.")
    stages = [str(stage["type"]).rsplit(".", 1)[-1] for stage in cast(list[Any], _read(folder / "modules.json") or [])]
    unknown = sorted(set(stages) - {"Transformer", "Pooling", "Normalize"})
    if unknown:
        raise ValueError(f"it has a stage {unknown[0]} after the transformer; only pooling and normalising are known.")
    chosen = [
        name.removeprefix("pooling_mode_") for name, on in pooling_config.items() if on is True and "mode" in name
    ]
    if chosen not in ([], ["mean_tokens"], ["cls_token"]):
        raise ValueError(f"its pooling is {' with '.join(chosen)}; mean_tokens and cls_token are known.")
    tokenizer_length = int(min(_read(folder / "tokenizer_config.json").get("model_max_length", 512), UNKNOWN_LENGTH))
    maximum = min(int(config["max_position_embeddings"]), tokenizer_length)
    return EncoderLayout(
        layers=int(config["num_hidden_layers"]),
        heads=int(config["num_attention_heads"]),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        max_tokens=min(maximum, int(sentence.get("max_seq_length") or maximum)),
        lower_case=bool(sentence.get("do_lower_case", False)),
        pooling="cls" if chosen == ["cls_token"] else "mean",
    )


def _name(folder: Path, layout: EncoderLayout) -> str:
    digest = hashlib.sha256(repr(layout).encode())
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        with (folder / file).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]

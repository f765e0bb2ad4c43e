"""Prompts of any length and with weights, to what a UNet takes.

As A1111's web UI does it: each part of a prompt that has a weight of its own is tokenized apart; the tokens fill chunks
of what the encoder can read at a time (75 of CLIP's 77, beside start and end); the encoder reads each chunk by itself;
their hidden states are joined along the token axis. A chunk that would end inside of a phrase ends behind its last
comma, if that is among its last 20 tokens, and the next one begins with the rest. Prompt and negative prompt of a
picture get the same number of chunks, those missing being chunks of an empty text; so this number is a function of the
two, and only pictures with the same number can be drawn in one batch: group them by `chunks_of`.

Every chunk is encoded alone, so its numbers depend on no other; one that occurs often is encoded once. Prompts without
weights that fit into one chunk are encoded bit for bit as `Family.encode_prompts` encodes the pair of prompt and
negative prompt, or without guidance the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from flows.diffusion.families.protocol import HIDDEN_STATES, Components, Conditioning, Family
from flows.diffusion.families.text_tokens import TokenRows
from storage.records.generation.prompts import weighted_parts

BACKTRACK = 20
"""How far from a chunk's end, in tokens, a comma may be to end it. A1111's default."""

GUIDED_ROWS = 2
"""In how many equal rows a chunk is encoded for a picture with guidance. With one row instead of two a product of
matrices takes another way, whose last bits differ (seen on a CPU in SDXL's pooled vector), and a picture that was drawn
before there were chunks had the pair of its prompts encoded together."""

Encode = Callable[[], Conditioning]
Keep = Callable[[tuple[object, ...], Encode], Conditioning]
"""What was kept under a key, or else is encoded now and may be kept. Keys say nothing of models and adapters."""


def encode_now(key: tuple[object, ...], encode: Encode) -> Conditioning:
    """Keeps nothing."""
    return encode()


@dataclass(frozen=True)
class Chunk:
    """Tokens that an encoder reads at a time, start, end and padding included, with a weight each."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    def rows(self, count: int) -> TokenRows:
        """The chunk as `count` equal rows."""
        plain = all(weight == 1.0 for weight in self.weights)
        return TokenRows(torch.tensor([self.ids] * count), None if plain else torch.tensor([self.weights] * count))


def token_chunks(tokenizer: Any, prompt: str) -> tuple[Chunk, ...]:
    """The chunks of a prompt, at least one; weights, escapes and `BREAK` are read as in the records' prompts.py."""
    parts = weighted_parts(prompt)
    # Not verbose: it would warn of texts that are longer than a chunk.
    texts = tokenizer([part.text for part in parts], add_special_tokens=False, verbose=False).input_ids
    filling = _Filling(tokenizer)
    for part, ids in zip(parts, texts, strict=True):
        if part.new_chunk:
            filling.end_chunk()
        for token in ids:
            filling.add(token, part.weight)
    return filling.chunks()


def chunks_of(tokenizers: Sequence[Any], prompt: str, negative: str | None) -> int:
    """How many chunks a picture's prompts take; `negative` is None where there is no guidance."""
    texts = [prompt] if negative is None else [prompt, negative]
    return max(len(token_chunks(tokenizer, text)) for tokenizer in tokenizers for text in texts)


def encode_weighted(
    family: Family,
    components: Components,
    prompts: Sequence[str],
    *,
    negative: str,
    clip_skip: int = 0,
    keep: Keep = encode_now,
) -> tuple[Conditioning, Conditioning]:
    """The conditioning of N prompts, one row each, and one row of what guidance draws away from.

    `encoder_hidden_states` is (N, chunks x tokens, width) and (1, chunks x tokens, width); a pooled vector is that of
    the first chunk. `keep` can spare what an earlier call encoded. Raises InvalidRequest for a `clip_skip` beyond the
    encoder's layers, and ValueError for prompts that differ in `chunks_of`.
    """
    encoding = _Encoding(family, components, clip_skip, GUIDED_ROWS, keep)
    count = encoding.count(prompts, [negative])
    encoded = encoding.encode(prompts, count)
    return encoded, family.as_negative(components, negative, encoding.encode([negative], count))


def encode_unguided(
    family: Family,
    components: Components,
    prompts: Sequence[str],
    *,
    clip_skip: int = 0,
    keep: Keep = encode_now,
) -> Conditioning:
    """As `encode_weighted`, for pictures without guidance, whose negative prompts do not count."""
    encoding = _Encoding(family, components, clip_skip, 1, keep)
    return encoding.encode(prompts, encoding.count(prompts, []))


class _Filling:
    """Tokens on their way into chunks."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._length = tokenizer.model_max_length - 2
        comma = tokenizer(",", add_special_tokens=False).input_ids
        self._comma: int | None = comma[0] if len(comma) == 1 else None
        self._chunks: list[Chunk] = []
        self._start()

    def _start(self, tokens: Sequence[tuple[int, float]] = ()) -> None:
        self._tokens = list(tokens)
        self._behind_comma: int | None = None

    def add(self, token: int, weight: float) -> None:
        """One more token; a chunk that is full ends first."""
        if len(self._tokens) == self._length:
            self._end_full(token)
        self._tokens.append((token, weight))
        if token == self._comma:
            self._behind_comma = len(self._tokens)

    def _end_full(self, following: int) -> None:
        behind = self._behind_comma
        # A comma that follows ends the phrase here. A1111 counts from the comma itself.
        if following == self._comma or behind is None or self._length - (behind - 1) > BACKTRACK:
            self.end_chunk()
            return
        moved = self._tokens[behind:]
        del self._tokens[behind:]
        self.end_chunk()
        self._start(moved)

    def end_chunk(self) -> None:
        """Pad what there is to a chunk, be it nothing."""
        tokenizer, padding = self._tokenizer, self._length - len(self._tokens)
        ids = [token for token, _ in self._tokens]
        weights = [weight for _, weight in self._tokens]
        self._chunks.append(
            Chunk(
                (tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding),
                (1.0, *weights, *[1.0] * (1 + padding)),
            )
        )
        self._start()

    def chunks(self) -> tuple[Chunk, ...]:
        """All of them; behind a `BREAK` at the end there is no more."""
        if self._tokens or not self._chunks:
            self.end_chunk()
        return tuple(self._chunks)


class _Encoding:
    """One call's way from texts to conditioning: no text is tokenized twice and no chunk is encoded twice."""

    def __init__(self, family: Family, components: Components, clip_skip: int, rows: int, keep: Keep) -> None:
        self._family, self._components, self._clip_skip, self._rows = family, components, clip_skip, rows
        self._keep = keep
        self._encoded: dict[tuple[Chunk, ...], Conditioning] = {}
        self._columns: dict[str, list[tuple[Chunk, ...]]] = {}

    def count(self, prompts: Sequence[str], with_each: Sequence[str]) -> int:
        """How many chunks each of the prompts takes beside the other texts. Raises ValueError if they differ."""
        counts = {max(map(self._needed, [prompt, *with_each])) for prompt in prompts}
        if len(counts) != 1:
            raise ValueError(f"prompts of {sorted(counts)} chunks in one batch; group them by chunks_of")
        return counts.pop()

    def encode(self, texts: Sequence[str], count: int) -> Conditioning:
        """One row of `count` chunks for each text."""
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        rows = [self._text(text, count) for text in distinct]
        together = {name: torch.cat([row.tensors[name] for row in rows]) for name in rows[0].tensors}
        return Conditioning(together).take([distinct[text] for text in texts])

    def _tokenized(self, text: str) -> list[tuple[Chunk, ...]]:
        if text not in self._columns:
            self._columns[text] = [token_chunks(tokenizer, text) for tokenizer in self._components.tokenizers]
        return self._columns[text]

    def _needed(self, text: str) -> int:
        return max(map(len, self._tokenized(text)))

    def _text(self, text: str, count: int) -> Conditioning:
        columns = [
            chunks + empty * (count - len(chunks))
            for chunks, empty in zip(self._tokenized(text), self._tokenized(""), strict=True)
        ]
        encoded = [self._chunk(chunks) for chunks in zip(*columns, strict=True)]
        states = torch.cat([one.tensors[HIDDEN_STATES] for one in encoded], dim=1)
        return Conditioning({**encoded[0].tensors, HIDDEN_STATES: states})

    def _chunk(self, chunks: tuple[Chunk, ...]) -> Conditioning:
        @torch.no_grad()
        def encode() -> Conditioning:
            rows = [chunk.rows(self._rows) for chunk in chunks]
            return self._family.encode_tokens(self._components, rows, self._clip_skip).take([0])

        if chunks not in self._encoded:
            self._encoded[chunks] = self._keep((chunks, self._clip_skip, self._rows), encode)
        return self._encoded[chunks]

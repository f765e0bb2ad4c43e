"""The starter's vocabulary: byte-pair encoding in CLIP's file format, learned from captions of the small world.

The layout is CLIP's: 256 byte symbols, the same with `</w>`, one entry per merge in order, start, end.
Every word of the captions and every identifier ends up as one token; any other text falls back to its bytes.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from transformers import CLIPTokenizer

from flows.starter.captions import caption
from flows.starter.world import CLASSES, COLOURS, FREE_IDENTIFIERS, PATTERNS, SCENES, USED_IDENTIFIERS, random_picture

MAX_TOKENS = 32
START = "<|startoftext|>"
END = "<|endoftext|>"

Pair = tuple[str, str]


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes, in CLIP's order (printable ones first, then 256 onwards)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def corpus(count: int = 4000, seed: int = 0) -> Counter[str]:
    """How often each word occurs in `count` captions; the world's own words and all identifiers at least once."""
    rng = np.random.default_rng(seed)
    words: Counter[str] = Counter(word for i in range(count) for word in caption(random_picture(seed, i), rng).split())
    for phrase in (*CLASSES, *COLOURS, *PATTERNS, *PATTERNS.values(), *SCENES, *USED_IDENTIFIERS, *FREE_IDENTIFIERS):
        # Each once more than the captions had: identifiers for jobs occur in none, and must be one token all the same.
        words.update(phrase.split())
    return words


def _merged(symbols: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    out: list[str] = []
    i = 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return tuple(out)


def learn_merges(words: Mapping[str, int]) -> list[Pair]:
    """Merges, most frequent pair first (ties by spelling), until every word is one token.

    Source: Sennrich et al. 2016, algorithm 1."""
    # CLIP marks the end of a word in its last symbol.
    spelt = {word: (*word[:-1], word[-1] + "</w>") for word in sorted(words)}
    merges: list[Pair] = []
    while any(len(symbols) > 1 for symbols in spelt.values()):
        counts: Counter[Pair] = Counter()
        for word, symbols in spelt.items():
            for pair in itertools.pairwise(symbols):
                counts[pair] += words[word]
        # Ties by spelling: the vocabulary must not depend on the order in which words were met.
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spelt = {word: _merged(symbols, best) for word, symbols in spelt.items()}
    return merges


def vocabulary(merges: Iterable[Pair]) -> dict[str, int]:
    """Token to id, in CLIP's order."""
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(pair) for pair in merges), START, END]
    return {token: i for i, token in enumerate(tokens)}


def write_tokenizer(folder: Path, *, max_tokens: int = MAX_TOKENS) -> CLIPTokenizer:
    """Write `vocab.json`, `merges.txt` and the tokenizer's settings to `folder`; returns the loaded tokenizer."""
    merges = learn_merges(corpus())
    vocab = vocabulary(merges)
    made = CLIPTokenizer(vocab=vocab, merges=merges, pad_token=END, model_max_length=max_tokens)  # pyright: ignore[reportArgumentType]
    folder.mkdir(parents=True, exist_ok=True)
    made.save_pretrained(str(folder))
    # transformers 5 saves only tokenizer.json; other tools read the two files of CLIP's own format.
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(str(folder))

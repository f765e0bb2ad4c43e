"""Weights files: what a safetensors file holds, found out without loading a tensor and without running a thing.

A file that any other reader could understand differently (duplicate names, bytes that no tensor owns, two tensors on
the same bytes) is refused.

Source of the format: https://github.com/huggingface/safetensors#format. The header limit of 100 MB is its own.
"""

from __future__ import annotations

import codecs
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from storage.blobs.headers import HeaderReader, TensorFacts, elements
from storage.blobs.other_formats import START_BYTES, refuse_other_format
from storage.errors import WeightsRefused

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
PIECE = 64 * 1024


@dataclass(frozen=True)
class WeightsFacts:
    """What a sound safetensors file holds. `data_begin` is where tensor bytes start; sizes are in bytes.

    `metadata` has the first MAX_KEPT_METADATA_BYTES of values, each whole; `metadata_keys` names every one there is.
    """

    tensors: Mapping[str, TensorFacts]
    metadata_keys: frozenset[str]
    metadata: Mapping[str, str]
    data_begin: int
    size: int

    @property
    def parameters(self) -> int:
        """Elements of all tensors together."""
        return sum(elements(tensor.shape) for tensor in self.tensors.values())


def check_weights(
    path: Path,
    *,
    names: re.Pattern[str] | None = None,
    dtypes: frozenset[str] | None = None,
    called: str | None = None,
) -> WeightsFacts:
    """What the safetensors file at `path` holds; with `names` and `dtypes`, only such tensors may be in it. Refusals
    name it as `called`, or by its own name.

    Raises WeightsRefused for a file that can be read, whatever is in it, and OSError for one that cannot.
    """
    facts, own = path.stat(), called or path.name
    if not stat.S_ISREG(facts.st_mode):
        raise WeightsRefused("not_a_file", f"{own} is not a plain file. Give a safetensors file.")
    with path.open("rb") as stream:
        weights = read_weights(own, stream, facts.st_size)
    for name, tensor in weights.tensors.items():
        if names is not None and not names.fullmatch(name):
            raise WeightsRefused(
                "name", f"{own} holds a tensor '{name[:80]}', which this part of the model family does not have."
            )
        if dtypes is not None and tensor.dtype not in dtypes:
            raise WeightsRefused(
                "dtype",
                f"{own}: tensor '{name[:80]}' is {tensor.dtype}; known here are {', '.join(sorted(dtypes))}.",
            )
    return weights


def check_start(name: str, start: bytes, size: int) -> int:
    """How many bytes the header of a file of `size` bytes has, from its first START_BYTES, or all that it has.

    Raises WeightsRefused when it is no safetensors file: a sender can be refused before the rest has come.
    """
    header_bytes = int.from_bytes(start[:LENGTH_BYTES], "little")
    if len(start) <= LENGTH_BYTES or start[LENGTH_BYTES] != ord("{"):
        refuse_other_format(name, start)
    if header_bytes > MAX_HEADER_BYTES:
        raise WeightsRefused(
            "header_size", f"{name} has a header of {header_bytes:,} bytes; the format allows {MAX_HEADER_BYTES:,}."
        )
    if header_bytes > size - LENGTH_BYTES:
        raise WeightsRefused(
            "truncated", f"{name} has {size:,} bytes, but its header alone has {header_bytes:,}. Get the file again."
        )
    return header_bytes


def read_weights(name: str, stream: BinaryIO, size: int) -> WeightsFacts:
    """What the safetensors file of `size` bytes in a stream that can seek holds. Raises WeightsRefused."""
    header_bytes = check_start(name, stream.read(START_BYTES), size)
    # The length was checked against the size: no more is read than the file has, whatever it claims.
    stream.seek(LENGTH_BYTES)
    header = stream.read(header_bytes)
    _refuse_what_is_not_utf8(name, header)
    reader = HeaderReader(name, header)
    tensors = reader.read()
    _refuse_gaps_and_overlaps(name, tensors, size - LENGTH_BYTES - header_bytes)
    metadata = MappingProxyType(reader.metadata)
    return WeightsFacts(
        MappingProxyType(tensors), frozenset(reader.metadata_keys), metadata, LENGTH_BYTES + header_bytes, size
    )


def _refuse_what_is_not_utf8(name: str, header: bytes) -> None:
    """The text is checked in pieces: decoding 100 MB at once could take four times as much."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for begin in range(0, len(header), PIECE):
            decoder.decode(header[begin : begin + PIECE])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise WeightsRefused("header_text", f"{name}: the header is not UTF-8 text ({error.reason}).") from error


def _refuse_gaps_and_overlaps(name: str, tensors: Mapping[str, TensorFacts], data_bytes: int) -> None:
    reached = 0
    # By the end, too: an empty tensor has no bytes, and stands before the one that begins where it does.
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != reached:
            what = "overlaps another" if tensor.begin < reached else f"leaves {tensor.begin - reached:,} bytes unowned"
            raise WeightsRefused("offsets", f"{name}: tensor '{key[:80]}' at byte {tensor.begin:,} {what}.")
        reached = tensor.end
    if reached != data_bytes:
        raise WeightsRefused(
            "offsets", f"{name}: the tensors own {reached:,} bytes but {data_bytes:,} follow the header."
        )

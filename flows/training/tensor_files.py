"""Safetensors files with one possible form: equal tensors and metadata produce equal bytes.

The safetensors library writes metadata in random order, so the header is written here: sorted keys, tensors by item
size (largest first, so that each stays aligned) and then by name. Format: 8 bytes of little-endian header length, the
JSON header padded with spaces to a multiple of 8, the tensors' bytes without gaps.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from storage.blobs.weights import LENGTH_BYTES, check_weights

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "I64": torch.int64,
    "F32": torch.float32,
    "I32": torch.int32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_CHUNK = 1 << 20


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    payload_keys: tuple[str, ...] = (),
) -> None:
    """Write `tensors` and `metadata` to `path`. Every key in `payload_keys` gets the data section's SHA-256."""
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, object] = {}
    offset = 0
    for name in order:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    facts = dict(metadata)
    if payload_keys:
        digest = hashlib.sha256()
        for name in order:
            digest.update(_bytes_of(tensors[name]))
        facts |= dict.fromkeys(payload_keys, digest.hexdigest())
    # safetensors/safetensors#584: its metadata is written in random order, so equal weights would have other bytes each
    # time.
    header = json.dumps({"__metadata__": facts, **entries}, sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)))
        file.write(header)
        for name in order:
            file.write(_bytes_of(tensors[name]))


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file whose structure is checked first. Raises WeightsRefused."""
    with path.open("rb") as file:
        header = file.read(check_weights(path).data_begin)[LENGTH_BYTES:]
    return dict(json.loads(header).get("__metadata__", {}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a checked file, in memory of its own. Raises WeightsRefused."""
    facts = check_weights(path, dtypes=frozenset(DTYPES))
    tensors: dict[str, Tensor] = {}
    with path.open("rb") as file:
        for name, tensor in facts.tensors.items():
            file.seek(facts.data_begin + tensor.begin)
            data = bytearray(file.read(tensor.end - tensor.begin))
            dtype = DTYPES[tensor.dtype]
            # `frombuffer` refuses an empty buffer. A bytearray, because tensors over bytes could not be written to.
            flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            tensors[name] = flat.reshape(tensor.shape)
    return tensors


def payload_sha256(path: Path) -> str:
    """SHA-256 (hex) of a safetensors file's data section: it does not change when metadata does."""
    begin = check_weights(path).data_begin
    with path.open("rb") as file:
        file.seek(begin)
        return _digest(file)


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a whole file."""
    with path.open("rb") as file:
        return _digest(file)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(lambda: file.read(_CHUNK)):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(read: Callable[[], bytes]) -> Iterator[bytes]:
    while chunk := read():
        yield chunk


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    # As bytes, since numpy has no bfloat16; flat, since torch views no tensor without dimensions as another type.
    return memoryview(flat.view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]

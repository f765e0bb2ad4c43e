"""Safetensors files with one possible form: equal tensors and metadata produce equal bytes.

The safetensors library writes metadata in random order, so the header is written here: sorted keys, tensors by item
size (largest first, so that each stays aligned) and then by name. Format: 8 bytes of little-endian header length, the
JSON header padded with spaces to a multiple of 8, the tensors' bytes without gaps.
"""

from __future__ import annotations

import errno
import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from flows.runs.liveness import advanced
from storage.blobs.weights import LENGTH_BYTES, check_weights
from storage.errors import WeightsRefused

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
_AT_ONCE = 32 << 20  # bytes between two signs of progress


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    payload_keys: tuple[str, ...] = (),
) -> str:
    """Write `tensors` and `metadata` to `path`; returns the SHA-256 (hex) of the whole file.

    Every key in `payload_keys` gets the data section's SHA-256. A copy of one tensor at most is in memory at a time.
    """
    return start_tensors(path, tensors, metadata, payload_keys).sha256()


def start_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    payload_keys: tuple[str, ...] = (),
) -> WrittenFile:
    """As `write_tensors`, but returns when the system has all bytes: the tensors may change before the hash is taken.

    A thread that took the hash beside the writing made that 1.6 to 1.9 times as long on two cores.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, object] = {}
    offset = 0
    for name in order:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        place = [offset, end]
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
        offset = end
    facts = dict(metadata)
    if payload_keys:
        digest = hashlib.sha256()
        for name in order:
            digest.update(bytes_of(tensors[name]))
        facts |= dict.fromkeys(payload_keys, digest.hexdigest())
    # safetensors/safetensors#584: its metadata is written in random order, so equal weights would have other bytes each
    # time.
    header = json.dumps({"__metadata__": facts, **entries}, sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    rows = _RowBuffer()
    with path.open("wb", buffering=0) as file:
        size = _write_all(file, memoryview(struct.pack("<Q", len(header)) + header))
        for name in order:
            size += _write_all(file, rows.bytes_of(tensors[name]))
    return WrittenFile(path, size)


def _write_all(file: FileIO, content: memoryview) -> int:
    """Append the content; returns its bytes. A call of the system writes 2 GiB at most."""
    rest = content
    while rest.nbytes:
        rest = rest[file.write(rest[:_AT_ONCE]) :]
        advanced()
    return content.nbytes


class _RowBuffer:
    """The bytes of tensors in their order, in memory that is used again for each that does not lie so itself."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def bytes_of(self, tensor: Tensor) -> memoryview:
        """Valid until the next call."""
        if tensor.device.type == "cpu" and tensor.is_contiguous():
            return bytes_of(tensor)
        size = tensor.numel() * tensor.element_size()
        if size > self._buffer.numel():
            # Fresh memory for each costs as much time as the copying: the system clears it page by page.
            self._buffer = torch.empty(size, dtype=torch.uint8)
        return bytes_of(self._buffer[:size].view(tensor.dtype).view(tensor.shape).copy_(tensor.detach()))


@dataclass(frozen=True)
class WrittenFile:
    """A file of which the system has all `size` bytes, though not yet the disk."""

    path: Path
    size: int

    def sha256(self) -> str:
        """The SHA-256 (hex) of the file as it is read back, which of large ones takes longer than the writing.

        Raises OSError, also when the file is shorter than what was written.
        """
        digest = file_sha256(self.path)
        if self.path.stat().st_size != self.size:
            raise OSError(errno.EIO, "the file is shorter than what was written", str(self.path))
        return digest


class TensorFile:
    """A safetensors file whose tensors are read one at a time, in the order of their bytes.

    `shapes` has each one's shape and type by name. Raises WeightsRefused unless the whole structure is sound: a file
    that was cut anywhere is not.
    """

    def __init__(self, path: Path) -> None:
        facts = check_weights(path, dtypes=frozenset(DTYPES))
        self._path, self._begin = path, facts.data_begin
        self._tensors = dict(sorted(facts.tensors.items(), key=lambda item: (item[1].begin, item[1].end)))
        self.metadata = read_metadata(path)
        self.shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            name: (tensor.shape, DTYPES[tensor.dtype]) for name, tensor in self._tensors.items()
        }

    def each(self, use: Callable[[str, Tensor], None]) -> None:
        """Call `use` with the name and the values of each tensor; they are its only until it returns."""
        with self._path.open("rb") as file:
            for name, (shape, dtype) in self.shapes.items():
                # Nothing here holds the tensor once it is used: the next one takes its place.
                use(name, self._read(file, name, shape, dtype))

    def _read(self, file: BufferedReader, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        place = self._tensors[name]
        values = torch.empty(shape, dtype=dtype)
        file.seek(self._begin + place.begin)
        if values.numel() and file.readinto(bytes_of(values)) != place.end - place.begin:
            raise WeightsRefused("truncated", f"{self._path.name} ends within tensor '{name[:80]}'. Get it again.")
        advanced()
        return values


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
        advanced()
    return digest.hexdigest()


def _chunks(read: Callable[[], bytes]) -> Iterator[bytes]:
    while chunk := read():
        yield chunk


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in its order; of one on the CPU that is contiguous its own memory."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    # As bytes, since numpy has no bfloat16; flat, since torch views no tensor without dimensions as another type.
    return memoryview(flat.view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]

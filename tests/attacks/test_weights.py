"""Weights files made by somebody who means harm: only WeightsRefused ever, and never more memory than the file."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from storage.blobs.weights import DTYPE_BITS, check_weights
from storage.errors import WeightsRefused

MIB = 1024 * 1024


class _Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('a pickle ran')",))


def with_header(header: bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """The bytes of a file with this header; `length` lies about it."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8), **more: object) -> dict[str, object]:
    """One tensor's part of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def as_file(entries: object, data: bytes = bytes(8)) -> bytes:
    """The bytes of a file whose header is this value as JSON."""
    return with_header(json.dumps(entries).encode(), data)


def zipped(name: str, content: bytes) -> bytes:
    """A zip archive with one file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


SOUND = save({"a": np.zeros(2, np.float32)})
PICKLE = pickle.dumps(_Evil())
TORCH_ZIP = zipped("archive/data.pkl", PICKLE)
TEXT = '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'

RENAMED: dict[str, bytes] = {
    "pickle protocol 5": PICKLE,
    "pickle protocol 4": pickle.dumps(_Evil(), protocol=4),
    "pickle protocol 2": pickle.dumps(_Evil(), protocol=2),
    "pickle protocol 0": pickle.dumps(_Evil(), protocol=0),
    "torch zip": TORCH_ZIP,
    "torch legacy .bin": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + PICKLE,
    "empty zip": b"PK\x05\x06" + bytes(18),
    "onnx": b"\x08\x07\x12\x07pytorch\x1a\x052.0.0" + bytes(40),
    "gguf": b"GGUF\x03\x00\x00\x00" + bytes(40),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(40),
    "numpy": b"\x93NUMPY\x01\x00v\x00" + bytes(40),
    "gzip": b"\x1f\x8b\x08" + bytes(40),
    "git lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64,
    "html page": b"<!doctype html><html><body>Not found</body></html>",
    "json alone": TEXT.encode(),
    "empty": b"",
    "eight bytes": bytes(8),
    "empty header": with_header(b""),
    "polyglot: zip after it": SOUND + TORCH_ZIP,
    "polyglot: pickle after it": SOUND + PICKLE,
    "polyglot: zip before it": TORCH_ZIP + SOUND,
    "polyglot: pickle in the padding": with_header(TEXT.encode() + PICKLE, bytes(8)),
    "polyglot: bytes no tensor owns": as_file({"a": entry(offsets=(60, 68))}, PICKLE[:60].ljust(60) + bytes(8)),
    "header beyond the file": with_header(TEXT.encode(), bytes(8), length=2**40),
    "header of 2^64 - 1": with_header(TEXT.encode(), bytes(8), length=2**64 - 1),
    "deep lists": with_header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "deep objects": with_header(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "deep metadata": as_file({"__metadata__": {"a": {"b": "c"}}, "a": entry()}),
    "number in metadata": as_file({"__metadata__": {"a": 1}, "a": entry()}),
    "header is a list": with_header(b'["a"]'),
    "text not UTF-8": with_header(b'{"\xff\xfe":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "lone surrogate": with_header(TEXT.replace('"a"', '"\\ud800"').encode(), bytes(8)),
    "a tensor twice": with_header((TEXT[:-1] + "," + TEXT[1:]).encode(), bytes(8)),
    "a shape twice": with_header(TEXT.replace('"shape":[2]', '"shape":[4],"shape":[2]').encode(), bytes(8)),
    "overlap": as_file({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "same bytes twice": as_file({"a": entry(), "b": entry()}),
    "gap": as_file({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)),
    "offsets backwards": as_file({"a": entry(offsets=(8, 0))}),
    "offsets negative": as_file({"a": entry(offsets=(-8, 0))}),
    "offsets beyond": as_file({"a": entry(offsets=(0, 2**63), shape=(2**61,))}),
    "offset as float": as_file({"a": entry(offsets=(0, 8.0))}),
    "shape that overflows 64 bits": as_file({"a": entry(shape=(2**62, 2**62, 2**62))}),
    "shape of nine": as_file({"a": entry(shape=(1,) * 8 + (2,))}),
    "unknown type": as_file({"a": entry("F31")}),
    "type as list": as_file({"a": entry(shape=(2,)) | {"dtype": ["F32"]}}),
    "half a byte": as_file({"a": entry("F4", (3,), (0, 2))}, bytes(2)),
    "unknown field": as_file({"a": entry(run="rm -rf /")}),
    "no shape": as_file({"a": {"dtype": "F32", "data_offsets": [0, 8]}}),
    "trailing comma": with_header(TEXT.replace("]}}", "]},}").encode(), bytes(8)),
    "comment": with_header(TEXT.replace('{"a"', '{/**/"a"').encode(), bytes(8)),
    "null byte in the padding": with_header(TEXT.encode() + b"\x00", bytes(8)),
    "30,000 tensors": as_file({str(i): entry(shape=(0,), offsets=(0, 0)) for i in range(30_000)}, b""),
    "a name of 10,000 characters": as_file({"a" * 10_000: entry()}),
}


@pytest.fixture
def without_pickle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any use of pickle's readers, in Python or in C, ends the test."""

    def entered(event: str, _arguments: object) -> None:
        if armed and event.startswith("pickle."):
            raise AssertionError(f"{event} was entered")

    armed = [True]
    sys.addaudithook(entered)
    monkeypatch.setitem(sys.modules, "pickle", None)
    yield
    armed.clear()


@pytest.mark.parametrize("what", RENAMED)
def test_weights_refuse_everything_but_safetensors(what: str, tmp_path: Path, without_pickle: None) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(RENAMED[what])

    with pytest.raises(WeightsRefused) as refused:
        check_weights(path)

    assert len(str(refused.value)) < 600
    assert refused.value.reason


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
SIZES = st.integers(0, 9) | st.integers(-(2**65), 2**65)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(sorted(DTYPE_BITS)) | st.text(max_size=4),
        "shape": st.lists(SIZES, max_size=3) | JSON_VALUES,
        "data_offsets": st.lists(SIZES, min_size=2, max_size=2) | JSON_VALUES,
    },
    optional={"more": JSON_VALUES},
)
HEADERS = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]) | st.text(max_size=4), ENTRIES | JSON_VALUES)


METADATA = st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=8), max_size=3)


def agree_with_the_reference(path: Path, content: bytes) -> bool:
    """Whether we accept the file; if so the reference reader must too, and must see the same tensors."""
    path.write_bytes(content)
    try:
        facts = check_weights(path)
    except WeightsRefused:
        return False
    try:
        reference = dict(deserialize(content))
    except SafetensorError as error:
        raise AssertionError(f"accepted what the reference refuses ({error}): {content!r}") from error
    assert {name: list(tensor.shape) for name, tensor in facts.tensors.items()} == {
        name: tensor["shape"] for name, tensor in reference.items()
    }
    return True


@given(entries=HEADERS, data=st.binary(max_size=16))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_header_of_any_values_is_read_as_the_reference_reads_it_or_refused(
    entries: dict[str, object], data: bytes, tmp_path: Path
) -> None:
    agree_with_the_reference(tmp_path / "mutated.safetensors", as_file(entries, data))


@given(metadata=METADATA, shape=st.lists(st.integers(0, 3), max_size=4))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_reference_writes_is_accepted(
    metadata: dict[str, str] | None, shape: list[int], tmp_path: Path
) -> None:
    content = save({"a": np.zeros(shape, np.float16), "ü": np.zeros(3, np.int64)}, metadata)

    assert agree_with_the_reference(tmp_path / "sound.safetensors", content)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The file with a lie about its header's length, some bytes changed, or a part cut, repeated or added."""
    match chance.randrange(4):
        case 0:
            lie = int.from_bytes(content[:8], "little") + chance.choice((-1, 1, 8, -8, 2**32, chance.randrange(2**40)))
            return struct.pack("<Q", max(0, lie)) + content[8:]
        case 1:
            begin, end = sorted(chance.choices(range(len(content) + 1), k=2))
            return content[:end] + chance.randbytes(chance.randrange(3)) + content[begin:]
        case _:
            edited = bytearray(content)
            for _ in range(chance.randint(1, 3)):
                edited[chance.randrange(8, len(edited))] = chance.choice(b'0123456789{}[]:,"\\ \x00\xffFIU')
            return bytes(edited)


def test_20_000_mutations_are_read_as_the_reference_reads_them_or_refused(tmp_path: Path) -> None:
    chance = random.Random(20_000)
    tensors = {"a": np.zeros((2, 3), np.float16), "b": np.zeros((0, 3), np.int64), "c": np.zeros(4, np.uint8)}
    sound = save(tensors, {"format": "pt", "k": '\\"'})

    accepted = sum(agree_with_the_reference(tmp_path / "mutated", mutated(sound, chance)) for _ in range(20_000))

    assert 100 < accepted < 15_000


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[' + b"1," * (8 * MIB),
        b'{"' + b"a" * (16 * MIB) + b'":{}}',
        b'{"__metadata__":{"a":"' + b"\\n" * (8 * MIB) + b'"}}',
        b'{"__metadata__":{' + b'"a":"",' * (2 * MIB),
        b"{" + b'"a":{},' * (2 * MIB),
        b"{" + b" " * (16 * MIB),
        '{"€":{'.encode() + "€".encode() * (5 * MIB),
    ],
    ids=["shape", "name", "metadata text", "metadata keys", "entries", "spaces", "wide text"],
)
def test_a_huge_header_takes_no_more_memory_than_the_file(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(with_header(header))
    tracemalloc.start()
    try:
        with pytest.raises(WeightsRefused):
            check_weights(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < path.stat().st_size + 16 * MIB

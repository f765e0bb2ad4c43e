"""Files that claim to be model weights: the hostile ones, each with the reason it is refused for, and honest ones."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from typing import Any

import numpy as np
from safetensors.numpy import save

RUNS_CODE = frozenset({"pickle", "torch_zip", "torch_legacy", "torch_tar"})
"""Reasons whose sentence says that the file can run code."""


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


def tarred(name: str, content: bytes) -> bytes:
    """A tar archive with one file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        facts = tarfile.TarInfo(name)
        facts.size = len(content)
        archive.addfile(facts, io.BytesIO(content))
    return stream.getvalue()


SOUND = save({"a": np.zeros(2, np.float32)})
PICKLE = pickle.dumps(_Evil())
TORCH_ZIP = zipped("archive/data.pkl", PICKLE)
TEXT = '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'

REJECT: dict[str, tuple[str, bytes]] = {
    "pickle protocol 5": ("pickle", PICKLE),
    "pickle protocol 4": ("pickle", pickle.dumps(_Evil(), protocol=4)),
    "pickle protocol 2": ("pickle", pickle.dumps(_Evil(), protocol=2)),
    "pickle protocol 0": ("pickle", pickle.dumps(_Evil(), protocol=0)),
    "torch zip": ("torch_zip", TORCH_ZIP),
    "torch legacy .bin": ("torch_legacy", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + PICKLE),
    "empty zip": ("zip", b"PK\x05\x06" + bytes(18)),
    "onnx": ("onnx", b"\x08\x07\x12\x07pytorch\x1a\x052.0.0" + bytes(40)),
    "gguf": ("gguf", b"GGUF\x03\x00\x00\x00" + bytes(40)),
    "hdf5": ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(40)),
    "numpy": ("numpy", b"\x93NUMPY\x01\x00v\x00" + bytes(40)),
    "gzip": ("compressed", b"\x1f\x8b\x08" + bytes(40)),
    "git lfs pointer": ("git_lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64),
    "html page": ("web_page", b"<!doctype html><html><body>Not found</body></html>"),
    "json alone": ("json", TEXT.encode()),
    "empty": ("empty", b""),
    "eight bytes": ("not_safetensors", bytes(8)),
    "empty header": ("not_safetensors", with_header(b"")),
    "polyglot: zip after it": ("offsets", SOUND + TORCH_ZIP),
    "polyglot: pickle after it": ("offsets", SOUND + PICKLE),
    "polyglot: zip before it": ("torch_zip", TORCH_ZIP + SOUND),
    "polyglot: pickle in the padding": ("header_text", with_header(TEXT.encode() + PICKLE, bytes(8))),
    "polyglot: bytes no tensor owns": (
        "offsets",
        as_file({"a": entry(offsets=(60, 68))}, PICKLE[:60].ljust(60) + bytes(8)),
    ),
    "header beyond the file": ("header_size", with_header(TEXT.encode(), bytes(8), length=2**40)),
    "header of 2^64 - 1": ("header_size", with_header(TEXT.encode(), bytes(8), length=2**64 - 1)),
    "deep lists": ("header_grammar", with_header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")),
    "deep objects": ("header_grammar", with_header(b'{"a":' * 50_000 + b"1" + b"}" * 50_000)),
    "deep metadata": ("header_grammar", as_file({"__metadata__": {"a": {"b": "c"}}, "a": entry()})),
    "number in metadata": ("header_grammar", as_file({"__metadata__": {"a": 1}, "a": entry()})),
    "header is a list": ("not_safetensors", with_header(b'["a"]')),
    "text not UTF-8": (
        "header_text",
        with_header(b'{"\xff\xfe":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    ),
    "lone surrogate": ("header_grammar", with_header(TEXT.replace('"a"', '"\\ud800"').encode(), bytes(8))),
    "a tensor twice": ("duplicate", with_header((TEXT[:-1] + "," + TEXT[1:]).encode(), bytes(8))),
    "a shape twice": (
        "header_grammar",
        with_header(TEXT.replace('"shape":[2]', '"shape":[4],"shape":[2]').encode(), bytes(8)),
    ),
    "overlap": ("offsets", as_file({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12))),
    "same bytes twice": ("offsets", as_file({"a": entry(), "b": entry()})),
    "gap": ("offsets", as_file({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20))),
    "offsets backwards": ("shape", as_file({"a": entry(offsets=(8, 0))})),
    "offsets negative": ("header_grammar", as_file({"a": entry(offsets=(-8, 0))})),
    "offsets beyond": ("header_grammar", as_file({"a": entry(offsets=(0, 2**63), shape=(2**61,))})),
    "offset as float": ("header_grammar", as_file({"a": entry(offsets=(0, 8.0))})),
    "shape that overflows 64 bits": ("shape", as_file({"a": entry(shape=(2**62, 2**62, 2**62))})),
    "shape of nine": ("header_limits", as_file({"a": entry(shape=(1,) * 8 + (2,))})),
    "unknown type": ("dtype", as_file({"a": entry("F31")})),
    "type as list": ("header_grammar", as_file({"a": entry(shape=(2,)) | {"dtype": ["F32"]}})),
    "half a byte": ("shape", as_file({"a": entry("F4", (3,), (0, 2))}, bytes(2))),
    "unknown field": ("header_limits", as_file({"a": entry(run="rm -rf /")})),
    "no shape": ("header_grammar", as_file({"a": {"dtype": "F32", "data_offsets": [0, 8]}})),
    "trailing comma": ("header_grammar", with_header(TEXT.replace("]}}", "]},}").encode(), bytes(8))),
    "comment": ("header_grammar", with_header(TEXT.replace('{"a"', '{/**/"a"').encode(), bytes(8))),
    "null byte in the padding": ("header_grammar", with_header(TEXT.encode() + b"\x00", bytes(8))),
    "60,000 tensors": (
        "header_limits",
        as_file({str(i): entry(shape=(0,), offsets=(0, 0)) for i in range(60_000)}, b""),
    ),
    "a name of 10,000 characters": ("header_limits", as_file({"a" * 10_000: entry()})),
    "pickle protocol 1": ("pickle", pickle.dumps(_Evil(), protocol=1)),
    "pickle protocol 3": ("pickle", pickle.dumps(_Evil(), protocol=3)),
    "pickled dict, protocol 0": ("pickle", pickle.dumps({"a": [1]}, protocol=0)),
    "pickled dict, protocol 1": ("pickle", pickle.dumps({"a": [1]}, protocol=1)),
    "pickled list, protocol 0": ("pickle", pickle.dumps(["a"], protocol=0)),
    "pickled ordered dict, protocol 0": ("pickle", pickle.dumps(OrderedDict(a=1), protocol=0)),
    "pickled ordered dict, protocol 1": ("pickle", pickle.dumps(OrderedDict(a=1), protocol=1)),
    "pickled instance of old": ("pickle", b"(i__main__\nThing\n" + bytes(40)),
    "torch zip of another name": ("torch_zip", zipped("sd-v1-5/data.pkl", PICKLE)),
    "torch tar": ("torch_tar", tarred("pickle", PICKLE)),
    "zip of something else": ("zip", zipped("model.safetensors", SOUND)),
    "npz": ("numpy", zipped("a.npy", b"\x93NUMPY")),
    "ggml": ("gguf", b"lmgg" + bytes(40)),
    "xz": ("compressed", lzma.compress(SOUND)),
    "gzipped safetensors": ("compressed", gzip.compress(SOUND)),
    "7z": ("compressed", b"7z\xbc\xaf\x27\x1c" + bytes(40)),
    "tflite": ("tflite", b"\x1c\x00\x00\x00TFL3" + bytes(40)),
    "error page in capitals": ("web_page", b"\n <!DOCTYPE HTML PUBLIC><HTML><TITLE>403</TITLE>"),
    "error as JSON": ("json", b'{"error": "Unauthorized", "message": "The creator requires you to be logged in"}'),
    "picture": ("image", b"\x89PNG\r\n\x1a\n" + bytes(40)),
    "nine bytes": ("not_safetensors", bytes(9)),
    "text": ("not_safetensors", b"Access denied. Please log in first, then download again."),
    "cut in the header": ("truncated", SOUND[:20]),
    "cut in the data": ("offsets", SOUND[:-1]),
    "one byte more": ("offsets", SOUND + b"\0"),
    "header one byte shorter": ("header_grammar", struct.pack("<Q", len(TEXT) - 1) + TEXT.encode() + bytes(8)),
}

ACCEPT: dict[str, bytes] = {
    "one tensor": SOUND,
    "every width of a float": save({t: np.zeros(3, t) for t in ("float16", "float32", "float64")}),
    "whole numbers and truths": save({t: np.zeros(3, t) for t in ("int64", "uint8", "bool")}),
    "a scalar and an empty tensor": save({"scalar": np.zeros((), np.float32), "none": np.zeros((0, 4), np.float32)}),
    "metadata": save({"a": np.zeros(1, np.float16)}, {"ss_tag_frequency": '{"a": {"mug": 3}}'}),
    "names in another script": save({"<猫-token>": np.zeros((1, 768), np.float32)}),
    "spaces after the header": with_header(TEXT.encode() + b" " * 7, bytes(8)),
    "50,000 tensors": as_file({str(i): entry(shape=(0,), offsets=(0, 0)) for i in range(50_000)}, b""),
    "four-bit numbers": as_file({"a": entry("F4", (4,), (0, 2))}, bytes(2)),
}

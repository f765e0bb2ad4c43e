"""Files that are not safetensors: what each looks like, why it is not taken, and what to do instead.

Nothing is opened, unpacked or decoded: the first bytes decide. A pickle is a program, so none is taken, whatever it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import NoReturn

from storage.errors import WeightsRefused

START_BYTES = 512
"""How much of a file's beginning shows what it is: a tar archive says so at byte 257."""

CONVERT_FOLDER = (
    "Convert it on a machine where running its code does no harm: load it there with "
    "DiffusionPipeline.from_pretrained(FOLDER) and write it with .save_pretrained(NEW_FOLDER, safe_serialization=True)."
)
CONVERT_FILE = (
    "Convert it on a machine where running its code does no harm: "
    "safetensors.torch.save_file(torch.load(OLD, weights_only=True), NEW)."
)
PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".joblib"})


@dataclass(frozen=True)
class OtherFormat:
    """A kind of file that is not taken. `reason` is the stable word that is counted."""

    reason: str
    looks: re.Pattern[bytes]
    what: str
    advice: str


def _format(reason: str, looks: bytes, what: str, advice: str) -> OtherFormat:
    return OtherFormat(reason, re.compile(looks, re.DOTALL), what, advice)


_UNPACK = "Unpack it and give the .safetensors file inside."
_AGAIN = "Open the address in a browser, see what it says, and get the file again."

# The first that matches counts: what says more stands before what says less, and weak marks (JSON, protobuf) last.
_FORMATS: Sequence[OtherFormat] = (
    _format("empty", rb"\Z", "is empty", "Get it again; the program that made it may still be writing."),
    _format(
        "torch_zip",
        rb"PK\x03\x04.{26}[^\x00]*?data\.pkl",
        "is a torch.save file: a zip archive with a pickle in it, which can run code",
        CONVERT_FILE,
    ),
    _format(
        "numpy",
        rb"PK\x03\x04.{26}[^/\x00]+\.npy",
        "is a NumPy .npz archive",
        "Write its arrays with safetensors.numpy.save_file(dict(numpy.load(OLD, allow_pickle=False)), NEW).",
    ),
    _format(
        "zip",
        rb"PK(\x03\x04|\x05\x06|\x07\x08)",
        "is a zip archive",
        f"{_UNPACK} If data.pkl is in it, torch.save wrote it. {CONVERT_FILE}",
    ),
    _format(
        "torch_legacy",
        # A pickle of torch's magic number 0x1950a86a20f9469cfc6c, with which torch.save began before it wrote zip
        # archives.
        rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.",
        "is an old torch.save file: pickles, which can run code",
        CONVERT_FILE,
    ),
    _format("pickle", rb"\x80[\x00-\x05]", "is a pickle, which can run code", CONVERT_FILE),
    # Protocols 0 and 1 have no mark of their own: a name to import, or the opening of a list, dict or tuple.
    _format(
        "pickle",
        rb"(\(*c[A-Za-z_][\w.]*\r?\n[A-Za-z_][\w.]*\r?\n|[(\]}][(dlt]?(p\d+\r?\n|[q.][\x00-\xff])|\(i[\w.]+\n)",
        "is a pickle of the oldest kind, which can run code",
        CONVERT_FILE,
    ),
    _format(
        "torch_tar",
        rb".{257}ustar",
        "is a tar archive, as the first versions of torch wrote them, with pickles in it that can run code",
        f"If it holds a .safetensors file, unpack that. {CONVERT_FILE}",
    ),
    _format(
        "gguf",
        # The older ones wrote their magic number in little-endian order, so its letters stand backwards.
        rb"GG(UF|ML|JT|LA)|[fl]mgg|tjgg",
        "is a GGUF file, quantised for llama.cpp and its kin",
        "Give the safetensors file that it was made from.",
    ),
    _format(
        "hdf5",
        rb"\x89HDF\r\n\x1a\n",
        "is an HDF5 file, as Keras writes them",
        "Read its weights with Keras and write them with safetensors.numpy.save_file.",
    ),
    _format(
        "numpy",
        rb"\x93NUMPY",
        "is a NumPy array, which may hold a pickle",
        "Write it with safetensors.numpy.save_file({'name': numpy.load(OLD, allow_pickle=False)}, NEW).",
    ),
    _format(
        "compressed",
        rb"\x1f\x8b|BZh[1-9]|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|Rar!",
        "is a compressed archive",
        _UNPACK,
    ),
    _format("git_lfs", rb"version https://git-lfs", "is a Git LFS pointer without the file", "Run: git lfs pull"),
    _format(
        "web_page",
        rb"(?i:\s*<(!doctype|html|head|body|\?xml))",
        "is a web page, probably an error or a login that was saved in the file's place",
        _AGAIN,
    ),
    _format(
        "json", rb"\s*[{\[][\s\"{\[\]}]", "is JSON text, perhaps an error that was saved in the file's place", _AGAIN
    ),
    _format("image", rb"\x89PNG|\xff\xd8\xff|RIFF.{4}WEBP|GIF8", "is a picture", "Give the weights themselves."),
    _format(
        "onnx",
        rb"\x08[\x01-\x20]",
        "is an ONNX or other protobuf file: a program and its weights in one",
        "Give the safetensors file that it was exported from.",
    ),
    _format("tflite", rb".{4}TFL3", "is a TensorFlow Lite file", "Give the safetensors file that it was made from."),
)


def refuse_other_format(name: str, start: bytes) -> NoReturn:
    """Raises WeightsRefused for a file whose first START_BYTES (or all it has) are `start`, saying what it is."""
    for known in _FORMATS:
        if known.looks.match(start):
            raise WeightsRefused(known.reason, f"{name} {known.what}; only safetensors files are taken. {known.advice}")
    raise WeightsRefused(
        "not_safetensors",
        f"{name} does not begin with a safetensors header, nor with anything else we know. Get or make it again; "
        f"PyTorch weights become safetensors with safetensors.torch.save_file(TENSORS, NEW).",
    )


def refuse_other_name(name: str) -> None:
    """Raises WeightsRefused for a file that says by its name that it is no safetensors, before a byte of it is sent."""
    suffix = PurePath(name).suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise WeightsRefused("pickle", f"{name} is a pickle by its name, which can run code. {CONVERT_FILE}")
    if suffix != ".safetensors":
        raise WeightsRefused("file_name", f"{name} does not end in .safetensors, and only such files are taken.")

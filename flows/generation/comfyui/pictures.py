"""Pictures to and from a ComfyUI: sources and masks up, results down, each checked."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib

import msgspec
from PIL import Image

from flows.generation.comfyui.http import ComfyHttp, NothingThere, decoded
from flows.generation.comfyui.limits import METADATA_BYTES
from flows.generation.comfyui.prompt_states import SavedFile
from storage.errors import BackendBroken

FOLDER = "darkroom"
"""The folder of uploads below ComfyUI's `input`."""
CHANNELS = 4
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,
)
"""What Pillow raises for bytes that are no picture."""


class PictureGone(BackendBroken):
    """ComfyUI has drawn a picture, and its file is not there any more."""

    code = "backend_picture_gone"


class _Uploaded(msgspec.Struct, frozen=True):
    name: str
    subfolder: str = ""


def upload(http: ComfyHttp, picture: Image.Image) -> str:
    """Send a picture as PNG under a name made of its bytes, so that a repeat changes nothing.

    Returns what ComfyUI calls it. Raises BackendRefused if it is too large, BackendUnavailable, BackendBroken.
    """
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    content = stream.getvalue()
    name = f"{hashlib.sha256(content).hexdigest()}.png"
    fields = {"type": "input", "subfolder": FOLDER}
    uploaded = decoded(http.upload("upload/image", name, content, fields), _Uploaded, "upload/image")
    # It adds a number where a file of that name has other bytes, and nothing else.
    if not re.fullmatch(rf"{name[:-4]}( \(\d+\))?\.png", uploaded.name):
        raise BackendBroken("ComfyUI stored an upload under another name. Update it, or check its plug-ins.")
    return f"{uploaded.subfolder}/{uploaded.name}" if uploaded.subfolder else uploaded.name


def download(http: ComfyHttp, files: tuple[SavedFile, ...], size: tuple[int, int]) -> Image.Image:
    """The one RGB picture that a graph made.

    Raises BackendBroken if there is none, or more, or it is no PNG of `size` (width and height in pixels), PictureGone
    if its file was deleted, BackendUnavailable.
    """
    if len(files) != 1:
        raise BackendBroken(f"ComfyUI drew {len(files)} pictures instead of one. Check its plug-ins, then try again.")
    [file] = files
    query = {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}
    limit = CHANNELS * size[0] * size[1] + METADATA_BYTES
    try:
        content = http.read_bytes("view", limit, **query)
    except NothingThere as error:
        raise PictureGone("ComfyUI has lost a picture that it drew. Keep others off its folder temp.") from error
    return picture_of(content, size)


def picture_of(content: bytes, size: tuple[int, int]) -> Image.Image:
    """A PNG as RGB. Raises BackendBroken if it is none, is damaged, or has another size."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            found = image.size
            # Pixels that a damaged file still has are decoded without a word; this looks at its checksums.
            image.verify()
        # Another size is not even decoded: the header says how much memory that would take.
        picture = _decoded(content) if found == size else None
    except UNREADABLE as error:
        raise BackendBroken(
            "ComfyUI returned a picture that cannot be read. Try again; its disk may be full."
        ) from error
    if picture is None:
        raise BackendBroken(
            f"ComfyUI returned a picture of {found[0]} x {found[1]} pixels instead of {size[0]} x {size[1]}. "
            "Check its plug-ins, and the setting of this model's pixels per latent."
        )
    return picture


def _decoded(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        return image.convert("RGB")

"""Files that only their owner reads."""

from __future__ import annotations

import os
from pathlib import Path


def write_secret(file: Path, text: str) -> None:
    """Write a line of text to a file of mode 0600 at once: nobody else ever reads it, and it is never half there."""
    write_private(file, f"{text}\n".encode())


def write_private(file: Path, content: bytes) -> None:
    """The same for bytes as they are."""
    beside = file.with_name(file.name + ".new")
    # A writer that died may have left it, and O_EXCL would refuse it.
    beside.unlink(missing_ok=True)
    # The mode comes with the creation: a chmod afterwards would leave a moment in which others can open the file.
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)
    beside.replace(file)

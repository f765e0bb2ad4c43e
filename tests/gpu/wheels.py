"""Puts into `.gpu/` the wheels that `make test-gpu` needs beside torch, on a machine without our virtual environment.

    python -m tests.gpu.wheels [--python 3.12] [--into .gpu]

At the versions of constraints.txt, for Linux on x86-64; torch, numpy and what every Python with torch has stay out.
bitsandbytes has a library for each release of CUDA and is larger than all others together: its two optimizers are left
out by name where it is not installed. Ends with 1 when the folder is larger than 64 MiB.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (
    *("diffusers", "transformers", "tokenizers", "huggingface_hub", "httpx2", "httpcore2", "truststore"),
    *("safetensors", "peft", "accelerate", "pytorch-lightning", "lightning-utilities", "torchmetrics"),
    *("pytorch-optimizer", "msgspec", "blake3", "pillow", "pydantic", "pydantic-core", "pydantic-settings"),
    *("annotated-types", "typing-inspection", "python-dotenv"),
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
MOST_BYTES = 64 * 2**20


def pinned() -> dict[str, str]:
    """The version of each package in constraints.txt, by its normalised name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = (re.match(r"([\w.-]+)==([^\s;]+)", line) for line in lines)
    return {normalised(match[1]): match[2] for match in found if match}


def normalised(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    """Download and weigh."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--into", type=Path, default=ROOT / ".gpu")
    asked = parser.parse_args()
    versions = pinned()
    wanted = [f"{name}=={versions[normalised(name)]}" for name in PACKAGES]
    for old in asked.into.glob("*.whl"):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    platforms = [option for name in PLATFORMS for option in ("--platform", name)]
    where = ["--python-version", asked.python, "--implementation", "cp", "--dest", str(asked.into)]
    subprocess.run([*pip, *where, *platforms, *wanted], check=True)
    size = sum(file.stat().st_size for file in asked.into.glob("*.whl"))
    print(f"{len(wanted)} wheels, {size / 2**20:.1f} MiB in {asked.into}")
    return 0 if size <= MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())

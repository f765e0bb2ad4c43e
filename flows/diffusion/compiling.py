"""torch.compile for the steps of a training: faster kernels, which round otherwise than those they replace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import nn

from flows.diffusion.families.protocol import Components
from flows.jobs.failures import says_out_of_memory
from storage.errors import CompilerMissing

_CC = ("clang", "gcc")
_CXX = ("g++", "clang++", "c++")


def compiled_unet(components: Components) -> Components:
    """The same components with a UNet that is compiled when it is first called, once for each shape of its inputs.

    The weights are the same tensors, so that what trains, is drawn with and exported is one model. Raises
    CompilerMissing where this machine has nothing to compile with.
    """
    check_compiler(components.device)
    module: nn.Module = torch.compile(components.unet)  # pyright: ignore[reportAssignmentType]
    return components.with_modules({"unet": module})


@contextmanager
def named_compile_errors() -> Generator[None]:
    """Raises CompilerMissing in place of an error of torch's compiler."""
    try:
        yield
    except RuntimeError as error:
        # Told apart by where they come from: torch has no public name for them.
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")) or says_out_of_memory(error):
            raise
        text = str(error).strip().splitlines()[0][:300]
        raise CompilerMissing(f"The UNet could not be compiled: {text}. Leave it out.") from error


def check_compiler(device: torch.device) -> None:
    """Raises CompilerMissing naming what `compile` needs on this device."""
    if device.type == "cuda":
        if find_spec("triton") is None:
            raise CompilerMissing("compile needs Triton on a GPU: pip install triton, or leave compile out.")
        # Triton builds what launches its kernels with it.
        _check_program("a C compiler on a GPU", asked=os.environ.get("CC"), usual=_CC, package="gcc")
        return
    _check_program("a C++ compiler on a CPU", asked=os.environ.get("CXX"), usual=_CXX, package="g++")


def _check_program(what: str, *, asked: str | None, usual: tuple[str, ...], package: str) -> None:
    """Raises CompilerMissing unless the program that is asked for, or one of the usual ones, is there."""
    if not any(shutil.which(name) for name in ([asked] if asked else usual)):
        raise CompilerMissing(
            f"compile needs {what}, and {asked or ', '.join(usual)} is not there: install {package}, or "
            "leave compile out."
        )

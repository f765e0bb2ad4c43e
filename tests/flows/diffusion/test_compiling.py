"""`compile`: the same model by other kernels, and a named error where there is nothing to compile with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from flows.diffusion import compiling
from flows.diffusion.compiling import check_compiler, named_compile_errors
from flows.diffusion.families.protocol import Components
from flows.starter.networks import write_tiny_model
from storage.errors import CompilerMissing
from tests.flows.training.tiny import KeptCheckpoints, recipe, train

CPU, CARD = torch.device("cpu"), torch.device("cuda")
WANTED = {"steps": 2, "sample_every": 9, "token_learning_rate": 0.0, "prior_loss_weight": 0.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder, seed=0)
    return folder


def trained(base: Path, work: Path, **changes: Any) -> dict[str, torch.Tensor]:
    kept = KeptCheckpoints(work / "kept")
    components: Components = train(base, work, recipe(**{**WANTED, **changes}), kept)[0]
    assert kept.kept == [1, 2]
    return dict(components.unet.state_dict())


def differ_by(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_what_is_compiled_is_what_trains(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, used = list[torch.nn.Module](), list[Any]()
    true_compile = torch.compile

    def backend(graph: Any, inputs: Any) -> Any:
        def run(*arguments: Any) -> Any:
            used.append(graph)
            return graph.forward(*arguments)

        return run

    def eager(module: torch.nn.Module) -> Any:
        compiled.append(module)
        return true_compile(module, backend=backend)

    monkeypatch.setattr(torch, "compile", eager)
    plain = trained(base, tmp_path / "plain")
    assert compiled == used == []
    assert differ_by(plain, trained(base, tmp_path / "compiled", compile=True)) < 1e-4
    assert len(compiled) == 1
    assert len(used) >= 2, "each of both steps predicts with what was compiled"


@pytest.mark.soak
# Inductor imports what torch itself deprecates.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_a_cpu_compiles_with_inductor(base: Path, tmp_path: Path) -> None:
    plain = trained(base, tmp_path / "plain")
    assert differ_by(plain, trained(base, tmp_path / "compiled", compile=True)) < 1e-2


def test_without_a_compiler_the_training_says_what_is_missing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompilerMissing, match=r"needs a C\+\+ compiler on a CPU, and g\+\+, clang\+\+, c\+\+ is not"):
        trained(base, tmp_path, compile=True)
    monkeypatch.setenv("CXX", "icpx")
    with pytest.raises(CompilerMissing, match="and icpx is not there"):
        check_compiler(CPU)
    found: list[object | None] = [object()]
    monkeypatch.setattr(compiling, "find_spec", lambda name: found[0])
    with pytest.raises(CompilerMissing, match="needs a C compiler on a GPU, and clang, gcc is not there: install gcc"):
        check_compiler(CARD)
    monkeypatch.setenv("CC", "icx")
    with pytest.raises(CompilerMissing, match="and icx is not there"):
        check_compiler(CARD)
    found[0] = None
    with pytest.raises(CompilerMissing, match="pip install triton"):
        check_compiler(CARD)


def test_an_error_of_the_compiler_is_named_and_no_other_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failed(RuntimeError):
        pass

    Failed.__module__ = "torch._inductor.exc"
    with pytest.raises(CompilerMissing, match=r"compiled: C\+\+ compile error\. Leave it"), named_compile_errors():
        raise Failed("C++ compile error\nmore of it")
    with pytest.raises(Failed, match="out of memory"), named_compile_errors():
        raise Failed("CUDA out of memory")
    with pytest.raises(RuntimeError, match="shapes"), named_compile_errors():
        raise RuntimeError("shapes differ")

"""Looking at a flow loads none of the libraries that running it needs; what starts flows warm finds their steps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from importlib import import_module

import pytest

from deployments.local.fingerprint import PREFECT_FILE, stanzas
from flows.runs.lazy_imports import STEPS, LazyModule, imported_when_used, modules_of_flow
from tests.architecture.source_tree import ROOT, module_name, source_files

MODELS = ["torch", "diffusers", "transformers", "pytorch_lightning"]
HEAVY = [*MODELS, "mlflow"]
SHOW = """
import sys
from importlib import import_module
wanted, heavy = (names.split(",") for names in sys.argv[1:])
for name in wanted:
    import_module(name)
print(*(name for name in heavy if name in sys.modules))
"""
STANZAS = stanzas(PREFECT_FILE)


def flow_modules(pool: str = "") -> list[str]:
    """The modules that prefect.yaml names, of one work pool or of all."""
    wanted = [stanza for stanza in STANZAS if not pool or stanza["work_pool"]["name"] == pool]
    return sorted({str(stanza["entrypoint"]).rpartition(".")[0] for stanza in wanted})


def loaded_with(modules: Iterable[str], heavy: Iterable[str]) -> list[str]:
    """Which of the heavy libraries a fresh process has once it has imported these modules."""
    command = [sys.executable, "-c", SHOW, ",".join(modules), ",".join(heavy)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout.split()


def test_a_process_that_deploys_loads_no_heavy_library() -> None:
    assert loaded_with(["deployments.cli", "deployments.local.deploy", *flow_modules()], HEAVY) == []


def test_a_process_that_runs_a_light_flow_loads_no_model_library() -> None:
    modules = [module for flow in flow_modules("light") for module in modules_of_flow(flow)]
    assert loaded_with(modules, MODELS) == []


def test_the_steps_of_a_training_flow_stand_where_a_warm_start_looks_for_them() -> None:
    for flow in flow_modules("training"):
        steps = [value for value in vars(import_module(flow)).values() if isinstance(value, LazyModule)]
        assert [step._name for step in steps] == modules_of_flow(flow)[1:] == [flow + STEPS]


def test_every_module_of_steps_is_a_flows() -> None:
    found = {module_name(file) for file in source_files() if file.stem.endswith(STEPS)}
    assert found == {flow + STEPS for flow in flow_modules() if len(modules_of_flow(flow)) == 2}


def test_a_lazy_module_has_what_the_module_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    lazy = imported_when_used("colorsys")
    assert "colorsys" not in sys.modules

    assert lazy.rgb_to_hsv is import_module("colorsys").rgb_to_hsv
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = lazy.no_such_thing

"""All that only a GPU shows of training, as one script: `make test-gpu`.

    python -m tests.gpu [--device cuda] [--only TEXT ...] [--seconds 480] [--jobs 3]

Says of each check whether it held, and what it measured; ends with 1 if one did not, and with 0 and the reason where
there is no GPU. `--device cpu` runs the same checks on small models on the CPU. It needs torch 2.11 or newer, this
tree, and the packages that `python -m tests.gpu.wheels` puts into `.gpu`: where that folder is and one of them is
missing, they are installed into a temporary folder first. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

WHEELS = Path(".gpu")
NEEDED = ("torch", "diffusers", "transformers", "peft", "pytorch_lightning", "pytorch_optimizer", "msgspec")


def main() -> int:
    """Run the checks and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", nargs="+", default=[""], help="checks whose name holds one of these")
    parser.add_argument("--seconds", type=float, default=480, help="none begins after so many")
    parser.add_argument("--jobs", type=int, default=3, help="checks side by side")
    asked = parser.parse_args()
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing and WHEELS.is_dir() and "GPU_SITE" not in os.environ:
        return run_with_wheels()
    if missing:
        print(f"skipped: {', '.join(missing)} missing; `make gpu-wheels` elsewhere puts them into {WHEELS}/")
        return 0 if asked.device == "cuda" and "torch" in missing else 1
    if asked.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif (why := no_gpu()) is not None:
        print(f"skipped: {why}")
        return 0
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return run_checks(asked)


def run_with_wheels() -> int:
    """This script again with the wheels in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="gpu-site-") as site:
        files = [str(file) for file in sorted(WHEELS.glob("*.whl"))]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        subprocess.run([*pip, "--target", site, *files], check=True)
        paths = [site, os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {**os.environ, "GPU_SITE": site, "PYTHONPATH": os.pathsep.join(paths)}
        return subprocess.run([sys.executable, "-m", "tests.gpu", *sys.argv[1:]], env=variables, check=False).returncode


def no_gpu() -> str | None:
    """Why nothing can be tried here; None where it can. Asked of another process, so that this one touches no GPU."""
    question = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False)
    name = answer.stdout.strip()
    print(f"GPU: {name or 'none'}")
    return None if name else "this machine has no GPU that torch can use"


def run_checks(asked: argparse.Namespace) -> int:
    """The checks, some side by side, their lines in their order."""
    # Here and not above: what is said before needs no torch.
    checks, trainings = import_module("tests.gpu.checks"), import_module("tests.gpu.trainings")
    named = import_module("tests.gpu.all_checks").every_check()
    wanted = [(name, check) for name, check in named if any(text in name for text in asked.only)]
    if unknown := [text for text in asked.only if not any(text in name for name, _ in wanted)]:
        print(f"no check is called so: {', '.join(unknown)}")
        return 1
    trainings.start_warm()
    began, failed = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder, ThreadPoolExecutor(asked.jobs) as pool:
        place = trainings.in_process(checks.make_place, asked.device, Path(folder))
        running: list[tuple[str, Future[tuple[str, str]]]] = [
            (name, pool.submit(outcome, checks, check, place, began + asked.seconds)) for name, check in wanted
        ]
        for name, future in running:
            said, what = future.result()
            failed += said == "FAILED"
            print(f"{said:8} {name}: {what}", flush=True)
    print(f"{len(running) - failed} of {len(running)} in {time.monotonic() - began:.0f} s on {asked.device}")
    return 1 if failed else 0


def outcome(checks: ModuleType, check: object, place: object, end: float) -> tuple[str, str]:
    """How one check ended, and what it says."""
    began = time.monotonic()
    if began > end:
        return "FAILED", "there was no time left to try it"
    try:
        assert callable(check)
        what = str(check(place))
    except checks.Skipped as reason:
        return "skipped", str(reason)
    except Exception as error:  # noqa: BLE001 - the others are still to be tried
        return "FAILED", f"{type(error).__name__}: {error}"
    return "ok", f"{what} ({time.monotonic() - began:.1f} s)"


if __name__ == "__main__":
    sys.exit(main())

"""@flow pretrain-starter: make the starter model, its vocabulary and its judge from nothing but this package.

One command: `python -m flows.starter.pretrain --out FOLDER --state FOLDER`. The state folder keeps a
checkpoint of each stage; the same command goes on where an earlier one stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import flow

from flows.runs.lazy_imports import imported_when_used
from flows.starter.schedules import DIFFUSION_SCHEDULE, SEED

if TYPE_CHECKING:
    from flows.starter import pretrain_steps
else:
    pretrain_steps = imported_when_used("flows.starter.pretrain_steps")

LOGGER = logging.getLogger(__name__)


@flow(name="pretrain-starter", validate_parameters=True)
def pretrain_starter(
    out: str, state: str, seed: int = SEED, steps: int = DIFFUSION_SCHEDULE.steps, threads: int = 2
) -> dict[str, float]:
    """Make the starter model, going on from the checkpoints that are there.

    Args:
        out: The folder of the finished model.
        state: The folder of its checkpoints, outside the work tree.
        seed: What every random number follows from.
        steps: Optimizer steps of the noise prediction.
        threads: Torch threads of the process; another number makes other bytes.
    """
    pretrain_steps.use_threads(threads)
    diffusion = replace(DIFFUSION_SCHEDULE, steps=steps)
    plan = replace(pretrain_steps.STARTER_PLAN, seed=seed, diffusion=diffusion)
    measured = pretrain_steps.make_starter(Path(out), Path(state), plan)
    LOGGER.info("starter written to %s: %s", out, json.dumps(measured))
    return measured


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description="Make the starter model; goes on where it stopped.")
    parser.add_argument("--out", required=True, help="folder of the finished model")
    parser.add_argument("--state", required=True, help="folder of checkpoints, outside the work tree")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, default=DIFFUSION_SCHEDULE.steps, help="steps of noise prediction")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    pretrain_starter(asked.out, asked.state, asked.seed, asked.steps, asked.threads)


if __name__ == "__main__":
    main()

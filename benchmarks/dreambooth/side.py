"""One side of the benchmark in a fresh process: what it measures, as JSON.

python -m benchmarks.dreambooth.side NAME ASKED, with the fields of `Asked` as JSON; of `base` the folder alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.dreambooth import ours, peers
from benchmarks.dreambooth.stages import Asked
from benchmarks.training import LORA_RANK
from tests.flows.training.real_shapes import SD15, write_base

ADAPTER: dict[str, Any] = {"lora_rank": LORA_RANK, "lora_alpha": float(LORA_RANK)}
SIDES: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "full": lambda asked: ours.run(asked, "full"),
    "full-diffusers": lambda asked: peers.example(asked, "full", fused=True),
    "full-diffusers-default": lambda asked: peers.example(asked, "full", fused=False),
    "full-bare": lambda asked: peers.bare(asked, "full"),
    "lora": lambda asked: ours.run(asked, "lora", **ADAPTER),
    "lora-split": lambda asked: ours.run(asked, "lora", split_backward=True, **ADAPTER),
    "lora-diffusers": lambda asked: peers.example(asked, "lora", fused=True),
    "lora-diffusers-default": lambda asked: peers.example(asked, "lora", fused=False),
    "lora-bare": lambda asked: peers.bare(asked, "lora"),
}


def main() -> None:
    """Measure, or write the base of Stable Diffusion 1.5's shape."""
    name, asked = sys.argv[1:]
    if name == "base":
        write_base(Path(asked), SD15)
        return
    print(json.dumps(SIDES[name](Asked(**json.loads(asked)))))


if __name__ == "__main__":
    main()

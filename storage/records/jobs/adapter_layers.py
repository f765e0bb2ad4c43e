"""Which layers of a model carry an adapter, by their names: what trains them and what estimates them ask here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from storage.records.jobs.choices import LoraTargets

_ATTENTION = r"to_q|to_k|to_v|to_out\.0|[qkv]_proj|out_proj"
_FEED_FORWARD = r"ff\.net\.0\.proj|ff\.net\.2|mlp\.fc[12]"
TARGETS: Mapping[str, re.Pattern[str]] = {
    LoraTargets.ATTENTION: re.compile(rf".*\.(?:{_ATTENTION})"),
    LoraTargets.FEED_FORWARD: re.compile(rf".*\.(?:{_ATTENTION}|{_FEED_FORWARD})"),
    LoraTargets.TRANSFORMER: re.compile(rf".*\.(?:{_ATTENTION}|{_FEED_FORWARD}|proj_in|proj_out)"),
    LoraTargets.ALL_LINEAR: re.compile(r".*"),
}
# What kohya's LoCon trains: the convolutions of residual blocks, and of what changes the size between levels.
_CONVOLUTIONS = re.compile(r".*\.(?:resnets\.\d+\.(?:conv1|conv2|conv_shortcut)|(?:down|up)samplers\.\d+\.conv)")


def is_target(layer: str, kernel: tuple[int, ...], targets: str, convolutions: bool) -> bool:
    """Whether a layer gets an adapter. `kernel` is (height, width) of a convolution's, empty for a linear layer."""
    if kernel:
        # The projections around a Stable Diffusion 1 transformer are convolutions of one pixel.
        plain = kernel == (1, 1) and layer.endswith((".proj_in", ".proj_out"))
        if not plain:
            return convolutions and _CONVOLUTIONS.fullmatch(layer) is not None
    return TARGETS[targets].fullmatch(layer) is not None

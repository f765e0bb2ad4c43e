"""What the backward pass of a UNet keeps of its forward pass, in bytes, from the UNet's config.

Counted by layers as diffusers builds UNet2DConditionModel (0.42): per position of the feature map a residual block
keeps three times its input's channels and three times its output's (norm, activation, convolution, twice), a
transformer block 28 times its width (two attentions without their matrices, one gated feed-forward part). Held against
what autograd keeps in tests/flows/training/estimates/test_kept_activations.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from storage.records.jobs.costs.optimizer_states import FLOAT

HALF = 2


@dataclass(frozen=True)
class Widths:
    """Bytes that blocks keep for each channel and position, in one precision.

    resnet: of inputs and of outputs, each. transformer: of one of its blocks; around: of what stands around them.
    """

    resnet: int
    transformer: int
    around: int
    plain: int


WHOLE = Widths(3 * FLOAT, 28 * FLOAT, 3 * FLOAT, FLOAT)
# Autocast on a GPU computes norms in float32 and keeps their inputs and outputs so; what linear layers and convolutions
# read is in 16 bits: of three tensors around a norm one, of a transformer block's 28 vectors all but three.
MIXED = Widths(2 * FLOAT + HALF, 3 * FLOAT + 25 * HALF, FLOAT + 2 * HALF, HALF)


@dataclass(frozen=True)
class UnetShape:
    """What of a UNet's config counts here. Lists have one entry a level, from the finest one."""

    channels: tuple[int, ...]
    resnets: tuple[int, ...]
    transformers: tuple[int, ...]
    attends: tuple[bool, ...]

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> UnetShape:
        """Read unet/config.json; what it leaves out is diffusers' default."""
        channels = tuple(cast(Sequence[int], config.get("block_out_channels", (320, 640, 1280, 1280))))
        count = len(channels)
        kinds = cast(Sequence[str], config.get("down_block_types", ("CrossAttn",) * (count - 1) + ("Down",)))
        return cls(
            channels,
            _each(config.get("layers_per_block", 2), count),
            _each(config.get("transformer_layers_per_block", 1), count),
            tuple("CrossAttn" in kind for kind in kinds),
        )


@dataclass(frozen=True)
class Block:
    """One residual block, one transformer with `depth` blocks, or something else that keeps `plain` channels.

    `positions` is a share of the latent's; `stage` begins the names of its weights.
    """

    stage: str
    inputs: int
    outputs: int
    depth: int
    positions: float
    plain: int = 0

    def kept(self, widths: Widths) -> float:
        """Bytes that it keeps for each position of the latent."""
        if self.depth:
            return self.positions * self.outputs * (widths.around + widths.transformer * self.depth)
        return self.positions * (widths.resnet * (self.inputs + self.outputs) + widths.plain * self.plain)

    def kept_when_checkpointed(self, widths: Widths) -> float:
        """The same where only the block's input is kept: of a transformer that of each of its blocks."""
        if self.depth:
            return self.positions * self.outputs * (widths.around + widths.plain * self.depth)
        return self.positions * widths.plain * (self.inputs + self.plain)

    def computed_again(self, widths: Widths) -> float:
        """Bytes that the backward pass makes again at a time where the block is checkpointed."""
        return self.positions * self.outputs * widths.transformer if self.depth else self.kept(widths)


def blocks_of(unet: UnetShape) -> Iterator[Block]:
    """Every block in the order of the forward pass."""
    skips, inputs, positions = [unet.channels[0]], unet.channels[0], 1.0
    last = len(unet.channels) - 1
    for level, outputs in enumerate(unet.channels):
        for _ in range(unet.resnets[level]):
            yield from _pair(unet, f"down_blocks.{level}.", level, inputs, outputs, positions)
            inputs = outputs
            skips.append(outputs)
        if level < last:
            positions /= 4
            skips.append(outputs)
    yield Block("mid_block.", inputs, inputs, 0, positions)
    yield Block("mid_block.", inputs, inputs, unet.transformers[last], positions)
    yield Block("mid_block.", inputs, inputs, 0, positions)
    for level in range(last, -1, -1):
        outputs, stage = unet.channels[level], f"up_blocks.{last - level}."
        for _ in range(unet.resnets[level] + 1):
            yield from _pair(unet, stage, level, inputs + skips.pop(), outputs, positions)
            inputs = outputs
        if level:
            positions *= 4
            yield Block(stage, 0, 0, 0, positions, plain=inputs)  # what the convolution of the larger map reads
    yield Block("conv_", 0, 0, 0, 1.0, plain=3 * unet.channels[0])  # the last norm, activation and convolution


def kept_bytes(unet: UnetShape, *, checkpointed: bool, mixed: bool) -> float:
    """Bytes for each position of the latent, at the peak of one pass. mixed: in 16 bits where autocast allows it."""
    blocks, widths = list(blocks_of(unet)), MIXED if mixed else WHOLE
    if not checkpointed:
        return sum(block.kept(widths) for block in blocks)
    again = max(block.computed_again(widths) for block in blocks)
    return sum(block.kept_when_checkpointed(widths) for block in blocks) + again


def kept_by_stage(unet: UnetShape, *, checkpointed: bool, mixed: bool) -> dict[str, float]:
    """The same before the backward pass begins, by stage in the order of the forward pass."""
    widths = MIXED if mixed else WHOLE
    found: dict[str, float] = {}
    for block in blocks_of(unet):
        kept = block.kept_when_checkpointed(widths) if checkpointed else block.kept(widths)
        found[block.stage] = found.get(block.stage, 0.0) + kept
    return found


def drawn_bytes(unet: UnetShape) -> float:
    """Bytes for each position of a latent that is denoised in float32: the connections from the way down to the way up,
    and the largest block. Nothing is kept for a backward pass."""
    last = len(unet.channels) - 1
    skips = FLOAT * sum(
        width * (unet.resnets[level] + 1 + (level < last)) / 4**level for level, width in enumerate(unet.channels)
    )
    return skips + max(block.computed_again(WHOLE) for block in blocks_of(unet))


def _pair(unet: UnetShape, stage: str, level: int, inputs: int, outputs: int, positions: float) -> Iterator[Block]:
    yield Block(stage, inputs, outputs, 0, positions)
    if unet.attends[level]:
        yield Block(stage, outputs, outputs, unet.transformers[level], positions)


def _each(value: Any, count: int) -> tuple[int, ...]:
    # A list of lists says what the way down has; the ways are mirrors of each other.
    return (value,) * count if isinstance(value, int) else tuple(int(one) for one in cast(Sequence[Any], value))

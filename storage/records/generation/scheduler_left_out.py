"""What others draw with and is not here, with why: it is unknown by name, never replaced by something near."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class LeftOut(NamedTuple):
    """Why something does not draw here, and the display name of what is nearest to it, if anything is."""

    reason: str
    nearest: str = ""


_FLOW = LeftOut("it is for models that predict a flow")
_TOKENS = LeftOut("it is for models of discrete tokens")
_VIDEO = LeftOut("it is for models of video")
_OTHER_SCALE = LeftOut("it is for models that were trained at continuous noise levels of their own")
_OTHER_MODELS = LeftOut("it is for one model and its own kind of noise")
_MANY_STEPS = "its step is that of {}; its own is only that it draws many steps at once"

LEFT_OUT_CLASSES: Mapping[str, LeftOut] = {
    **dict.fromkeys(
        (
            "FlowMapEulerDiscreteScheduler",
            "FlowMatchEulerDiscreteScheduler",
            "FlowMatchHeunDiscreteScheduler",
            "FlowMatchLCMScheduler",
            "PiflowScheduler",
            "SCMScheduler",
        ),
        _FLOW,
    ),
    **dict.fromkeys(
        (
            "AmusedScheduler",
            "BlockRefinementScheduler",
            "DiscreteDDIMScheduler",
            "EntropyBoundScheduler",
            "VQDiffusionScheduler",
        ),
        _TOKENS,
    ),
    **dict.fromkeys(
        (
            "CogVideoXDDIMScheduler",
            "CogVideoXDPMScheduler",
            "HeliosDMDScheduler",
            "HeliosScheduler",
            "LTXEulerAncestralRFScheduler",
            "MiniMaxH3Scheduler",
        ),
        _VIDEO,
    ),
    **dict.fromkeys(
        (
            "CMStochasticIterativeScheduler",
            "CosineDPMSolverMultistepScheduler",
            "EDMDPMSolverMultistepScheduler",
            "EDMEulerScheduler",
            "IPNDMScheduler",
            "KarrasVeScheduler",
            "ScoreSdeVeScheduler",
        ),
        _OTHER_SCALE,
    ),
    **dict.fromkeys(("DDPMWuerstchenScheduler", "RFD4ProteinaScheduler", "UnCLIPScheduler"), _OTHER_MODELS),
    **dict.fromkeys(
        ("DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"), LeftOut("it turns pictures into noise")
    ),
    "DDIMParallelScheduler": LeftOut(_MANY_STEPS.format("DDIM"), "DDIM"),
    "DDPMParallelScheduler": LeftOut(_MANY_STEPS.format("DDPM"), "DDPM"),
    "RePaintScheduler": LeftOut("it draws inside masks only, back and forth in time"),
}
"""Classes of diffusers 0.42 that do not draw with a UNet like these, or draw the same."""

LEFT_OUT_NAMES: Mapping[str, LeftOut] = {
    "DPM fast": LeftOut("diffusers has only deprecated code of its kind", "DPM++ 2S"),
    "DPM adaptive": LeftOut("it chooses its steps by the error of a whole batch, not of a picture", "DPM++ 2S"),
    "Restart": LeftOut("diffusers has none", "Heun Karras"),
    "HeunPP2": LeftOut("diffusers has none", "Heun"),
    "IPNDM": LeftOut("diffusers' class is for models at noise levels of their own", "PLMS"),
    "IPNDM_V": LeftOut("diffusers has none", "PLMS"),
    "undefined": LeftOut("it stands for no choice; leave the scheduler out"),
}
"""Names that A1111, ComfyUI or Civitai's clients offer and that nothing here draws."""

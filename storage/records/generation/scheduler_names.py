"""Names that people use for schedulers, and the one settings that each of them means.

Found are: our own names; diffusers' classes; A1111's samplers, with the spacing in the name as before its version 1.9
("DPM++ 2M Karras") and with a schedule type beside it; the values of `Scheduler` and `SdCppSampleMethod` in
@civitai/client, and Civitai's display names; ComfyUI's sampler_name with its scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from storage.errors import InvalidRequest
from storage.records.generation.scheduler_left_out import LEFT_OUT_CLASSES, LEFT_OUT_NAMES
from storage.records.generation.scheduler_limits import check_scheduler
from storage.records.generation.scheduler_table import SCHEDULERS
from storage.records.generation.schedulers import (
    SCHEDULERS_PAGE,
    Levels,
    SchedulerKind,
    SchedulerSettings,
    Spacing,
)

AUTOMATIC = "automatic"
LONGEST = 80
"""Characters of a name; a longer one is unknown without being looked for."""

TITLES: Mapping[Spacing, str] = {
    Spacing.NORMAL: "",
    Spacing.KARRAS: "Karras",
    Spacing.EXPONENTIAL: "Exponential",
    Spacing.BETA: "Beta",
    # What A1111 and ComfyUI call simple: equal where the steps divide T, at most one timestep apart elsewhere.
    Spacing.TRAILING: "Simple",
}
"""What a spacing adds to a name."""


def _key(text: str) -> str:
    """A name without what people write in different ways: case, spaces, signs, `++` or `pp`."""
    return "".join(letter for letter in text.casefold().replace("++", "pp") if letter.isalnum())


def _names(kind: SchedulerKind) -> tuple[str, ...]:
    return (kind.name, kind.title, *kind.names, kind.comfy)


def _by_name() -> dict[str, SchedulerKind]:
    found = {_key(name): kind for kind in SCHEDULERS.values() for name in _names(kind) if name}
    for kind in SCHEDULERS.values():
        # Several have one class: its bare name means the first, with the class's own defaults.
        for name in (kind.diffusers, kind.diffusers.removesuffix("Scheduler")):
            if name:
                found.setdefault(_key(name), kind)
    return found


_KINDS = _by_name()
_SPACINGS: Mapping[str, Spacing] = {
    **{_key(spacing): spacing for spacing in Spacing},
    "uniform": Spacing.NORMAL,
    "discrete": Spacing.NORMAL,
    "simple": Spacing.TRAILING,
}
# Others' names of even steps in time, and of which schedulers they are what `normal` means.
_FROM_OFFSET = {"ddimuniform": (Levels.MODEL,), "ddim": (Levels.MODEL,), "leading": (Levels.MODEL,)}
# At most one timestep apart from trailing.
_FROM_END = {"sgmuniform": (Levels.LAST_LEFT_OUT, Levels.DISTILLED)}
_WORDS = (*_SPACINGS, *_FROM_END)
_LEFT_OUT = {
    _key(name): left_out
    for whole, left_out in {**LEFT_OUT_CLASSES, **LEFT_OUT_NAMES}.items()
    for name in (whole, whole.removesuffix("Scheduler"))
}


def find_scheduler(text: str, spacing: str = "", eta: float | None = None) -> SchedulerSettings:
    """The settings that a name means, with what is asked for beside it. Case, spaces and signs do not matter.

    `spacing` may be A1111's schedule type or ComfyUI's scheduler; `Automatic` means what A1111 takes for the sampler.
    Raises InvalidRequest with the field `scheduler` for an unknown name, with the nearest ones; with `spacing` or `eta`
    for what the scheduler does not take or what contradicts its name.
    """
    kind, named = _kind_and_spacing(text)
    settings = SchedulerSettings(
        name=kind.name,
        spacing=_spacing(kind, text, named, spacing).value,
        eta=kind.default_eta if eta is None else eta,
    )
    check_scheduler(settings)
    return settings


def _kind_and_spacing(text: str) -> tuple[SchedulerKind, Spacing | None]:
    key = _key(text) if len(text) <= LONGEST else ""
    if key in _KINDS:
        return _KINDS[key], None
    for word in _WORDS:
        kind = _KINDS.get(key.removesuffix(word))
        if kind is not None and key.endswith(word):
            return kind, _meant(kind, word)
    raise InvalidRequest({"scheduler": _unknown(text, key)})


def _meant(kind: SchedulerKind, word: str) -> Spacing | None:
    if kind.levels in (_FROM_OFFSET | _FROM_END).get(word, ()):
        return Spacing.NORMAL
    return Spacing.TRAILING if word in _FROM_END else _SPACINGS.get(word)


def _spacing(kind: SchedulerKind, text: str, named: Spacing | None, asked: str) -> Spacing:
    key = _key(asked) if len(asked) <= LONGEST else asked
    if not key:
        return named or Spacing.NORMAL
    if key == AUTOMATIC:
        return named or kind.automatic
    found = _meant(kind, key)
    if found is None:
        known = ", ".join(kind.spacings)
        raise InvalidRequest({"spacing": f"'{asked[:LONGEST]}' is unknown for {kind.title}; it takes {known}."})
    if named is not None and found is not named:
        raise InvalidRequest({"spacing": f"'{text}' asks for {named}, and '{asked}' beside it for {found}; name one."})
    return found


def _unknown(text: str, key: str) -> str:
    for word in ("", *_WORDS):
        left_out = _LEFT_OUT.get(key.removesuffix(word)) if key.endswith(word) else None
        if left_out is not None:
            break
    else:
        return f"'{text[:LONGEST]}' is unknown. Nearest: {', '.join(_nearest(key))}. All are in {SCHEDULERS_PAGE}."
    near = f" Nearest: {left_out.nearest}." if left_out.nearest else ""
    return f"'{text}' does not draw here: {left_out.reason}.{near} All are in {SCHEDULERS_PAGE}."


def _nearest(key: str) -> list[str]:
    shown = {_key(name): name for name in display_names()}
    near = get_close_matches(key, shown, n=3, cutoff=0.4)
    return [shown[name] for name in near] or [SCHEDULERS["ddim"].title, SCHEDULERS["euler_ancestral"].title]


def display_names() -> list[str]:
    """Every scheduler with every spacing that it takes, as `display_name` writes it."""
    return [
        display_name(SchedulerSettings(name=kind.name, spacing=spacing.value))
        for kind in SCHEDULERS.values()
        for spacing in kind.spacings
    ]


def display_name(settings: SchedulerSettings) -> str:
    """A1111's name with the spacing in it, which old and new readers of pictures' metadata take: `DPM++ 2M Karras`.

    Eta is no part of a name. Raises InvalidRequest for settings that no scheduler takes.
    """
    kind = check_scheduler(settings)
    return f"{kind.title} {TITLES[Spacing(settings.spacing)]}".strip()


def a1111_names(settings: SchedulerSettings) -> tuple[str, str]:
    """The sampler and the schedule type, apart, as A1111 has written them into pictures since version 1.9.

    Raises InvalidRequest for settings that no scheduler takes.
    """
    kind = check_scheduler(settings)
    # Its samplers in timesteps, DDIM and PLMS, have no type of their own.
    plain = "Automatic" if kind.levels in (Levels.MODEL, Levels.DISTILLED) else "Uniform"
    return kind.title, TITLES[Spacing(settings.spacing)] or plain


def comfy_names(settings: SchedulerSettings) -> tuple[str, str] | None:
    """ComfyUI's sampler_name and scheduler of the same method and noise levels; None where it has none.

    The numbers of new noise are its own, so that only schedulers without noise draw the same picture there.
    Raises InvalidRequest for settings that no scheduler takes.
    """
    kind = check_scheduler(settings)
    if not kind.comfy or settings.eta > 0:
        return None
    spacing = Spacing(settings.spacing)
    if spacing is Spacing.NORMAL:
        return kind.comfy, _COMFY_NORMAL[kind.levels]
    # Its `beta` places timesteps, not noise levels.
    return None if spacing is Spacing.BETA else (kind.comfy, TITLES[spacing].lower())


_COMFY_NORMAL: Mapping[Levels, str] = {
    Levels.MODEL: "ddim_uniform",
    Levels.BOTH_ENDS: "normal",
    # From T down in even steps, 0 left out.
    Levels.LAST_LEFT_OUT: "sgm_uniform",
    # Of 50 levels the nearest below: at most a fiftieth of the way apart.
    Levels.DISTILLED: "sgm_uniform",
}

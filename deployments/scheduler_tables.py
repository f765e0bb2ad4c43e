"""The tables of docs/reference/schedulers.md: what draws, by every name, and what does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deployments.reference_tables import table
from storage.records.generation.scheduler_left_out import LEFT_OUT_CLASSES, LEFT_OUT_NAMES, LeftOut
from storage.records.generation.scheduler_names import TITLES
from storage.records.generation.scheduler_table import SCHEDULERS
from storage.records.generation.schedulers import Levels, SchedulerKind, Spacing

_LEVELS: Mapping[Levels, str] = {
    Levels.MODEL: "as the model's own schedule says",
    Levels.BOTH_ENDS: "from the last timestep to 0",
    Levels.LAST_LEFT_OUT: "from the last timestep to one step before 0",
    Levels.DISTILLED: "of the 50 that the model was distilled at",
}
_SPACINGS: Mapping[Spacing, str] = {
    Spacing.NORMAL: "Even steps in time; the table above says from where to where.",
    Spacing.KARRAS: "Karras et al. 2022, equation 5: closer together where there is little noise.",
    Spacing.EXPONENTIAL: "Even steps in the logarithm of the noise level.",
    Spacing.BETA: "Lee et al. 2024, placing noise levels as diffusers and A1111 do; ComfyUI places timesteps.",
    Spacing.TRAILING: "Even steps in time that begin at the last timestep: for distilled models, and such as were "
    "trained down to pure noise.",
}


def schedulers() -> str:
    """Every scheduler: what it is, what it costs, and which levels are its `normal`."""
    return table(
        ("name", "A1111 and Civitai", "what it is", "UNet calls", "new noise", "levels of `normal`"),
        (
            (
                f"`{kind.name}`",
                kind.title,
                kind.about,
                _calls(kind),
                "with eta" if kind.takes_eta else "yes" if kind.draws_noise else "",
                _LEVELS[kind.levels],
            )
            for kind in SCHEDULERS.values()
        ),
    )


def _calls(kind: SchedulerKind) -> str:
    if kind.name == "pndm":
        return "1 a step, and 1"
    return f"{kind.calls} a step" + (f", at most {kind.max_steps} steps" if kind.max_steps else "")


def names() -> str:
    """What finds each scheduler beside its own name and A1111's, and where it differs from what bears the name."""
    return table(
        ("name", "diffusers", "ComfyUI", "other names", "differences"),
        (
            (
                f"`{kind.name}`",
                _diffusers(kind),
                f"`{kind.comfy}`" if kind.comfy else "",
                ", ".join(f"`{name}`" for name in kind.names),
                kind.note,
            )
            for kind in SCHEDULERS.values()
        ),
    )


def _diffusers(kind: SchedulerKind) -> str:
    options = ", ".join(f"{name}={value!r}" for name, value in kind.options.items())
    return f"`{kind.diffusers}`" + (f" with `{options}`" if options else "") if kind.diffusers else ""


def spacings() -> str:
    """Every spacing, its name at the end of A1111's names, and the schedulers that do not take it."""
    return table(("spacing", "in a name", "what it is", "not for"), _spacings())


def _spacings() -> Iterator[tuple[str, str, str, str]]:
    for spacing, about in _SPACINGS.items():
        without = ", ".join(kind.title for kind in SCHEDULERS.values() if spacing not in kind.spacings)
        yield f"`{spacing}`", TITLES[spacing], about, without


def left_out() -> str:
    """What others have and nothing here draws, with why."""
    grouped: dict[LeftOut, list[str]] = {}
    for name, why in {**LEFT_OUT_NAMES, **LEFT_OUT_CLASSES}.items():
        grouped.setdefault(why, []).append(f"`{name}`")
    rows = ((", ".join(found), why.reason, why.nearest) for why, found in grouped.items())
    return table(("name", "why", "nearest"), rows)

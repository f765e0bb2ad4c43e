"""What a scheduler may be asked for, and how many UNet calls it makes: the price is computed from them."""

from __future__ import annotations

from storage.errors import InvalidRequest
from storage.records.generation.scheduler_table import SCHEDULERS
from storage.records.generation.schedulers import SCHEDULERS_PAGE, SchedulerKind, SchedulerSettings


def check_scheduler(settings: SchedulerSettings, steps: int | None = None) -> SchedulerKind:
    """The scheduler of these settings. Raises InvalidRequest for a name, spacing, eta or steps that it does not take.

    The field of a name is `scheduler`, the others are `spacing`, `eta` and `steps`.
    """
    kind = SCHEDULERS.get(settings.name)
    if kind is None:
        raise InvalidRequest({"scheduler": f"'{settings.name[:80]}' is unknown; all are in {SCHEDULERS_PAGE}."})
    problems = {
        **_of_spacing(kind, settings.spacing),
        **_of_eta(kind, settings.eta),
        **_of_steps(kind, steps),
    }
    if problems:
        raise InvalidRequest(problems)
    return kind


def _of_spacing(kind: SchedulerKind, spacing: str) -> dict[str, str]:
    if spacing in kind.spacings:
        return {}
    return {"spacing": f"{kind.title} does not take '{spacing[:80]}'; it takes {', '.join(kind.spacings)}."}


def _of_eta(kind: SchedulerKind, eta: float) -> dict[str, str]:
    # Written so that a number that is none (NaN) is refused, too.
    if eta == 0.0 or (kind.takes_eta and 0.0 <= eta <= 1.0):
        return {}
    if kind.takes_eta:
        return {"eta": f"{eta:g} is not between 0 and 1."}
    takers = ", ".join(one.title for one in SCHEDULERS.values() if one.takes_eta)
    return {"eta": f"{kind.title} takes none; leave it out, or ask for one of: {takers}."}


def _of_steps(kind: SchedulerKind, steps: int | None) -> dict[str, str]:
    if steps is None:
        return {}
    if steps < kind.min_steps:
        return {"steps": f"{steps} is less than {kind.min_steps}, which {kind.title} needs at least."}
    if kind.max_steps and steps > kind.max_steps:
        return {"steps": f"{steps} is more than {kind.max_steps}, which {kind.title} takes at most."}
    return {}


def first_step(steps: int, strength: float = 1.0) -> int:
    """The step at which a drawing begins that replaces `strength` (0 to 1) of its source; 0: all steps are drawn.

    As diffusers' pipelines count. Raises InvalidRequest if no step is left.
    """
    drawn = min(int(steps * strength), steps)
    if drawn < 1:
        needed = (100 // steps + 1) / 100
        raise InvalidRequest(
            {"strength": f"{strength:g} of {steps} steps leaves none to draw; ask for {needed:g} or more."}
        )
    return steps - drawn


def unet_calls(settings: SchedulerSettings, steps: int, strength: float = 1.0) -> int:
    """UNet calls a picture, guidance not counted, of the last `strength` of the steps.

    Raises InvalidRequest for what the scheduler does not take, or if no step is left.
    """
    kind = check_scheduler(settings, steps)
    drawn = steps - first_step(steps, strength)
    if kind.calls > 1:
        # The last step goes to no noise at all, where there is no second point to ask for.
        return kind.calls * (drawn - 1) + 1
    # PLMS has one prediction at its first step where it needs two: it asks again at the second.
    return drawn + 1 if kind.name == "pndm" and drawn > 1 else drawn

"""How a training learns: its fields in a request, and what of them fits together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from storage.errors import InvalidRequest
from storage.records.jobs.choices import LearningRateSchedule, TrainingOptimizer

WeightDecay = Annotated[
    float,
    Meta(
        ge=0.0,
        le=1.0,
        description="Weight decay, decoupled: each step takes this times the learning rate off a weight.",
        examples=[0.01],
        extra={"unit": "share of a weight"},
    ),
]
MaxGradientNorm = Annotated[
    float,
    Meta(
        ge=0.0,
        le=1e6,
        description="Norm to which all gradients together are clipped; 0 clips none.",
        examples=[1.0],
        extra={"unit": "L2 norm of all gradients"},
    ),
]
Schedule = Annotated[LearningRateSchedule, Meta(description="How the learning rates change over the steps.")]
WarmUpSteps = Annotated[
    int,
    Meta(
        ge=0,
        le=20_000,
        description="Steps in which the learning rates rise to their full value.",
        examples=[10],
        extra={"unit": "optimizer steps"},
    ),
]
ScheduleCycles = Annotated[
    int,
    Meta(
        ge=1, le=100, description="Falls of the schedule cosine_with_restarts.", examples=[3], extra={"unit": "cycles"}
    ),
]
SchedulePower = Annotated[
    float,
    Meta(
        gt=0.0, le=10.0, description="Exponent of the schedule polynomial.", examples=[2.0], extra={"unit": "exponent"}
    ),
]
ScheduleRules = Annotated[
    str,
    Meta(
        max_length=500,
        description="Of the schedule piecewise_constant: FACTOR:STEP pairs, each up to its step, and a last factor.",
        examples=["1:100,0.1:200,0.01"],
        extra={"default": "none"},
    ),
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16"],
    Meta(description="Number format of forward and backward pass; trained weights stay fp32. fp16 scales the loss."),
]
GradientCheckpointing = Annotated[
    bool, Meta(description="Compute activations again in the backward pass: much less memory, a third more time.")
]
Compile = Annotated[
    bool,
    Meta(
        description="Compile the UNet's steps with torch.compile: faster after minutes of compiling, and outside the "
        "promise that equal recipes make equal bytes. Needs Triton and a C compiler on a GPU, a C++ "
        "compiler on a CPU."
    ),
]
EmaDecay = Annotated[
    float,
    Meta(
        ge=0.0,
        le=0.99999,
        description="Share that a moving average of the weights keeps each step, such as 0.999; 0 averages none.",
        examples=[0.999],
        extra={"unit": "share of the average"},
    ),
]

KeptCheckpoints = Annotated[
    int,
    Meta(
        ge=1,
        le=20,
        description="Checkpoints that a running job keeps, the newest ones; each has gigabytes.",
        examples=[2],
        extra={"unit": "checkpoints"},
    ),
]
KeepEvery = Annotated[
    int,
    Meta(
        ge=0,
        le=20_000,
        description="Steps between checkpoints that stay after the job, so that one can be chosen; 0 keeps none.",
        examples=[200],
        extra={"unit": "optimizer steps"},
    ),
]
KeepEveryEpochs = Annotated[
    int,
    Meta(
        ge=1,
        le=1_000,
        description="In place of keepEvery: epochs (passes over the photos, each as often as it repeats) between "
        "checkpoints that stay, in whole steps.",
        examples=[10],
        extra={"unit": "epochs", "default": "none"},
    ),
]
MAX_STAYING = 20
"""Checkpoints of one job that stay: each has gigabytes, and is evaluated when it is chosen."""

RATES = {
    "learning_rate": "learningRate",
    "text_encoder_learning_rate": "textEncoderLearningRate",
    "token_learning_rate": "tokenLearningRate",
}
POLYNOMIAL_END = 1e-7
"""The learning rate at which the schedule `polynomial` ends: diffusers' own."""


def own_rates(request: Any, base: Any, values: Mapping[str, Any], conventional: float) -> dict[str, float]:
    """The learning rates that `values` has to change: Prodigy's convention is 1.0, since it finds the rate itself.

    `request` and `base` have the fields of TrainingRequest and of a base's own TrainingDefaults, whose rates are meant
    for its own method and optimizer. `conventional` is the rate of the method with any optimizer but Prodigy. What is
    asked for stays, and what does not train does not train.
    """
    prodigy = TrainingOptimizer.PRODIGY
    if (values["optimizer"], values["method"]) == (base.optimizer, base.method):
        return {}
    if values["optimizer"] != prodigy and base.optimizer != prodigy:
        return {}
    usual = 1.0 if values["optimizer"] == prodigy else conventional
    rate = usual if request.learning_rate is None else float(request.learning_rate)
    return {name: rate for name in RATES if getattr(request, name) is None and values[name] > 0}


def kept_by_epochs(epochs: int, values: Mapping[str, Any], samples: int, asked: int | None) -> dict[str, int]:
    """`keep_every` and `checkpoint_every` that let a checkpoint stay every so many epochs, rounded up to whole steps.

    `values` are a recipe's, by field; `samples` make an epoch; `asked` is checkpointEvery as the request has it. Where
    it has none, checkpoints are written about as often as `values` say. Raises InvalidRequest.
    """
    a_step, steps = values["batch_size"] * values["accumulation"], values["steps"]
    every = -(-epochs * samples // a_step)
    their_steps = f"{epochs} epochs of {samples} samples are {every} steps"
    if every > steps:
        raise InvalidRequest({"keepEveryEpochs": f"{their_steps}, and the job has {steps}: nothing would stay"})
    if steps // every > MAX_STAYING:
        least = steps // (MAX_STAYING + 1) * a_step // samples + 1
        reason = f"must be {least} or more: {MAX_STAYING} checkpoints of a job stay at most, and {their_steps}"
        raise InvalidRequest({"keepEveryEpochs": reason})
    divisors = [one for one in range(1, every + 1) if every % one == 0]
    if asked is not None and asked not in divisors:
        fitting = max((one for one in divisors if one < asked), default=1)
        reason = f"must divide the steps of keepEveryEpochs ({their_steps}), such as {fitting}; or leave it out"
        raise InvalidRequest({"checkpointEvery": reason})
    # The nearest by ratio: of 101 steps, which have no other divisors, 101 and not 1.
    usual = values["checkpoint_every"]
    written = asked or min(divisors, key=lambda one: max(one / usual, usual / one))
    return {"keep_every": every, "checkpoint_every": written}


def refuse_what_cannot_be_learned(values: Mapping[str, Any]) -> None:
    """Refuse optimizers, rates, schedules and averages that do not go together. `values` are a recipe's, by field.

    Raises InvalidRequest naming every field that does not fit.
    """
    wrong: dict[str, str] = {}
    optimizer, schedule = values["optimizer"], values["learning_rate_schedule"]
    if optimizer == TrainingOptimizer.PRODIGY:
        for name in RATES:
            if values[name] not in (0.0, values["learning_rate"]):
                rate = f"{values['learning_rate']:g}"
                wrong[RATES[name]] = f"must be 0 or learningRate ({rate}): Prodigy finds one rate for all that trains"
    if optimizer == TrainingOptimizer.ADAMW_SCHEDULE_FREE and values["ema_decay"] > 0:
        wrong["emaDecay"] = f"must be 0 with the optimizer {optimizer}, which averages its steps itself"
    if schedule == LearningRateSchedule.POLYNOMIAL and values["learning_rate"] <= POLYNOMIAL_END:
        wrong["learningRate"] = f"must be above {POLYNOMIAL_END:g}, where the schedule polynomial ends"
    if schedule == LearningRateSchedule.PIECEWISE_CONSTANT:
        try:
            piecewise_rules(values["schedule_rules"])
        except ValueError as error:
            wrong["scheduleRules"] = str(error)
    elif values["schedule_rules"]:
        wrong["scheduleRules"] = f"are of the schedule piecewise_constant; {schedule} takes none"
    if values["keep_every"] and (reason := _odd_keeping(values)):
        wrong["keepEvery"] = reason
    if wrong:
        raise InvalidRequest(wrong)


def _odd_keeping(values: Mapping[str, Any]) -> str:
    every, written = values["keep_every"], values["checkpoint_every"]
    if every % written:
        return f"must be a multiple of checkpointEvery ({written}): only what is written can stay"
    if values["steps"] // every > MAX_STAYING:
        return f"must be {-(-values['steps'] // MAX_STAYING)} or more: {MAX_STAYING} checkpoints of a job stay at most"
    return ""


def piecewise_rules(text: str) -> tuple[tuple[tuple[int, float], ...], float]:
    """The steps (ascending) before which each factor holds, and the factor from the last one on.

    The form is diffusers': "1:100,0.1:200,0.01". Raises ValueError with what is expected.
    """
    *pairs, last = text.split(",")
    try:
        rules = [(int(step), float(factor)) for factor, step in (pair.split(":") for pair in pairs)]
        rest = float(last)
    except ValueError as error:
        raise ValueError("must be FACTOR:STEP pairs and a last factor, for example: 1:100,0.1:200,0.01") from error
    steps = [step for step, _ in rules]
    if steps != sorted(set(steps)) or not all(0 <= factor <= 1e6 for factor in (*(one for _, one in rules), rest)):
        raise ValueError("must have ascending steps and no factor below 0, for example: 1:100,0.1:200,0.01")
    return tuple(rules), rest

"""What a job can be asked for by name. These mappings are the only ones: the rest follows them.

To add a model family, a training method, an optimizer or a generation backend, add a line here and its file:

    ModelFamily        flows/diffusion/families/NAME.py       with FAMILY
    TrainingMethod     flows/training/methods/NAME.py         with METHOD
    TrainingOptimizer  flows/training/optimizers/NAME.py      with OPTIMIZER
    GenerationBackend  flows/generation/backends/NAME.py      with BACKEND
    TrackerName        flows/training/tracking/NAME.py        with TRACKER

`protocol.py` beside them says what each has to offer. From the line come the fields of requests with their description,
the options of the command line, the form in Prefect and the page of what there is to choose from. What is stored keeps
a name as a text: it may be one that another release knows.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from storage.errors import InvalidRequest
from storage.records.catalog.vocabulary import ModelType


class Choice(StrEnum):
    """A name, and what it stands for in a sentence."""

    _value_: str
    about: str

    def __new__(cls, name: str, about: str) -> Self:
        """A choice of this name."""
        made = str.__new__(cls, name)
        made._value_, made.about = name, about
        return made


class ModelFamily(Choice):
    """Families of models that can be fine-tuned and drawn with; a base model's `darkroom.json` names one.

    A fine-tune is listed in the catalogue as of `base_model` when its images have `resolution` pixels a side or more.
    """

    base_model: str
    resolution: int

    def __new__(cls, name: str, about: str, base_model: str, resolution: int) -> Self:
        """A family of this name."""
        made = str.__new__(cls, name)
        made._value_, made.about = name, about
        made.base_model, made.resolution = base_model, resolution
        return made

    SD1 = "sd1", "Stable Diffusion 1 and its kin, the starter model among them: one CLIP text encoder.", "SD 1.5", 512
    SDXL = "sdxl", "Stable Diffusion XL and its kin, such as Pony and Illustrious: two encoders.", "SDXL 1.0", 1024


class TrainingMethod(Choice):
    """Which weights are trained, and how the result gets into the model.

    What it makes is a model of `model_type` in the catalogue. `adapter`: it trains layers of its own beside the base's,
    which stay frozen; so it has the options of adapters, may hold the base in 16 bits, and trains no row of a table.
    `learning_rate` is the usual one, where a base says nothing of the method.
    """

    model_type: ModelType
    adapter: bool
    learning_rate: float

    def __new__(
        cls,
        name: str,
        about: str,
        model_type: ModelType = ModelType.CHECKPOINT,
        adapter: bool = False,
        learning_rate: float = 5e-6,
    ) -> Self:
        """A method of this name."""
        made = str.__new__(cls, name)
        made._value_, made.about, made.model_type = name, about, model_type
        made.adapter, made.learning_rate = adapter, learning_rate
        return made

    # The DreamBooth paper's rate for Stable Diffusion (Ruiz et al. 2023).
    FULL = "full", "The whole UNet, and the text encoder and the identifier's embedding if they have a learning rate."
    # That of diffusers' and kohya's LoRA trainers.
    LORA = (
        "lora",
        "Low-rank adapters (LoRA, DoRA) beside frozen weights, published as a small file.",
        ModelType.LORA,
        True,
        1e-4,
    )

    @classmethod
    def known(cls, name: str) -> TrainingMethod:
        """The method of a name that is stored; one that only another release knows counts as `full`."""
        return next((one for one in cls if one.value == name), cls.FULL)


class LoraTargets(Choice):
    """Which layers get an adapter. `lora_conv` adds the convolutions to each of them."""

    ATTENTION = "attention", "Query, key, value and output of every attention, as diffusers' examples train."
    FEED_FORWARD = "attention-feed-forward", "Those, and both layers of every feed-forward part."
    TRANSFORMER = "transformer", "Every layer of the transformer blocks, their in and out projections too, as kohya's."
    ALL_LINEAR = "all-linear", "Every linear layer, those of the time embedding included."


class TrainingOptimizer(Choice):
    """How gradients become steps. What each keeps of a trained weight is in costs/optimizer_states.py beside this
    file."""

    ADAMW = "adamw", "AdamW with the rates and epsilon of the diffusers example: 0.9, 0.999, 1e-8."
    ADAMW_8BIT = "adamw_8bit", "AdamW with moments in 8 bits: a quarter of their memory."
    LION = "lion", "Lion: one moment; wants a learning rate 3 to 10 times smaller than AdamW's."
    LION_8BIT = "lion_8bit", "Lion with its moment in 8 bits: an eighth of the memory of AdamW's two."
    PRODIGY = "prodigy", "Prodigy: finds the rate itself; learning rates are factors of it, 1.0 unless asked for."
    ADAMW_SCHEDULE_FREE = "adamw_schedule_free", "AdamW that averages its own steps, so that no rate has to fall."
    ADAFACTOR = "adafactor", "Adafactor without momentum: sums of rows and columns in place of AdamW's moments."


class LearningRateSchedule(Choice):
    """How the learning rates change over the steps. All but `ramp` are those of diffusers, by its names.

    In flows/training/optimizers/learning_rates.py; one is a line here and a function there.
    """

    RAMP = (
        "ramp",
        "A line up over the warm-up steps that ends at the full rate, its first step included; then constant.",
    )
    CONSTANT = "constant", "The full rate at every step."
    CONSTANT_WITH_WARMUP = "constant_with_warmup", "A line up from 0 over the warm-up steps, then constant."
    LINEAR = "linear", "A line up from 0 over the warm-up steps, then a line down to 0 at the end."
    COSINE = "cosine", "A line up from 0 over the warm-up steps, then half a cosine down to 0 at the end."
    COSINE_WITH_RESTARTS = "cosine_with_restarts", "As cosine, started again so that there are as many falls as cycles."
    POLYNOMIAL = "polynomial", "A line up from 0 over the warm-up steps, then a power of what is left, down to 1e-7."
    PIECEWISE_CONSTANT = "piecewise_constant", "The factors of the schedule's rules, each up to its step."


class TrainingPreset(Choice):
    """Settings for a card, which fill what a request leaves out. What each one sets is in presets.py beside this file.

    `card_gib` is the memory of that card in GiB; 0: of no card, so the memory of the machine counts.
    """

    card_gib: int

    def __new__(cls, name: str, about: str, card_gib: int) -> Self:
        """A preset of this name."""
        made = str.__new__(cls, name)
        made._value_, made.about, made.card_gib = name, about, card_gib
        return made

    CPU = "cpu", "A machine without a GPU.", 0
    GPU_8GB = "gpu-8gb", "A card of 8 GB.", 8
    GPU_12GB = "gpu-12gb", "A card of 12 GB.", 12
    GPU_16GB = "gpu-16gb", "A card of 16 GB.", 16
    GPU_24GB = "gpu-24gb", "A card of 24 GB or more.", 24


class GenerationBackend(Choice):
    """What draws images."""

    LOCAL = "local", "The platform's own engine, which keeps models and draws many requests' pictures together."
    COMFYUI = "comfyui", "A ComfyUI in the network, by graphs that are made from the steps."


class TrackerName(Choice):
    """Where trainings show their metrics and samples, beside MLflow, which always has them. A setting, no field."""

    TENSORBOARD = "tensorboard", "TensorBoard's event files, in a folder that `tensorboard --logdir` shows."
    WANDB = "wandb", "Weights & Biases, online or in files for `wandb sync`."


def check_choice(names: type[Choice], field: str, name: str) -> None:
    """Refuse a name that is none of `names`. Raises InvalidRequest with the field and the known ones."""
    if name not in set(names):
        raise InvalidRequest({field: f"'{name}' is unknown; known are: {', '.join(names)}"})


def catalogue_name(family: str, resolution: int) -> str:
    """The catalogue name of a fine-tune's base, from the base's family and its pixels a side.

    A base of another size than its family's is no drop-in for it, so it counts as Other.
    """
    fitting = (known.base_model for known in ModelFamily if str(known) == family and resolution >= known.resolution)
    return next(fitting, "Other")

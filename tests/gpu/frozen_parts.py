"""What only a GPU shows of parts that do not train, or train no longer; each a function as in checks.py."""

from __future__ import annotations

from fnmatch import fnmatchcase

from flows.diffusion.families.lookup import family_named
from flows.training.tensor_files import read_tensors
from tests.gpu.checks import Place, equal_bytes
from tests.gpu.trainings import STEPS, in_process, wanted


def stopped_text(place: Place) -> str:
    """A text encoder that stops rests off the card: its average, samples and the identifier's rows find it there."""
    asked = wanted("full", text_encoder_steps=2, ema_decay=0.9, token_learning_rate=1e-2, sample_every=1)
    said = equal_bytes(place, "stopped text", asked)
    samples = len(list(place.work("stopped text", "first", "samples").glob("*.png")))
    assert samples == STEPS, samples
    return f"{samples} samples, {said}"


def half_base(place: Place, family: str) -> str:
    """Every adapter of a linear layer and of a convolution learns beside a base in 16 bits, DoRA's lengths with it."""
    asked = wanted(
        "lora",
        family=family,
        precision="bf16",
        frozen_precision="bf16",
        lora_conv=True,
        lora_dora=True,
        lora_targets="transformer",
    )
    said = equal_bytes(place, f"half-{family}", asked)
    return in_process(_have_learned, place, family) + said


def _have_learned(place: Place, family: str) -> str:
    kept = read_tensors(place.work(f"half-{family}", "first", "kept", f"{STEPS}.safetensors"))
    learning = [name for name in kept if name.startswith("weights/")]
    ups, lengths = ([name for name in learning if part in name] for part in (".lora_B.", ".lora_magnitude_vector"))
    unused = family_named(family).unused_weights(family_named(family).load(place.bases[family]))
    still = [name for name in ups if not kept[name].any()]
    # By their moments: weight decay changes lengths too, and where one token attends to itself a gradient is no more
    # than its rounding, which a length of about 1 does not show.
    moments = {name: kept.get(name.replace("weights/", "state/exp_avg/", 1)) for name in lengths}
    still += [name for name, moment in moments.items() if moment is None or not moment.any()]
    odd = [name for name in still if not any(fnmatchcase(name.removeprefix("weights/"), one) for one in unused)]
    assert len(ups) == len(lengths) > 0, (len(ups), len(lengths))
    assert not odd, f"{len(odd)} of {len(ups)} adapters and their lengths have learned nothing: {odd[:4]}"
    convolutions = sum(kept[name].dim() == 4 for name in ups)
    assert convolutions
    return f"{len(ups)} adapters, {convolutions} of them of convolutions, each with its lengths, "

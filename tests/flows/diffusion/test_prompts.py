"""Prompts with weights and of any length, beside the encoding of each of their chunks by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import deployments.local
from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.protocol import HIDDEN_STATES, Components, Conditioning, Family
from flows.diffusion.prompts import chunks_of, encode_unguided, encode_weighted, token_chunks
from flows.diffusion.sampler import denoise, first_latents, guiding, to_image
from storage.errors import InvalidRequest
from storage.records.generation.prompts import weighted_parts
from storage.records.jobs.sampled_sets import SamplerSettings
from tests.flows.diffusion.families.tiny_sdxl import write_tiny_sdxl

SD1, SDXL = family_named("sd1"), family_named("sdxl")
STARTER = Path(deployments.local.__path__[0]) / "starter"
SAMPLER = SamplerSettings(steps=2, guidance_scale=3.0)
COLOURS = ["red", "blue", "green", "yellow", "white", "black", "orange", "purple"]
WORDS = [COLOURS[number % 8] for number in range(200)]
"""Of one token each; the tiny models' tokenizers, and the starter's, read 30 of them at a time."""

Model = tuple[Family, Components]


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Components:
    folder = tmp_path_factory.mktemp("sdxl") / "tiny"
    write_tiny_sdxl(folder)
    return SDXL.load(folder)


@pytest.fixture(params=["sd1", "sdxl"])
def model(request: pytest.FixtureRequest, components: Components, sdxl: Components) -> Model:
    if request.param == "sdxl":
        return SDXL, sdxl
    # Behind a layer norm that was never trained every mean is 0, and there is none that weights could be seen to keep.
    norm: Any = components.text_encoder.final_layer_norm
    torch.nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(0))
    return SD1, components


def words(count: int, start: int = 0) -> str:
    return " ".join(WORDS[start : start + count])


def equal(ours: Conditioning, theirs: Conditioning) -> bool:
    assert ours.tensors.keys() == theirs.tensors.keys()
    return all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in ours.tensors)


def joined(model: Model, *texts: str) -> Conditioning:
    """Texts of one chunk each, encoded one by one, as the chunks of one prompt."""
    family, components = model
    each = [family.encode_prompts(components, [text, text]).take([0]).tensors for text in texts]
    return Conditioning({**each[0], HIDDEN_STATES: torch.cat([one[HIDDEN_STATES] for one in each], dim=1)})


def texts_of(components: Components, prompt: str) -> list[str]:
    """What each chunk of a prompt says."""
    tokenizer = components.tokenizer
    chunks = token_chunks(tokenizer, prompt)
    assert {len(chunk.ids) for chunk in chunks} == {len(chunk.weights) for chunk in chunks} == {32}
    return [tokenizer.decode(chunk.ids, skip_special_tokens=True).replace("</w>", " ").strip() for chunk in chunks]


@pytest.mark.parametrize("negative", ["", "blurred"])
def test_plain_prompts_are_encoded_bit_for_bit_as_when_they_were_cut(negative: str, model: Model):
    family, components = model
    prompts = ["a photo of a mug", "a red car, in the snow", "a photo of a mug"]

    encoded, avoided = encode_weighted(family, components, prompts, negative=negative)
    unguided = encode_unguided(family, components, prompts)

    for row, prompt in enumerate(prompts):
        with torch.no_grad():
            before = guiding(family, components, [prompt], SAMPLER, negative)
        assert equal(avoided.then(encoded.take([row])), before)
        assert equal(unguided.take([row]), family.encode_prompts(components, [prompt]))


def test_a_long_prompt_is_its_chunks_each_encoded_by_itself(model: Model):
    family, components = model
    prompt = words(70)

    encoded, negative = encode_weighted(family, components, [prompt], negative="blurred")

    assert encoded.tensors[HIDDEN_STATES].shape[1] == 3 * 32
    assert equal(encoded, joined(model, words(30), words(30, 30), words(10, 60)))
    assert equal(negative, joined(model, "blurred", "", ""))


def test_a_short_prompt_gets_the_chunks_of_its_long_negative_prompt(model: Model):
    family, components = model

    encoded, negative = encode_weighted(family, components, ["a mug"], negative=words(31))

    assert chunks_of(components.tokenizers, "a mug", words(31)) == 2
    assert equal(encoded, joined(model, "a mug", ""))
    assert equal(negative, joined(model, words(30), words(1, 30)))
    assert encode_unguided(family, components, ["a mug"]).tensors[HIDDEN_STATES].shape[1] == 32


CHUNKS: dict[str, list[str]] = {
    "": [""],
    words(30): [words(30)],
    words(30) + ",": [words(30), ","],
    words(61): [words(30), words(30, 30), words(1, 60)],
    # A phrase that would be cut goes to the next chunk whole, if its comma is among the last 20 tokens.
    words(10) + ", " + words(25, 11): [words(10) + " ,", words(25, 11)],
    words(9) + ", " + words(25, 10): [words(9) + " , " + words(20, 10), words(5, 30)],
    words(29) + ", " + words(3, 30): [words(29) + " ,", words(3, 30)],
    # Of several commas it is the last one; a comma that follows ends the phrase in time.
    f"{words(12)}, {words(5, 13)}, {words(15, 19)}": [f"{words(12)} , {words(5, 13)} ,", words(15, 19)],
    f"{words(12)}, {words(17, 13)}, {words(3, 31)}": [f"{words(12)} , {words(17, 13)}", f", {words(3, 31)}"],
    f"{words(12)}, {words(5, 13)} BREAK {words(31, 18)}": [
        f"{words(12)} , {words(5, 13)}",
        words(30, 18),
        words(1, 48),
    ],
    "red BREAK blue": ["red", "blue"],
    "red BREAK BREAK blue": ["red", "", "blue"],
    "BREAK red": ["", "red"],
    "red BREAK": ["red"],
    "BREAK": [""],
    words(30) + " BREAK " + words(1): [words(30), words(1)],
}


@pytest.mark.parametrize("prompt", CHUNKS)
def test_chunks_end_where_a1111_ends_them(prompt: str, components: Components):
    assert texts_of(components, prompt) == CHUNKS[prompt]
    assert chunks_of(components.tokenizers, prompt, None) == len(CHUNKS[prompt])


@given(st.lists(st.sampled_from(["red", ",", " BREAK ", "(blue:1.2)", " ", "ö", "<|endoftext|>"]), max_size=90))
def test_no_token_is_lost_or_added_whatever_the_prompt(sdxl: Components, pieces: list[str]):
    prompt = "".join(pieces)
    expected = [
        (token, part.weight)
        for part in weighted_parts(prompt)
        for token in sdxl.tokenizer(part.text, add_special_tokens=False).input_ids
    ]

    for tokenizer in sdxl.tokenizers:
        chunks = token_chunks(tokenizer, prompt)

        assert {len(chunk.ids) for chunk in chunks} == {len(chunk.weights) for chunk in chunks} == {32}
        assert {chunk.ids[0] for chunk in chunks} == {tokenizer.bos_token_id}
        content = [
            one
            for chunk in chunks
            for one in zip(chunk.ids[1:], chunk.weights[1:], strict=True)
            if one[0] not in (tokenizer.eos_token_id, tokenizer.pad_token_id)
        ]
        assert content == [one for one in expected if one[0] != tokenizer.eos_token_id]


def test_parts_of_another_weight_are_tokenized_apart(components: Components):
    def ids(text: str) -> list[int]:
        return components.tokenizer(text, add_special_tokens=False).input_ids

    [chunk] = token_chunks(components.tokenizer, "a mu(g of re:1.3)d")
    own = [*ids("a mu"), *ids("g of re"), *ids("d")]
    weights = [1.0] * len(ids("a mu")) + [1.3] * len(ids("g of re"))

    assert own != ids("a mug of red")
    assert list(chunk.ids[1 : 1 + len(own)]) == own
    assert list(chunk.weights) == [1.0, *weights, *[1.0] * (31 - len(weights))]
    [joined] = token_chunks(components.tokenizer, "(a mu)(g of)(\\)re)d")
    assert list(joined.ids[1:]) == list(token_chunks(components.tokenizer, "(a mug of\\)re)d")[0].ids[1:])


def by_hand(states: Tensor, weights: list[float]) -> np.ndarray[Any, Any]:
    """A1111's formula, in double precision: states (1, tokens, width), weights of the first tokens behind the start."""
    plain = states[0].double().numpy()
    factors = np.ones((plain.shape[0], 1))
    factors[1 : 1 + len(weights), 0] = weights
    weighted = plain * factors
    return weighted * (plain.mean() / weighted.mean())


def test_weights_follow_a1111s_formula_in_each_chunk_of_each_encoder(model: Model):
    family, components = model
    plain = f"{words(30)} {words(10, 30)}"
    weighted = f"{words(30)} {words(2, 30)} ({words(8, 32)}:1.4)"

    before, _ = encode_weighted(family, components, [plain], negative="")
    after, _ = encode_weighted(family, components, [weighted], negative="")

    ours, states = after.tensors[HIDDEN_STATES], before.tensors[HIDDEN_STATES]
    assert torch.equal(ours[:, :32], states[:, :32])
    widths = [one.config.hidden_size for one in components.text_encoders.values()]  # pyright: ignore[reportAttributeAccessIssue]
    for own, was in zip(ours[:, 32:].split(widths, -1), states[:, 32:].split(widths, -1), strict=True):
        np.testing.assert_allclose(own[0].numpy(), by_hand(was, [1.0] * 2 + [1.4] * 8), rtol=2e-3, atol=1e-4)
    assert {name for name in before.tensors if torch.equal(before.tensors[name], after.tensors[name])} == {
        *before.tensors
    } - {HIDDEN_STATES}


def test_a_prompt_is_encoded_the_same_beside_any_others_and_once(model: Model):
    family, components = model
    prompts = ["a (red:1.4) mug", "a car", "a (red:1.4) mug"]
    calls: list[int] = []
    for encoder in components.text_encoders.values():
        encoder.register_forward_pre_hook(lambda _, arguments: calls.append(len(arguments[0])))

    together, negative = encode_weighted(family, components, prompts, negative="a car")

    assert calls == [2, 2] * len(components.text_encoders)
    for number, prompt in enumerate(prompts):
        alone, other = encode_weighted(family, components, [prompt], negative="a car")
        assert equal(alone, together.take([number]))
        assert equal(other, negative)


def test_what_was_kept_is_encoded_once_for_each_layer(model: Model):
    family, components = model
    calls: list[Any] = []
    components.text_encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    kept: dict[object, Conditioning] = {}

    def keep(key: object, encode: Callable[[], Conditioning]) -> Conditioning:
        if key not in kept:
            kept[key] = encode()
        return kept[key]

    first = encode_weighted(family, components, ["a mug"], negative="blurred", keep=keep)
    again = encode_weighted(family, components, ["a mug"], negative="blurred", keep=keep)
    assert len(calls) == 2
    assert all(map(equal, first, again))

    encode_weighted(family, components, ["a mug"], negative="", clip_skip=1, keep=keep)
    encode_unguided(family, components, ["a mug"], keep=keep)
    assert len(calls) == 5


def test_prompts_of_different_lengths_are_no_batch(components: Components):
    with pytest.raises(ValueError, match=r"\[1, 2\] chunks in one batch"):
        encode_unguided(SD1, components, ["a mug", words(31)])

    encode_weighted(SD1, components, ["a mug", words(31)], negative=words(31))


def test_an_empty_negative_prompt_is_zeros_of_the_prompts_length_where_the_model_says_so(sdxl: Components):
    encoded, negative = encode_weighted(SDXL, sdxl, [words(31)], negative="")

    assert negative.tensors[HIDDEN_STATES].shape == encoded.tensors[HIDDEN_STATES].shape
    assert not any(tensor.any() for tensor in negative.tensors.values())


def test_the_layer_is_that_of_prompt_and_negative_prompt(sdxl: Components):
    own = encode_weighted(SDXL, sdxl, ["a mug"], negative="blurred")
    last = encode_weighted(SDXL, sdxl, ["a mug"], negative="blurred", clip_skip=1)

    for one, other in zip(own, last, strict=True):
        assert not torch.allclose(one.tensors[HIDDEN_STATES], other.tensors[HIDDEN_STATES], atol=1e-2)
    with pytest.raises(InvalidRequest, match="clipSkip: 3 is none of the layers"):
        encode_weighted(SDXL, sdxl, ["a mug"], negative="", clip_skip=3)


@pytest.fixture(scope="module")
def starter() -> Components:
    torch.set_num_threads(1)
    return SD1.load(STARTER)


def drawn(components: Components, prompt: str) -> np.ndarray[Any, Any]:
    """The pixels of one picture."""
    with torch.no_grad():
        encoded, negative = encode_weighted(SD1, components, [prompt], negative="")
        latents = denoise(SD1, components, negative.then(encoded), first_latents(components, [1]), SAMPLER)
        assert torch.isfinite(latents).all()
        return np.asarray(to_image(SD1.decode_latents(components, latents)[0])).astype(int)


def test_weights_and_the_last_of_two_hundred_words_change_the_picture(starter: Components):
    plain, heavy = drawn(starter, "a red mug"), drawn(starter, "a (red:1.4) mug")
    long, other = (drawn(starter, f"{words(199)} {last}") for last in ("mug", "car"))

    assert abs(plain - heavy).max() > 8
    assert abs(long - other).max() > 8
    assert np.array_equal(plain, drawn(starter, "a (red:1.0) mug"))

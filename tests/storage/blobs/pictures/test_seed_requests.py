"""A picture's request: our own as it was, of other pictures what they say, and by name what could not be taken."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from storage.blobs.pictures.read import PictureFacts, read_picture
from storage.blobs.pictures.seed_requests import SeedRequest, read_seed_request
from storage.blobs.pictures.written import write_picture
from storage.records.generation.drawings import Drawing, DrawnAdapter, DrawnImage, DrawnModel, PictureFormat
from storage.records.generation.parameters import KnownAfterwards, read_parameters, write_parameters


def seeds(text: str, **facts: Any) -> SeedRequest:
    """The request of a picture of 640 by 480 with this text."""
    drawn = read_parameters(text)
    return read_seed_request(PictureFacts(PictureFormat.PNG, 640, 480, 1, parameters=text, drawn=drawn, **facts))


def test_our_own_request_is_exactly_as_it_was() -> None:
    request = {"steps": [{"prompt": "a mug", "odd": None}], "tags": []}

    assert seeds("other\nSteps: 3, Sampler: x, Seed: 4", request=request) == SeedRequest(request)


def test_everything_that_a_text_of_ours_says_is_taken() -> None:
    found = seeds(
        "a mug\nNegative prompt: blurred\nSteps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, "
        "Seed: 1, Size: 512x768, Model hash: 0123456789, Model: mugs, Clip skip: 2, Eta: 0.5, RNG: CPU, "
        "Guidance rescale: 0.7, Batch shape: 8, Backend: local, Version: Darkroom 0.1.0, "
        'Civitai resources: [{"type":"checkpoint",'
        '"modelVersionId":7,"air":"urn:air:sd1:checkpoint:civitai:3@7"},{"type":"lora","weight":0.8,'
        '"modelVersionId":9,"air":"urn:air:sd1:lora:civitai:4@9"}]'
    )

    assert found == SeedRequest(
        {
            "prompt": "a mug",
            "negativePrompt": "blurred",
            "seed": 1,
            "steps": 25,
            "guidanceScale": 6.5,
            "guidanceRescale": 0.7,
            "width": 512,
            "height": 768,
            "scheduler": "DPM++ 2M",
            "spacing": "Karras",
            "eta": 0.5,
            "clipSkip": 2,
            "model": "urn:air:sd1:checkpoint:civitai:3@7",
            "adapters": [{"model": "urn:air:sd1:lora:civitai:4@9", "strength": 0.8}],
        }
    )


@pytest.mark.parametrize("form", PictureFormat)
def test_a_picture_without_its_request_still_says_what_was_drawn(form: PictureFormat) -> None:
    prompt = "a mug,\nSteps: 3, Sampler: none, Seed: 9\nNegative prompt: (blurred:1.2) "
    drawing = Drawing(
        model=DrawnModel(
            version_id=7, family="sd1", files={}, name="mugs, v2", air="urn:air:sd1:checkpoint:civitai:3@7"
        ),
        adapters=(DrawnAdapter(version_id=9, sha256="a" * 64, strength=-0.3, air="urn:air:sd1:lora:civitai:4@9"),),
        images=(DrawnImage(prompt=prompt, seed=2**53),),
        negative_prompt="ünschön",
        guidance_scale=6.1,
        width=64,
        height=72,
        clip_skip=2,
    )
    known = KnownAfterwards(sampler="DDIM", batch_shape=8, backend="local", version="0.1.0")
    text = write_parameters(drawing, drawing.images[0], known)

    found = read_seed_request(read_picture(write_picture(Image.new("RGB", (64, 72)), form, text, None, {})))

    assert found == SeedRequest(
        {
            "prompt": prompt,
            "negativePrompt": "ünschön",
            "seed": 2**53,
            "steps": 25,
            "guidanceScale": 6.1,
            "width": 64,
            "height": 72,
            "scheduler": "DDIM",
            "clipSkip": 2,
            "model": "urn:air:sd1:checkpoint:civitai:3@7",
            "adapters": [{"model": "urn:air:sd1:lora:civitai:4@9", "strength": -0.3}],
        }
    )


def test_a_text_of_a1111_names_models_by_hashes_and_strengths_in_its_prompt() -> None:
    found = seeds(
        "a mug <lora:ink:0.6>, red <lora:wash><lora:gone:1><hypernet:old:2>\nSteps: 20, Sampler: Euler a, Schedule "
        "type: Automatic, CFG scale: 7, Seed: 4, Size: 512x512, Model hash: 6ce0161689, Model: v1-5, VAE: nice, "
        'Denoising strength: 0.4, Hires upscale: 2, RNG: NV, Lora hashes: "ink: e3f9c2b1a8d7, wash: 00aa", '
        'Hashes: {"vae":"ff","embed:neg":"ee"}, Version: v1.9.4'
    )

    assert found.fields["prompt"] == "a mug , red"
    assert (found.fields["model"], found.fields["spacing"]) == ("6ce0161689", "Automatic")
    assert found.fields["adapters"] == [{"model": "e3f9c2b1a8d7", "strength": 0.6}, {"model": "00aa", "strength": 1.0}]
    assert found.left_out == (
        "VAE",
        "Hires upscale",
        "RNG",
        "Denoising strength",
        "vae ff",
        "embed neg",
        "<lora:gone:1>",
        "<hypernet:old:2>",
    )


def test_numbers_of_another_platform_are_not_taken_for_ours() -> None:
    found = seeds(
        "a mug\nSteps: 20, Sampler: Undefined, Seed: 4, Created Date: 2026-01-01T00:00:00Z, Civitai resources: "
        '[{"type":"checkpoint","modelVersionId":7,"modelName":"v1"},{"type":"lora","modelVersionId":9},'
        '{"type":"lora","modelVersionId":8,"modelName":"ink"}], Lora hashes: "ink: 00aa", Civitai metadata: {}'
    )

    assert found.fields == {
        "prompt": "a mug",
        "seed": 4,
        "steps": 20,
        "width": 640,
        "height": 480,
        "adapters": [{"model": "00aa"}],
    }
    assert found.left_out == ("Sampler", "Model", "lora 9")


def test_an_img2img_says_that_its_source_is_missing() -> None:
    found = seeds("x\nSteps: 2, Sampler: DDIM, Seed: 1, Denoising strength: 0.5, Operation: inpaint")

    assert found.left_out == ("Denoising strength", "Operation")


def test_a_picture_that_says_nothing_has_a_size() -> None:
    assert read_seed_request(PictureFacts(PictureFormat.PNG, 640, 480, 1)) == SeedRequest(
        {"prompt": "", "width": 640, "height": 480}
    )


@pytest.mark.parametrize(
    ("tag", "strength"), [("<lora:ink:-0.5:1.2>", -0.5), ("<lora:ink:much>", None), ("<LORA:ink>", 1.0)]
)
def test_the_first_strength_of_a_tag_counts(tag: str, strength: float | None) -> None:
    found = seeds(f'{tag}\nSteps: 2, Sampler: DDIM, Seed: 1, Lora hashes: "ink: aa"')

    assert found.fields["adapters"][0].get("strength") == strength


def test_the_list_of_what_was_left_out_can_be_shown() -> None:
    found = seeds("".join(f"<lora:{'x' * 200}{number}:1>" for number in range(500)))

    assert (len(found.left_out), {len(name) for name in found.left_out}) == (100, {100})

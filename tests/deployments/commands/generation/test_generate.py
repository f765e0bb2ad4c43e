"""darkroom generate."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deployments.client.responses import PriceResponse, StepPriceResponse
from deployments.commands.generation.generate import price_lines
from storage.blobs.pictures.written import write_picture
from storage.postgres.generation import workflows
from storage.postgres.jobs import jobs
from storage.records.generation.drawings import PictureFormat
from storage.records.generation.resolved_workflows import ResolvedWorkflow, read_workflow
from tests.deployments.line import Line
from tests.files import image_size
from tests.platform_api.door import photo
from tests.platform_api.generation.drawing import Artist, drawable

PROMPT = "a photo of a sks mug in the snow"


@pytest.fixture
def model(line: Line) -> int:
    """A version of the account to draw with."""
    return drawable(line.door, line.door.client())


def asked(line: Line) -> ResolvedWorkflow:
    """What the newest job draws."""
    return read_workflow(line.jobs()[0].request)


def test_pictures_and_their_grid_are_saved_behind_the_price(line: Line, model: int) -> None:
    arguments = (PROMPT, "--model", model, "-n", 3, "--seed", 5, "--size", "64x72", "--grid", "--out", "pictures")

    result = line.with_worker(line.worker.generate, "generate", *arguments)

    assert result.exit_code == 0, result.output
    job = line.jobs()[0]
    lines = result.output.splitlines()
    assert lines[0].startswith("price: 3 credits for 3 pictures")
    saved = [Path(text) for text in lines if text.endswith(".png")]
    names = [*(f"0-{number:03d}.png" for number in range(3)), "0-grid.png"]
    assert [path.name for path in saved] == [f"{str(job.id)[:8]}-{name}" for name in names]
    assert all(path.is_absolute() for path in saved)
    assert [image_size(path) for path in saved[:3]] == [(64, 72)] * 3
    drawing = asked(line).steps[0].drawing
    assert [(image.prompt, image.seed) for image in drawing.images] == [(PROMPT, seed) for seed in (5, 6, 7)]


def test_every_option_reaches_the_request(line: Line, model: int) -> None:
    adapter = drawable(line.door, line.door.client(), adapter=True)
    options = {
        "--model": model,
        "--adapter": f"{adapter}:0.8",
        "--size": "768x512",
        "--scheduler": "DPM++ SDE",
        "--spacing": "karras",
        "--steps": 30,
        "--guidance": 0,
        "--guidance-rescale": 0.7,
        "--seed": 0,
        "--count": 2,
        "--negative": "blurred",
        "--clip-skip": 2,
        "--format": "webp",
        "--priority": "high",
        "--tag": "a b",
        "--backend": "local",
    }
    given = [text for pair in options.items() for text in pair]

    result = line("generate", PROMPT, *given, "--exact", "--no-wait")

    assert result.exit_code == 0, result.output
    assert f"Follow it with: darkroom jobs follow {line.jobs()[0].id}" in result.output
    step = asked(line).steps[0]
    drawing = step.drawing
    assert (drawing.width, drawing.height, drawing.steps, drawing.guidance_scale) == (768, 512, 30, 0.0)
    assert (drawing.scheduler.spacing, drawing.guidance_rescale, drawing.clip_skip) == ("karras", 0.7, 2)
    assert [(one.version_id, one.strength) for one in drawing.adapters] == [(adapter, 0.8)]
    assert [image.seed for image in drawing.images] == [0, 1]
    assert (drawing.negative_prompt, drawing.format, drawing.exact) == ("blurred", "webp", True)
    assert (step.backend, asked(line).priority) == ("local", "high")
    [row] = line.door.database.run(workflows.of_jobs([line.jobs()[0].id]))
    assert row.tags == ["a b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["3", PROMPT], f'PROMPT: a model version is an option now: darkroom generate "{PROMPT}" --model 3'),
        (["a", "mug"], 'PROMPT: there are 2 of them; put one into quotes: "a mug"'),
        ([PROMPT], "--model: is needed by txt2img"),
        (["--model", "3"], "PROMPT: is needed by txt2img"),
        ([PROMPT, "--model", "mugs"], "--model: 'mugs' is no AIR with a version"),
        ([PROMPT, "--model", "3", "--size", "big"], "--size: 'big' is no size; write WIDTHxHEIGHT"),
        ([PROMPT, "--model", "3", "--size", "65x64"], "--size: width: expected"),
        ([PROMPT, "--model", "3", "--adapter", "ink:much"], "--adapter: 'ink:much' is no adapter"),
        ([PROMPT, "--model", "3", "--adapter", "7:9"], "--adapter: adapters[0].strength: expected a number <= 4"),
        ([PROMPT, "--model", "3", "--scheduler", "eular"], "--scheduler: 'eular' is unknown. Nearest: Euler"),
        ([PROMPT, "--model", "3", "--steps", "0"], "--steps: expected a whole number >= 1"),
        ([PROMPT, "--model", "3", "--count", "65"], "--count: expected a whole number <= 64"),
        ([PROMPT, "--model", "3", "--guidance", "99"], "--guidance: expected a number <= 30"),
        ([PROMPT, "--model", "3", "--strength", "0.5"], "--strength: is not for txt2img"),
        ([PROMPT, "--model", "3", "--mask", "m.png"], "--image: is needed by inpaint"),
        ([PROMPT, "--model", "3", "--image", "no.png"], "--image: "),
        ([PROMPT, "--model", "3", "--preview", "look.png"], "--preview: look.png: previews are JPEGs"),
        ([PROMPT, "--model", "3", "--preview", "no/look.jpg"], "--preview: there is no folder no"),
        (["--from", "no.png"], "--from: no.png: No such file"),
    ],
)
def test_bad_values_are_refused_by_option_before_anything_is_sent(
    line: Line, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.setenv("DARKROOM_API__PUBLIC_URL", "http://127.0.0.1:1")

    result = line("generate", *arguments)

    assert result.exit_code == 1
    assert f"error: {words}" in result.output


def test_what_the_api_alone_knows_is_refused_by_option_too(line: Line, model: int) -> None:
    other = drawable(line.door, line.door.client())
    unknown = line("generate", PROMPT, "--model", 9999)
    whole = line("generate", PROMPT, "--model", model, "--adapter", other)
    assert "error: --model: No model version 9999." in unknown.output
    assert "error: --adapter: adapters[0].model: version" in whole.output
    assert [job.kind for job in line.jobs() if job.kind == "generation"] == []


def test_the_price_is_printed_and_nothing_drawn(line: Line, model: int) -> None:
    result = line("generate", PROMPT, "--model", model, "--price", "--size", "512x512", "--steps", 50, "-n", 2)
    assert result.exit_code == 0, result.output
    assert "price: 4 credits for 2 pictures" in result.output
    assert "0: 4 credits, 2 pictures of 512x512, DDIM in 50 steps" in result.output
    assert all(job.kind != "generation" for job in line.jobs())


def test_a_picture_and_a_mask_are_sent_first(line: Line, model: int) -> None:
    for name, seed in (("photo.png", 1), ("mask.png", 2)):
        (line.folder / name).write_bytes(photo(seed))
    files = ("--image", "photo.png", "--mask", "mask.png")
    result = line("generate", PROMPT, "--model", model, *files, "--strength", 0.4, "--no-wait")
    assert result.exit_code == 0, result.output
    drawing = asked(line).steps[0].drawing
    assert (drawing.operation, drawing.strength, drawing.width, drawing.height) == ("inpaint", 0.4, 64, 48)
    assert len({drawing.source, drawing.mask, ""}) == 3
    (line.folder / "text.png").write_text("no picture")
    refused = line("generate", PROMPT, "--model", model, "--image", "text.png")
    assert "error: --image: " in refused.output
    assert "is not a PNG, JPEG or WebP image" in refused.output


def test_a_file_has_several_steps_and_names_pictures_beside_it(line: Line, model: int) -> None:
    folder = line.folder / "steps"
    folder.mkdir()
    (folder / "photo.png").write_bytes(photo(1))
    text = f"""
- name: base
  operation: img2img
  model: {model}
  prompt: a mug
  image: photo.png
- operation: upscale
  image: {{$ref: base, image: 0}}
  width: 128
  height: 96
"""
    (folder / "steps.yaml").write_text(text)
    result = line.with_worker(line.worker.generate, "generate", "--workflow", "steps/steps.yaml", "--tag", "both")
    assert result.exit_code == 0, result.output
    assert [step.drawing.operation for step in asked(line).steps] == ["img2img", "upscale"]
    names = [Path(text).name[9:] for text in result.output.splitlines() if text.endswith(".png")]
    assert names == ["base-000.png", "1-000.png"]
    (folder / "steps.yaml").write_text(text.replace("width: 128", "width: 129"))
    wrong = line("generate", "--workflow", "steps/steps.yaml", "--seed", 3)
    assert "steps.yaml, line 9: workflow[1].width: expected" in wrong.output
    (folder / "steps.yaml").write_text(text)
    mixed = line("generate", "--workflow", "steps/steps.yaml", "--seed", 3)
    assert "error: --seed: belongs into a step of `workflow`" in mixed.output
    (folder / "one.json").write_text(json.dumps({"model": model, "prompt": "from a file", "externalId": "once"}))
    for _ in range(2):
        once = line("generate", "--workflow", "steps/one.json", "--no-wait")
        assert once.exit_code == 0, once.output
    assert [job for job in line.jobs() if job.kind == "generation"][1].id != line.jobs()[0].id
    assert asked(line).steps[0].drawing.images[0].prompt == "from a file"


def picture(line: Line, name: str, parameters: str = "", request: dict[str, Any] | None = None) -> str:
    """A picture file that says how it was drawn."""
    image = Image.open(io.BytesIO(photo(1)))
    (line.folder / name).write_bytes(write_picture(image, PictureFormat.PNG, parameters, None, request or {}))
    return name


def test_a_picture_of_ours_is_drawn_again_and_options_win(line: Line, model: int) -> None:
    request = {"model": model, "prompt": "the old prompt", "seed": 9, "width": 64, "height": 72, "steps": 7}
    name = picture(line, "ours.png", request={**request, "externalId": "old", "zoom": 2})

    result = line("generate", "another prompt", "--from", name, "--steps", 8, "--no-wait")

    assert result.exit_code == 0, result.output
    assert "left out of ours.png: zoom" in result.output
    drawing = asked(line).steps[0].drawing
    assert (drawing.images[0].prompt, drawing.images[0].seed) == ("another prompt", 9)
    assert (drawing.width, drawing.height, drawing.steps) == (64, 72, 8)
    [row] = line.door.database.run(workflows.of_jobs([line.jobs()[0].id]))
    assert row.external_id is None


def test_models_of_other_tools_pictures_are_found_by_hash_or_refused_by_name(line: Line, model: int) -> None:
    weights = line.door.client().get(f"/api/v1/model-versions/{model}").json()["storedFiles"][0]["sha256"]
    settings = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 4, Size: 512x512, VAE: nice, "
    known = picture(line, "known.png", f"a mug\n{settings}Model hash: {weights[:10]}")
    strange = picture(line, "strange.png", f'a mug\n{settings}Model hash: 0123456789, Lora hashes: "ink: 00aa00aa00aa"')

    found = line("generate", "--from", known, "--no-wait")

    assert found.exit_code == 0, found.output
    assert "left out of known.png: VAE" in found.output
    drawing = asked(line).steps[0].drawing
    assert (drawing.model.version_id, drawing.scheduler.name, drawing.steps) == (model, "euler_ancestral", 20)
    refused = line("generate", "--from", strange, "--no-wait")
    assert "strange.png: its model: no version here has a file with the hash 0123456789. Name one" in refused.output
    assert "its adapter: no version here has a file with the hash 00aa00aa00aa" in refused.output
    named = line("generate", "--from", strange, "--model", model, "--adapter", "none", "--no-wait")
    assert named.exit_code == 0, named.output
    plain = line("generate", "--from", picture(line, "plain.png"))
    assert "plain.png: says nothing of how it was drawn" in plain.output


def test_what_was_drawn_before_a_failure_is_saved(line: Line, model: int) -> None:
    def fail() -> None:
        job = line.worker.next_job()
        artist = Artist(line.door)
        artist.begin(job)
        artist.put(job, read_workflow(job.request).steps[0], 0)
        line.door.database.run(jobs.fail(job.id, job.attempt, "backend_broken", "It broke."))

    result = line.with_worker(fail, "generate", PROMPT, "--model", model, "-n", 2, "--size", "64x64")

    assert result.exit_code == 1
    assert "It broke. (backend_broken)" in result.output
    assert [path.name[8:] for path in line.folder.glob("*.png")] == ["-0-000.png"]


def test_a_price_says_what_each_step_costs() -> None:
    step = StepPriceResponse(name="base", credits=1, pictures=1, width=64, height=32, seconds=2.4)
    cost = PriceResponse(credits=1, pictures=1, steps=(step,), seconds=2.4)
    assert list(price_lines(cost)) == ["price: 1 credit for 1 picture, about 2 s"]
    assert list(price_lines(cost, every=True))[1] == "  base: 1 credit, 1 picture of 64x32, about 2 s"

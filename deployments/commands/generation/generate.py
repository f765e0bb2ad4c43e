"""darkroom generate: pictures of prompts, drawn by models and adapters of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.console import Console

from deployments.client.api import Api, ApiRefusal, open_api
from deployments.client.generation_input import GenerationInput
from deployments.client.responses import JobResponse, PriceResponse, Submitted, job_root
from deployments.client.source_pictures import find_models, picture_facts, read_from_picture, send_sources
from deployments.commands.generation.drawing_watch import watching
from deployments.commands.generation.generation_options import (
    adapters_of,
    given_fields,
    one_prompt,
    preview_file,
    size_of,
)
from deployments.commands.jobs.job_progress import JobEnded, display_for, follow_job
from deployments.commands.jobs.results import save_images
from storage.records.generation.drawings import Operation, PictureFormat
from storage.records.generation.prices import Priority
from storage.records.jobs.choices import GenerationBackend
from storage.settings import load_settings

SUBMIT_PATIENCE_SECONDS = 30.0


def generate(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT",
            help='What to draw, in quotes: "a photo of a sks mug on the beach". Weights as in A1111, choices as {a|b}.',
        ),
    ] = None,
    *,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A model version, by its number or its AIR.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VERSION[:STRENGTH]",
            help="An adapter beside the model, such as 7:0.8. Repeat it for several; `none`: none of the picture's.",
        ),
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What to draw away from.")] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", help="Pictures to draw. Default: 1.")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Pixels, such as 768x512. Default: the model's own.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help='By any of its names, such as "DPM++ 2M Karras". Default: DDIM.')
    ] = None,
    spacing: Annotated[str | None, typer.Option(help="Of the noise levels, where no name says it: karras.")] = None,
    eta: Annotated[float | None, typer.Option(help="New noise in each step, of schedulers that take it.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps. Default: the model's own.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely to keep to the prompt.")] = None,
    guidance_rescale: Annotated[
        float | None, typer.Option(help="How far guidance is brought back to natural contrast, 0 to 1.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first picture; the next has the next.")] = None,
    clip_skip: Annotated[
        int | None, typer.Option(help="Layer of the text encoder from its end, as A1111 counts: 1 the last.")
    ] = None,
    operation: Annotated[
        Operation | None,
        typer.Option(help="Default: inpaint with --mask, img2img with --image, txt2img without."),
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="FILE", help="A picture to go on from; it is sent first.")
    ] = None,
    mask: Annotated[str | None, typer.Option(metavar="FILE", help="What is white in it is drawn again.")] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much of the picture is replaced, 0 to 1. Default: 0.75.")
    ] = None,
    format_: Annotated[PictureFormat | None, typer.Option("--format", help="How pictures are written.")] = None,
    exact: Annotated[
        bool | None,
        typer.Option("--exact/--no-exact", help="Draw each alone: its bytes are those of any other exact request."),
    ] = None,
    backend: Annotated[GenerationBackend | None, typer.Option(help="What draws. Default: whichever can.")] = None,
    priority: Annotated[Priority | None, typer.Option(help="How soon, beside others; it changes the price.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A word to find it by. Repeat it for several.")] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="PICTURE", help="Read the request from a picture; options override it."),
    ] = None,
    workflow: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON or YAML with several steps, as the API takes them as `workflow`."),
    ] = None,
    price: Annotated[bool, typer.Option("--price", help="Print what it would cost; draw nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it and save the pictures.")] = True,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the pictures.")] = Path(),
    grid: Annotated[bool, typer.Option("--grid", help="Save all pictures of a step in one, too.")] = False,
    preview: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A JPEG that shows how the picture being drawn looks so far."),
    ] = None,
) -> None:
    """Draw pictures with models and adapters, and save them.

    Precedence: options and PROMPT, then the picture of --from, then the file of --workflow. Ctrl-C leaves the job
    running and says how to come back to it.
    """
    preview_file(preview)
    given, picture = GenerationInput(), None
    if workflow is not None:
        given.read_file(workflow)
    if from_ is not None:
        picture = picture_facts(from_)
        for name in read_from_picture(given, from_):
            typer.echo(f"left out of {from_.name}: {name}", err=True)
    width, height = size_of(size)
    given.add_options(
        given_fields(
            prompt=one_prompt(prompt or ()),
            model=model,
            adapters=adapters_of(adapter or ()),
            negativePrompt=negative,
            count=count,
            width=width,
            height=height,
            scheduler=scheduler,
            spacing=spacing,
            eta=eta,
            steps=steps,
            guidanceScale=guidance,
            guidanceRescale=guidance_rescale,
            seed=seed,
            clipSkip=clip_skip,
            operation=operation,
            image=image,
            mask=mask,
            strength=strength,
            format=format_,
            exact=exact,
            backend=backend,
            priority=priority,
            tags=tag or None,
        )
    )
    with open_api(load_settings()) as api:
        if picture is not None and from_ is not None:
            find_models(api, given, picture, from_)
        given.request()
        send_sources(api, given, Path() if workflow is None else workflow.parent)
        wanted = given.request()
        cost = priced(api, given, wanted)
        for text in price_lines(cost, every=price):
            typer.echo(text)
        if not price:
            job = submit(api, given, wanted)
            typer.echo(f"submitted job {job.id}")
            if wait:
                draw(api, job, cost, out, grid=grid, preview=preview)
            else:
                typer.echo(f"Follow it with: darkroom jobs follow {job.id}")


def priced(api: Api, given: GenerationInput, wanted: dict[str, Any]) -> PriceResponse:
    """What the request costs. Raises InvalidGeneration with the source of each fault."""
    try:
        return api.post(
            f"{job_root('generation')}/price", PriceResponse, json=wanted, patience_seconds=SUBMIT_PATIENCE_SECONDS
        )
    except ApiRefusal as error:
        raise given.refused_by_the_api(error) from error


def submit(api: Api, given: GenerationInput, wanted: dict[str, Any]) -> JobResponse:
    """Submit once, however often the connection breaks. Raises InvalidGeneration, ApiRefusal."""
    # The caller's own name of it does what a key does, and both are one too many.
    headers = {} if "externalId" in wanted else {"Idempotency-Key": str(uuid4())}
    root = job_root("generation")
    try:
        submitted = api.post(root, Submitted, json=wanted, headers=headers, patience_seconds=SUBMIT_PATIENCE_SECONDS)
    except ApiRefusal as error:
        raise given.refused_by_the_api(error) from error
    return api.get(f"{root}/{submitted.id}", JobResponse)


def draw(api: Api, job: JobResponse, cost: PriceResponse, out: Path, *, grid: bool, preview: Path | None) -> None:
    """Follow a generation and save what it has drawn, also where it fails or is cancelled. Raises JobEnded."""
    display = display_for(Console(), step_names(cost))
    try:
        with watching(api, job, display.note, preview):
            ended = follow_job(api, job, display)
    except JobEnded:
        # Finished pictures are kept, and paid for.
        _save(api, job, out, grid=grid)
        raise
    _save(api, ended, out, grid=grid)


def step_names(cost: PriceResponse) -> dict[str, str]:
    """What the bar of each step is called."""
    if len(cost.steps) == 1:
        return {cost.steps[0].name: "draw"}
    return {step.name: f"draw {step.name}" for step in cost.steps}


def price_lines(cost: PriceResponse, *, every: bool = False) -> Sequence[str]:
    """The price for a reader; with `every`, of each step too."""
    lines = [f"price: {_credits(cost.credits)} for {_pictures(cost.pictures)}{_time(cost.seconds)}"]
    for step in cost.steps if every else ():
        drawn = f", {step.scheduler} in {step.steps} steps" if step.scheduler else ""
        lines.append(
            f"  {step.name}: {_credits(step.credits)}, {_pictures(step.pictures)} of {step.width}x{step.height}{drawn}"
            f"{_time(step.seconds)}"
        )
    return lines


def _save(api: Api, job: JobResponse, out: Path, *, grid: bool) -> None:
    for path in save_images(api, job, out, ("image", "grid") if grid else ("image",)):
        typer.echo(path)


def _credits(number: int) -> str:
    return f"{number} credit" if number == 1 else f"{number} credits"


def _pictures(number: int) -> str:
    return f"{number} picture" if number == 1 else f"{number} pictures"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f", about {seconds:.0f} s"

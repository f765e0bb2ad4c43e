"""darkroom train: a folder of photos in, a catalogued model out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID, uuid4

import typer
from rich.console import Console

from deployments.client.api import Api, ApiRefusal, open_api
from deployments.client.photos import find_photos, upload_photos
from deployments.client.responses import Base, JobResponse, Submitted, TrainingEstimateResponse, job_root
from deployments.client.training_settings import STDIN, TrainingInput
from deployments.commands.jobs.job_progress import display_for, follow_job
from deployments.commands.jobs.results import print_grid, report_training
from deployments.commands.jobs.training_config import config_file
from deployments.commands.jobs.training_estimate import estimate_lines, short_lines
from deployments.commands.jobs.training_options import given_options, with_training_options
from storage.errors import DarkroomError
from storage.records.jobs.training_fields import nested
from storage.settings import load_settings

SUBMIT_PATIENCE_SECONDS = 30.0
SUBJECTS_SHOWN = 5


class UnknownClass(DarkroomError):
    """The base model was never shown such things."""

    code = "unknown_class"


class IncompleteTraining(DarkroomError):
    """The photos or the class are missing."""

    code = "incomplete_training"


@with_training_options
def train(
    photos: Annotated[
        str | None,
        typer.Argument(
            metavar="PHOTOS",
            help="Folder with 3 to 6 photos of one subject (captions in .txt files, metadata.jsonl or kohya's layout), "
            "a zip of them, or a kohya TOML; here, or at a URL: https, s3, hf and what else fsspec reads.",
        ),
    ] = None,
    class_word: Annotated[
        str | None, typer.Argument(metavar="CLASS_WORD", help="What the subject is, in one noun: mug, car, dog.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            help="YAML file with a request's fields, as --print-config prints one; - is standard input.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Base model to start from; `darkroom base list` names them. Default: starter."),
    ] = None,
    data_set: Annotated[UUID | None, typer.Option(help="Photos that were uploaded before, in place of PHOTOS.")] = None,
    *,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Set a field by its name in YAML, such as sampler.steps=30. Overrides all else.",
        ),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Show the result to everybody; default: to you.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the picture grid.")] = Path(),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without asking.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as the job is submitted.")] = False,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            help="Print the request as YAML, what you set as set and all else as comments; start nothing.",
        ),
    ] = False,
    print_full_config: Annotated[
        bool,
        typer.Option(
            "--print-full-config",
            help="The same with everything set, so that no default changes it later; start nothing.",
        ),
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print the memory, disk and time that it needs; start nothing.")
    ] = False,
    **training: Any,
) -> None:
    """Fine-tune a base model on photos of a subject, and follow it to the catalogued model.

    Precedence: --set, then options and arguments, then the file, then the preset, then the base model's own defaults.
    """
    settings, printing = load_settings(), print_config or print_full_config
    found = find_photos(photos, settings.uploads) if photos else None
    for reason in found.left_out if found else ():
        typer.echo(f"left out: {reason}", err=printing)
    given = TrainingInput()
    if config is not None:
        given.read_file(config)
    own = {"baseModel": base, "classWord": class_word, "dataSetId": data_set and str(data_set)}
    given.add_options({**own, **nested(given_options(training)), "availability": "Public" if public else None})
    given.apply_settings(set_ or ())
    wanted = given.request()
    if found and "identifier" not in wanted and (unused := take_identifier(wanted, found.subjects)):
        typer.echo(unused, err=printing)
    with open_api(settings) as api:
        if printing:
            typer.echo(printed_config(api, given, wanted, full=print_full_config), nl=False)
            return
        if estimate:
            for text in estimate_lines(plan_of_any_class(api, given, wanted)):
                typer.echo(text)
            return
        check_complete(wanted, photos)
        known_base(api, wanted.get("baseModel", "starter"), wanted["classWord"])
        for text in short_lines(planned(api, given, wanted)):
            typer.echo(text)
        if not yes and sys.stdin.isatty() and config != STDIN and not typer.confirm("Start?", default=True):
            raise typer.Exit(0)
        if found:
            stored = upload_photos(api, found.name, found.photos)
            for reason in stored.left_out:
                typer.echo(f"left out: {reason}")
            typer.echo(f"uploaded {stored.image_count} photos as data set {stored.id}")
            wanted["dataSetId"] = str(stored.id)
        job = submit_training(api, wanted, uploaded=found is not None)
        typer.echo(f"submitted job {job.id}")
        for warning in job.request.get("warnings", ()):
            typer.echo(f"warning: {warning}", err=True)
        if detach:
            typer.echo(f"Follow it with: darkroom jobs follow {job.id}")
            return
        ended = follow_job(api, job, display_for(Console()))
        print_grid(report_training(api, ended, out))


def take_identifier(wanted: dict[str, Any], subjects: Sequence[str]) -> str:
    """Take the identifier from what kohya's folders are named for, if it is one: identifier and class, `10_sks mug`.
    Returns why it is not taken; empty where it is, and where they are named for nothing."""
    named = [one for one in subjects if one]
    if len(subjects) > 1:
        shown = ", ".join(f"'{one}'" for one in named[:SUBJECTS_SHOWN])
        more = f" and {len(named) - SUBJECTS_SHOWN} more" if len(named) > SUBJECTS_SHOWN else ""
        return (
            f"several subjects: the photos' folders are named for {shown}{more}, and each is learned by its own words; "
            "--identifier sets whose word samples and evaluation use"
        )
    class_word, tokens = wanted.get("classWord"), "".join(named)
    if tokens and class_word is not None and tokens.endswith(f" {class_word}"):
        wanted["identifier"] = tokens.removesuffix(f" {class_word}")
        return ""
    other = "there is no class word yet" if class_word is None else f"the class word is '{class_word}'"
    said = f"not used: '{tokens}', which the photos' folder is named for: {other}; --identifier sets the subject's word"
    return said if tokens else ""


def check_complete(wanted: dict[str, Any], photos: str | None) -> None:
    """Whether there are photos, once, and a class. Raises IncompleteTraining saying how to give them."""
    if "classWord" not in wanted:
        raise IncompleteTraining("the class word is missing: give CLASS_WORD after PHOTOS, or classWord in the file")
    if (photos is None) == ("dataSetId" not in wanted):
        what = "both PHOTOS and a data set were given" if photos else "there are no photos"
        raise IncompleteTraining(f"{what}: give either PHOTOS or --data-set with the id of uploaded photos")


def planned(api: Api, given: TrainingInput, wanted: dict[str, Any]) -> TrainingEstimateResponse:
    """The API's estimate for the request. Raises InvalidTraining with the source of each fault."""
    try:
        return api.post(f"{job_root('training')}/estimate", TrainingEstimateResponse, json=wanted)
    except ApiRefusal as error:
        raise given.refused_by_the_api(error) from error


def plan_of_any_class(api: Api, given: TrainingInput, wanted: dict[str, Any]) -> TrainingEstimateResponse:
    """The estimate; without a class word, for the first class that the base knows."""
    base = api.get(f"/api/v1/base-models/{quote(wanted.get('baseModel', 'starter'), safe='')}", Base)
    return planned(api, given, {"classWord": next(iter(base.class_words), "subject"), **wanted})


def printed_config(api: Api, given: TrainingInput, wanted: dict[str, Any], *, full: bool) -> str:
    """The request as YAML: set is what was asked for, with `full` all that it means."""
    meant = plan_of_any_class(api, given, wanted).request
    unknown = () if "classWord" in wanted else ("classWord", *(() if "name" in wanted else ("name",)))
    meant = {name: value for name, value in meant.items() if name not in unknown}
    return config_file(meant) if full else config_file(wanted, meant)


def known_base(api: Api, name: str, class_word: str) -> Base:
    """The base model `name`, if it knows things of that class. Raises ApiRefusal, UnknownClass."""
    base = api.get(f"/api/v1/base-models/{quote(name, safe='')}", Base)
    if base.class_words and class_word not in base.class_words:
        raise UnknownClass(
            f"base model '{name}' does not know '{class_word}'. It knows: {', '.join(base.class_words)}.\n"
            "For anything else register a real base, for example a Stable Diffusion 1.5 folder:\n"
            "  darkroom base add FOLDER --name sd15, then add --base sd15"
        )
    return base


def submit_training(api: Api, body: dict[str, Any], *, uploaded: bool) -> JobResponse:
    """Submit once, however often the connection breaks. When it is refused, photos that were uploaded for it are
    deleted again."""
    key = {"Idempotency-Key": str(uuid4())}
    try:
        submitted = api.post(
            job_root("training"), Submitted, json=body, headers=key, patience_seconds=SUBMIT_PATIENCE_SECONDS
        )
    except ApiRefusal:
        # Whatever the response to this is: the refusal is what counts.
        if uploaded:
            api.http.delete(f"/api/v1/data-sets/{body['dataSetId']}")
        raise
    return api.get(f"{job_root('training')}/{submitted.id}", JobResponse)

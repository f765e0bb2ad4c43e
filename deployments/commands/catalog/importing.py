"""darkroom import: a folder of model files into the catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from deployments.client.api import Api, ApiRefusal, open_api
from deployments.client.responses import HashOwnerResponse, Made
from deployments.client.uploads import upload_file
from deployments.commands.tables import echo_table
from deployments.importing.model_folders import FoundFile, FoundModel, RefusedFile, find_models
from storage.records.catalog.uploads import MAX_NAME
from storage.settings import Settings, load_settings

IMPORTED, PRESENT, REFUSED = "imported", "there already", "refused"
_GONE = frozenset({404, 410})
OnBytes = Callable[[int], None]


@dataclass
class Importing:
    """One import: what became of each file, in order."""

    api: Api
    settings: Settings
    publish: bool
    rows: list[tuple[str, str, str, str, str]] = field(default_factory=list)

    def take(self, model: FoundModel, on_bytes: OnBytes) -> None:
        """Make a model of files that the catalogue has not; a file that it has, by its SHA-256, stays where it is."""
        owners = self._owners(model.files)
        new: list[FoundFile] = []
        for file in model.files:
            if file.sha256 in owners or file.sha256 in {other.sha256 for other in new}:
                owner = owners.get(file.sha256)
                self._note(file.path, "" if owner is None else f"model {owner}", model, PRESENT)
            else:
                new.append(file)
        if new:
            try:
                self._make(model, new, on_bytes)
            except ApiRefusal as refusal:
                for file in new:
                    self._note(file.path, "", model, f"{REFUSED}: {refusal}")

    def refuse(self, refused: RefusedFile) -> None:
        """Note a file that cannot be taken."""
        self.rows.append((refused.path.name, "", "", "", f"{REFUSED}: {refused.why}"))

    @property
    def counts(self) -> Counter[str]:
        """How many files became what."""
        return Counter(row[-1].split(":")[0] for row in self.rows)

    def _owners(self, files: Sequence[FoundFile]) -> dict[str, int]:
        hashes = [file.sha256 for file in files]
        found = self.api.post("/api/v1/model-versions/by-hash/ids", list[HashOwnerResponse], json=hashes)
        return {owner.hash.lower(): owner.model_id for owner in found}

    def _make(self, model: FoundModel, files: Sequence[FoundFile], on_bytes: OnBytes) -> None:
        """A draft with these files; without the last of them it is deleted again. Repeating goes on with the same."""
        # The same key for the same file: an import that is repeated goes on with the model that the first one made.
        key = f"import {files[0].sha256}"
        model_id = self._make_model(model, key)
        if not self._is_there(model_id):  # an earlier import made it, and it was deleted since
            key = f"import {uuid4()}"
            model_id = self._make_model(model, key)
        try:
            version = self.api.post(
                f"/api/v1/models/{model_id}/versions",
                Made,
                json=model.version_fields,
                # With the model's number: a model that was made again must not get the deleted one's
                # version.
                headers={"Idempotency-Key": f"{key} version of {model_id}"},
            )
        except ApiRefusal:
            self.api.http.delete(f"/api/v1/models/{model_id}")
            raise
        taken = 0
        for file in files:
            try:
                upload_file(
                    self.api,
                    version.id,
                    file.path,
                    sha256=file.sha256,
                    memory=self.settings.data_folder / "import",
                    on_bytes=on_bytes,
                )
            except ApiRefusal as refusal:
                self._note(file.path, "", model, f"{REFUSED}: {refusal}")
            else:
                taken += 1
                self._note(file.path, f"model {model_id}", model, IMPORTED)
        if not taken:
            self.api.http.delete(f"/api/v1/models/{model_id}")
            return
        if model.preview is not None:
            self._show(version.id, model.preview, key)
        if self.publish:
            self.api.post(f"/api/v1/models/{model_id}/publish", Made)

    def _make_model(self, model: FoundModel, key: str) -> int:
        """The model's number; under a name with a few digits of its file's hash when another one has the name."""
        fields, headers = model.model_fields, {"Idempotency-Key": key}
        try:
            return self.api.post("/api/v1/models", Made, json=fields, headers=headers).id
        except ApiRefusal as refusal:
            # Only a name that is taken is helped by another one.
            if set(refusal.problem.errors) != {"name"}:
                raise
            own = f"{model.name[: MAX_NAME - 11]} ({model.files[0].sha256[:8]})"
            headers = {"Idempotency-Key": f"{key} named"}
            return self.api.post("/api/v1/models", Made, json={**fields, "name": own}, headers=headers).id

    def _is_there(self, model_id: int) -> bool:
        try:
            return self.api.get(f"/api/v1/models/{model_id}", Made).id == model_id
        except ApiRefusal as refusal:
            if refusal.status in _GONE:
                return False
            raise

    def _show(self, version_id: int, preview: Path, key: str) -> None:
        """Show the preview with the version. One that is no image costs a line, not the import."""
        form = {"files": (preview.name, preview.read_bytes())}
        headers = {"Idempotency-Key": f"{key} preview of {version_id}"}
        try:
            self.api.post(f"/api/v1/model-versions/{version_id}/images", Made, files=form, headers=headers)
        except ApiRefusal as refusal:
            typer.echo(f"left out: {preview.name}: {refusal}")

    def _note(self, path: Path, where: str, model: FoundModel, state: str) -> None:
        self.rows.append((path.name, where, model.type, model.base_model, state))


def import_folder(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", exists=True, file_okay=False, help="Safetensors, also in its folders.")
    ],
    publish: Annotated[bool, typer.Option("--publish", help="Show the new models to everybody.")] = False,
) -> None:
    """Fill the catalogue from a folder of safetensors, reading their metadata. Repeating changes nothing.

    Each file becomes a model of yours with one version; files that differ in a last word such as fp16 or pruned are
    variants of one. Names, base models, trigger words and tags come from the files' metadata, from NAME.civitai.info or
    NAME.json and NAME.preview.png beside them. Exits with 1 when a file was refused; the others are imported.
    """
    settings, console = load_settings(), Console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with open_api(settings) as api, Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        work = Importing(api, settings, publish)
        for found in find_models(folder):
            if isinstance(found, RefusedFile):
                work.refuse(found)
                continue
            if found.passed_over:
                typer.echo(f"left out: {found.passed_over}")
            size = sum(file.path.stat().st_size for file in found.files)
            task = bars.add_task(found.name, total=size)
            work.take(found, lambda count, task=task: bars.update(task, advance=count))
    if work.rows:
        echo_table(("file", "in", "type", "base model", "what became of it"), work.rows)
    counts = work.counts
    typer.echo(", ".join(f"{counts[state]} {state}" for state in (IMPORTED, PRESENT, REFUSED)))
    if counts[REFUSED]:
        raise typer.Exit(1)

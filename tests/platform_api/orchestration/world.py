"""A live API with two resources, Civitai's npm packages as its clients, and a flow's writes that move its workflows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from storage.blobs.store import BlobStore
from storage.postgres.catalog import catalog
from storage.postgres.connection import Query
from storage.postgres.generation import workflows
from storage.postgres.jobs import jobs
from storage.records.catalog.variants import air, primary_file
from storage.records.jobs.jobs import Job
from tests.platform_api.door import Door, photo
from tests.platform_api.orchestration.node_clients import NodeClients, Responded
from tests.storage.makers import a_drawn_picture, a_trained_version


@dataclass(frozen=True)
class Plain:
    """A live API, and a model to draw with."""

    door: Door
    client: httpx.Client
    model: str

    def step(self, **fields: Any) -> dict[str, Any]:
        """A step that draws from text, small enough for the models of tests."""
        return text_to_image(**{"model": self.model, **fields})


@dataclass(frozen=True)
class World:
    """A live API, its clients and two resources to draw with."""

    door: Door
    node: NodeClients
    model: str
    adapter: str

    def step(self, kind: str = "textToImage", name: str | None = None, **fields: Any) -> dict[str, Any]:
        """A step that draws from text, small enough for the models of tests."""
        return text_to_image(kind, name, **{"model": self.model, **fields})

    def image_gen(self, **fields: Any) -> dict[str, Any]:
        """A step of `imageGen`, by the engine whose names are nearest to ours."""
        plain = {"engine": "sdcpp", "ecosystem": "sd1", "operation": "createImage", "sampleMethod": "euler_a"}
        return self.step("imageGen", **{**plain, **fields})

    def submit(self, *steps: dict[str, Any], query: dict[str, Any] | None = None, **body: Any) -> Responded:
        """A workflow of these steps, submitted by `@civitai/client`."""
        template = {"steps": list(steps) or [self.step()], **body}
        return self.node.client("submitWorkflow", body=template, query=query or {})

    def submitted(self, *steps: dict[str, Any], **body: Any) -> str:
        """The id of a new workflow."""
        made = self.submit(*steps, **body)
        assert made.status == 200, made.error
        return made.data["id"]

    def get(self, workflow_id: str) -> dict[str, Any]:
        """A workflow's document."""
        return self.node.client("getWorkflow", path={"workflowId": workflow_id}).data

    def claimed(self, workflow_id: str) -> Job:
        """The workflow's job, claimed as the flow claims it."""
        job = self.door.database.run(jobs.get(UUID(workflow_id)))
        return self.door.database.run(jobs.claim(job.id, job.attempt, None))

    def draw(self, job: Job, position: int = 0, name: str = "0", pictures: int = 1) -> None:
        """Draw a step of a claimed workflow, whole."""
        run = self.door.database.run
        run(workflows.begin_step(job.id, job.attempt, position, "local"))
        for number in range(pictures):
            blob = BlobStore(self.door.settings.blobs).put(photo(number))
            a_drawn_picture(self.door.database, job, name, number, sha256=blob.sha256, size=blob.size)
            run(workflows.drew(job.id, job.attempt, position, 0.5))
        run(workflows.end_step(job.id, job.attempt, position))

    def finish(self, job: Job) -> None:
        """End a workflow whose steps are drawn."""
        self.door.database.run(jobs.succeed(job.id, job.attempt, None))

    def newest(self) -> str:
        """The id of the newest workflow."""
        found = self.door.database.run(
            Query("select id from jobs where kind = 'generation' order by sequence desc limit 1", {}, list)
        )
        return str(found[0]["id"]) if found else ""

    def meanwhile(self, do: Callable[[Job], None]) -> threading.Thread:
        """Claim the next workflow that comes, and do that, while a client waits."""
        known = self.newest()

        def work() -> None:
            deadline = time.monotonic() + 20
            while (found := self.newest()) == known and time.monotonic() < deadline:
                time.sleep(0.02)
            do(self.claimed(found))

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def drawn(self, job: Job) -> None:
        """Draw and end a workflow of one step with one picture, whatever its name."""
        [step] = self.door.database.run(workflows.steps_of_jobs([job.id]))
        self.draw(job, name=step.name)
        self.finish(job)


def text_to_image(kind: str = "textToImage", name: str | None = None, **fields: Any) -> dict[str, Any]:
    """A step that draws from text; `model` among its fields says with what."""
    plain = {"prompt": "a mug", "cfgScale": 5, "steps": 4, "width": 64, "height": 64}
    return {"$type": kind, "name": name, "input": {**plain, **fields}}


def a_plain_world(door: Door, owner: UUID) -> Plain:
    """The world of an account that has a base model, without clients."""
    return Plain(door, door.client(), _an_air(door, owner, adapter=False))


def a_world(door: Door, node: NodeClients, owner: UUID) -> World:
    """The world of an account that has a base model."""
    return World(door, node, *(_an_air(door, owner, adapter=adapter) for adapter in (False, True)))


def _an_air(door: Door, owner: UUID, *, adapter: bool) -> str:
    version = a_trained_version(door.database, owner, "lace" if adapter else "mug", adapter=adapter)
    model = door.database.run(catalog.model_by_id(version.model_id))
    return air(model, version, primary_file(door.database.run(catalog.files(version.id))))

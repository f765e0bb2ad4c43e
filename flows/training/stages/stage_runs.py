"""The stages of one attempt: each a Prefect task that is passed over where its result is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from flows.diffusion.families.protocol import Components
from flows.runs.retries import STORE_RETRIES
from flows.training.photos.materials import Materials
from flows.training.photos.pictures import StoredPicture
from flows.training.stages.stage_results import ClassImages, KeptStages, Result
from flows.training.work import TrainingWork
from storage.records.jobs.jobs import Stage

# What a stage makes is kept by us, under a hash of what it is made from: in Postgres, where every worker finds it,
# while Prefect's results are files of the machine that made them. Without a time-out: the stall limit stops what hangs.
_UNKEPT: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


class Trained:
    """The fit's outcome in this process's memory: the tuned components, and which of them changed."""

    def __init__(self, components: Components, changed: frozenset[str]) -> None:
        self.components, self.changed = components, changed


class TrainingStages:
    """The stages of an attempt, and what this process holds in memory of what they name.

    materials: set by the first stage, which every attempt does. `found`: stages that were passed over, each with who
    made its result. `seconds`: what the others took. `trained` is made by `trains` when a stage first needs it: an
    attempt that finds evaluation and export loads no model.
    """

    def __init__(self, work: TrainingWork) -> None:
        self.work, self.kept = work, KeptStages(work.job)
        self.current = Stage.PREPARE
        self.found: dict[Stage, str] = {}
        self.seconds: dict[Stage, float] = {}
        self.materials: Materials | None = None
        self.trained: Trained | None = None
        self.trains: Callable[[], Trained] | None = None
        self.version_id: int | None = None
        self.links: dict[str, str] = {}

    def run(
        self,
        stage: Stage,
        inputs: Mapping[str, object],
        kind: type[Result],
        make: Callable[[], Result],
        *,
        kept: bool = True,
        retried: bool = True,
    ) -> Result:
        """The result of a stage, found or made, as a task of the flow run. `inputs` are hashes and plain values.

        kept: otherwise it is done in every attempt. retried: by Prefect, while a store is unavailable.
        """
        self.current = stage
        results: list[Result] = []

        def body() -> State[Any] | None:
            if kept and (found := self.kept.find(stage, inputs, kind)) is not None:
                row, result = found
                results.append(result)
                whose = "" if row.made_by == self.work.job.id else f" of job {row.made_by}"
                self.found[stage] = f"attempt {row.attempt}{whose}"
                get_run_logger().info("stage %s: found what %s made", stage, self.found[stage])
                return Completed(name="Cached", message=f"Made by {self.found[stage]}")
            began = time.monotonic()
            results.append(self._made(stage, make))
            self.seconds[stage] = time.monotonic() - began
            if kept:
                self._keep(stage, inputs, results[-1])
            return None

        options: dict[str, Any] = STORE_RETRIES if retried else {}
        _stage.with_options(name=stage.value, **options)(dict(inputs), body)
        self.work.job.reach(f"after:{stage}")
        return results[-1]

    def _made(self, stage: Stage, make: Callable[[], Result]) -> Result:
        # The fit measures its own parts, and publishing comes after the last metrics.
        if stage in (Stage.FIT, Stage.PUBLISH):
            return make()
        self.work.job.report(stage.value)
        with self.work.measured(stage.value):
            return make()

    def _keep(self, stage: Stage, inputs: Mapping[str, object], result: msgspec.Struct) -> None:
        if stage not in (Stage.PREPARE, Stage.REGULARIZE):
            # Before the stage is kept as done: an attempt that finds it goes on with these metrics. Those before the
            # fit do not know yet what earlier attempts have measured.
            self.work.keep_metrics()
        self.kept.keep(stage, inputs, result, seconds=self.seconds[stage], peak_bytes=self.peak_bytes(stage))

    def peak_bytes(self, stage: Stage) -> int:
        """The most memory that a stage took in this attempt; 0 where it was not measured."""
        phases = ("resume", "fit") if stage is Stage.FIT else (stage.value,)
        return max(self.work.peaks.get(phase, 0) for phase in phases)

    @property
    def of_this_machine(self) -> Materials:
        """The base model's folder and the photos."""
        assert self.materials is not None, "every attempt prepares its machine first"
        return self.materials

    def model(self) -> Trained:
        """The fine-tune: what the fit of this process has left, or its last checkpoint."""
        if self.trained is None:
            assert self.trains is not None, "the fit comes before what needs its outcome"
            self.trained = self.trains()
        return self.trained

    def images_of(self, result: ClassImages) -> list[StoredPicture]:
        """The class images, each read when it is looked at: there may be two thousand."""
        return [StoredPicture(partial(self.read, sha256)) for sha256 in result.images]

    def read(self, sha256: str) -> bytes:
        """A blob's bytes, waiting for the store as long as the job may go on."""
        return self.work.job.with_retries(lambda: self.work.stores.blobs.read(sha256))


@task(name="stage", **_UNKEPT)
def _stage(inputs: Mapping[str, object], body: Callable[[], State[Any] | None]) -> State[Any] | None:
    """One stage. Its parameters are what it is made from, by hashes; `body` does it."""
    return body()

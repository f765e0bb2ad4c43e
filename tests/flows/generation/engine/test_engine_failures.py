"""What goes wrong in an engine ends what it concerns, and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from flows.diffusion.trajectories import TOGETHER, Trajectory
from flows.generation.engine import engine as engine_module
from flows.generation.engine import failures, resident_models
from flows.generation.engine.engine import Engine
from flows.generation.engine.failures import DeviceLost
from flows.generation.engine.messages import DrawRequest, PictureDrawn, StepDone
from storage.errors import JobStalled
from storage.records.generation.drawings import DrawnModel, Operation
from tests.flows.generation.engine.bench import Heard, LocalFiles, ask, drawing, running, submit


@pytest.fixture(scope="module")
def engine(folders: dict[int, Path]) -> Iterator[Engine]:
    grey = Image.new("RGB", (64, 64), (90, 120, 150))
    with running(LocalFiles(folders, pictures={"grey": grey})) as engine:
        yield engine


def out_of_memory(*_: Any) -> Any:
    raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")


@pytest.mark.parametrize("changes", [{"width": 0}, {"height": -8}, {"steps": 0}, {"steps": 2000}])
def test_a_request_that_makes_no_sense_ends_alone(engine: Engine, changes: dict[str, Any]) -> None:
    bad, fine = ask(engine, drawing(1, 2, 3, **changes)), ask(engine, drawing(4, 5, 6))

    assert bad.failure().code
    assert len(fine.pictures()) == 3


def test_a_recorded_shape_that_finds_no_memory_fails_and_others_go_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine_module.predict_together

    def small(family: Any, components: Any, trajectories: Any, shape: int) -> Any:
        return out_of_memory() if shape == TOGETHER else real(family, components, trajectories, shape)

    monkeypatch.setattr(engine_module, "predict_together", small)
    redraw, other = ask(engine, drawing(1, shape=TOGETHER)), ask(engine, drawing(2))

    assert redraw.failure().code == "out_of_memory"
    assert len(other.pictures()) == 1


def test_a_picture_that_finds_no_memory_alone_is_tried_once_more(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = engine_module.predict_together, list[int]()

    def once(*given: Any) -> Any:
        tries.append(1)
        return out_of_memory() if len(tries) == 1 else real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "predict_together", once)
        assert len(ask(engine, drawing(1)).pictures()) == 1
    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "predict_together", out_of_memory)
        assert ask(engine, drawing(1)).failure().code == "out_of_memory"


def test_a_failure_of_one_picture_in_a_call_ends_its_request_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Trajectory.take

    def broken(self: Trajectory, prediction: Any) -> None:
        if self.total == 7:
            raise ValueError("a scheduler that cannot")
        real(self, prediction)

    monkeypatch.setattr(Trajectory, "take", broken)
    bad, fine = ask(engine, drawing(1, 2, 3, steps=7)), ask(engine, drawing(4, 5, 6, 7, 8))

    assert bad.failure().code == "job_failed"
    assert len(fine.pictures()) == 5


def test_pictures_of_a_call_that_failed_are_drawn_each_by_itself(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine_module.predict_together

    def only_alone(family: Any, components: Any, trajectories: Any, shape: int) -> Any:
        if len(trajectories) > 1:
            raise RuntimeError("a kernel that takes no more")
        return real(family, components, trajectories, shape)

    expected = ask(engine, drawing(1, 2, 3, shape=TOGETHER)).pictures()
    monkeypatch.setattr(engine_module, "predict_together", only_alone)

    pictures = ask(engine, drawing(1, 2, 3, shape=TOGETHER)).pictures()

    assert [one.tobytes() for one in pictures.values()] == [one.tobytes() for one in expected.values()]


def test_a_load_that_failed_is_tried_again_for_whoever_comes_later(folders: dict[int, Path]) -> None:
    files = LocalFiles({1: folders[1]})
    with running(files) as engine:
        files.gate.clear()
        heard, ticket = submit(engine, drawing(1, version=2))
        while not engine.models.loading_seconds():
            time.sleep(0.005)
        engine.cancel(ticket)
        files.gate.set()
        while engine.models.loading_seconds():
            time.sleep(0.005)
        files.models = folders

        assert len(ask(engine, drawing(1, version=2)).pictures()) == 1
        assert heard.messages == []


def test_a_model_larger_than_the_budget_stays_for_the_next_request(folders: dict[int, Path]) -> None:
    with running(LocalFiles(folders), budget=1) as engine:
        for seed in range(3):
            ask(engine, drawing(seed)).pictures()

        assert engine.models.loads == 1


def test_a_model_that_goes_while_its_picture_is_in_work_changes_nothing(engine: Engine) -> None:
    source: dict[str, Any] = {"operation": Operation.IMG2IMG, "source": "grey", "strength": 1.0, "steps": 60}
    expected = ask(engine, drawing(1, **source)).pictures()[0]
    heard = ask(engine, drawing(1, **source))
    heard.wait_for(StepDone)

    engine.models.drop_idle(0.0)

    assert heard.pictures()[0].tobytes() == expected.tobytes()


def test_pictures_that_fit_in_no_call_are_not_begun_beside_others(engine: Engine) -> None:
    first = ask(engine, drawing(1, 2, 3, steps=40))
    first.wait_for(StepDone)
    others = ask(engine, drawing(*range(20), width=72, steps=2))
    first.pictures()

    waiting = [one for one in engine._line.pictures() if one.trajectory is not None]

    assert len(waiting) <= TOGETHER
    assert len(others.pictures()) == 20


def test_a_hang_ends_the_engine_and_says_that_another_may_draw(
    folders: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = LocalFiles(folders)
    engine = Engine(files, files.picture, torch.device("cpu"), 10**9)
    heard = ask(engine, drawing(1, 2, 3))

    def hangs(*_: Any) -> Any:
        raise JobStalled("nothing was done")

    monkeypatch.setattr(engine_module, "trajectory_of", hangs)
    with pytest.raises(JobStalled):
        engine.run()

    assert heard.failure().code == "backend_unavailable"


def test_a_lost_device_ends_the_engine(folders: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(folders)
    engine = Engine(files, files.picture, torch.device("cpu"), 10**9)
    heard = ask(engine, drawing(1))

    def lost(*_: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(failures.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(engine_module, "trajectory_of", lost)
    with pytest.raises(DeviceLost):
        engine.run()

    assert heard.failure().code == "backend_unavailable"


def test_a_model_read_in_16_bits_changes_no_number_of_others(
    folders: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, reading = resident_models.family_named, threading.Event()

    class Slow:
        """A family whose reading takes a while, with torch's default type changed as libraries do it."""

        def load(self, folder: Path, dtype: str) -> Any:
            if dtype == "float32":
                return real("sd1").load(folder, dtype=dtype)
            reading.set()
            torch.set_default_dtype(torch.bfloat16)
            time.sleep(0.3)
            torch.set_default_dtype(torch.float32)
            return real("sd1").load(folder, dtype=dtype)

        def __getattr__(self, name: str) -> Any:
            return getattr(real("sd1"), name)

    monkeypatch.setattr(resident_models, "family_named", lambda _: Slow())
    with running(LocalFiles(folders)) as engine:
        expected = ask(engine, drawing(1, 2, 3, steps=20)).pictures()
        narrow = DrawnModel(version_id=2, family="sd1", files={"unet": "b" * 64}, held_in="bfloat16")
        half = ask(engine, drawing(1, model=narrow))
        assert reading.wait(10)

        pictures = ask(engine, drawing(1, 2, 3, steps=20)).pictures()

        assert [one.tobytes() for one in pictures.values()] == [one.tobytes() for one in expected.values()]
        half.pictures()


def test_nothing_more_is_begun_for_a_reader_that_does_not_read(engine: Engine) -> None:
    class Slow(Heard):
        """Has enough to read after its first picture."""

        read = False

        @property
        def full(self) -> bool:
            return not self.read and any(isinstance(one, PictureDrawn) for one in self.messages)

    slow = Slow()
    engine.submit(DrawRequest(drawing=drawing(1, 2, exact=True), wanted=(0, 1)), slow)
    slow.wait_for(PictureDrawn)

    assert len(ask(engine, drawing(3)).pictures()) == 1
    assert not slow.ended.is_set()
    slow.read = True
    engine.wake()
    assert len(slow.pictures()) == 2

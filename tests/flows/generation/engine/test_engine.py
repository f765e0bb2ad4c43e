"""The engine: many requests on one device, each as if it were alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from flows.diffusion.trajectories import ALONE, TOGETHER
from flows.generation.engine import engine as engine_module
from flows.generation.engine import picture_reports
from flows.generation.engine.engine import Engine
from flows.generation.engine.messages import PictureDrawn, PreviewDrawn, StepDone
from storage.records.generation.drawings import DrawnImage, Operation
from tests.flows.generation.engine.bench import LocalFiles, ask, drawing, running, submit


@pytest.fixture(scope="module")
def engine(folders: dict[int, Path]) -> Iterator[Engine]:
    grey = Image.new("RGB", (64, 64), (90, 120, 150))
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    with running(LocalFiles(folders, pictures={"grey": grey, "mask": mask})) as engine:
        yield engine


def test_a_request_for_several_pictures_gets_each_with_its_own_seed(engine: Engine) -> None:
    heard = ask(engine, drawing(1, 2, 3, 4))

    pictures = heard.pictures()

    assert sorted(pictures) == [0, 1, 2, 3]
    assert all(one.shape == (64, 64, 3) for one in pictures.values())
    assert len({one.tobytes() for one in pictures.values()}) == 4
    assert heard.shapes() == {TOGETHER}


def test_each_step_of_each_picture_is_reported_in_its_order(engine: Engine) -> None:
    heard = ask(engine, drawing(1, 2, 3))
    heard.pictures()

    for number in range(3):
        steps = [one.step for one in heard.messages if isinstance(one, StepDone) and one.number == number]
        assert steps == [1, 2, 3]


def test_only_what_is_wanted_is_drawn_and_nothing_wanted_ends_at_once(engine: Engine) -> None:
    assert sorted(ask(engine, drawing(1, 2, 3), wanted=(1,)).pictures()) == [1]
    assert ask(engine, drawing(1, 2, 3), wanted=()).pictures() == {}


def test_a_single_picture_and_an_exact_one_are_drawn_alone(engine: Engine) -> None:
    single, exact = ask(engine, drawing(1)), ask(engine, drawing(1, 2, 3, exact=True))

    assert single.shapes() == exact.shapes() == {ALONE}
    assert exact.pictures()[0].tobytes() == single.pictures()[0].tobytes()


def test_the_shapes_differ_by_two_levels_at_most(engine: Engine) -> None:
    alone, together = ask(engine, drawing(1, shape=ALONE)), ask(engine, drawing(1, shape=TOGETHER))

    assert (alone.shapes(), together.shapes()) == ({ALONE}, {TOGETHER})
    levels = np.abs(alone.pictures()[0].astype(int) - together.pictures()[0].astype(int))
    assert levels.max() <= 2


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 3),
    shape=st.sampled_from([ALONE, TOGETHER]),
    company=st.lists(st.tuples(st.integers(10, 2**31 - 1), st.integers(1, 4), st.floats(1.5, 9)), max_size=6),
    before=st.booleans(),
)
def test_a_picture_is_a_function_of_request_seed_and_shape(
    engine: Engine,
    known: dict[tuple[int, int], bytes],
    seed: int,
    shape: int,
    company: list[tuple[int, int, float]],
    before: bool,
) -> None:
    others = [drawing(other, steps=steps, guidance_scale=scale, shape=shape) for other, steps, scale in company]
    asked = [ask(engine, other) for other in others] if before else []
    mine = ask(engine, drawing(seed, shape=shape))
    asked += [] if before else [ask(engine, other) for other in others]

    picture = mine.pictures()[0].tobytes()

    for one in asked:
        one.pictures()
    assert picture == known.setdefault((seed, shape), picture)


@pytest.fixture(scope="module")
def known(folders: dict[int, Path]) -> dict[tuple[int, int], bytes]:
    """What another engine, which began afresh, draws of a seed in a shape."""
    with running(LocalFiles(folders)) as fresh:
        return {
            (seed, shape): ask(fresh, drawing(seed, shape=shape)).pictures()[0].tobytes()
            for seed in (0, 1)
            for shape in (ALONE, TOGETHER)
        }


def test_a_cancelled_request_draws_no_more_and_others_go_on(engine: Engine) -> None:
    heard, ticket = submit(engine, drawing(*range(20), steps=20))
    heard.wait_for(StepDone)

    engine.cancel(ticket)
    other = ask(engine, drawing(1))

    assert len(other.pictures()) == 1
    assert not heard.ended.is_set()
    assert engine.waiting() == 0


def test_a_second_request_for_a_model_loads_nothing(engine: Engine) -> None:
    ask(engine, drawing(1, version=2)).pictures()
    before = engine.models.loads

    ask(engine, drawing(2, version=2)).pictures()

    assert engine.models.loads == before


def test_models_in_turn_in_memory_for_some_all_draw(folders: dict[int, Path]) -> None:
    with running(LocalFiles(folders)) as roomy:
        ask(roomy, drawing(1)).pictures()
        [size] = roomy.models.held().values()
    with running(LocalFiles(folders), budget=int(2.5 * size)) as engine:
        asked = [ask(engine, drawing(seed, version=1 + seed % 4)) for seed in range(12)]

        pictures = [one.pictures()[0].tobytes() for one in asked]

        assert len(set(pictures)) == 12
        assert sum(engine.models.held().values()) <= 2.5 * size
        # Oldest first: each turn of four loads again what went, and none is loaded twice in a turn.
        assert engine.models.loads <= 12


def test_a_model_that_needs_all_the_memory_is_not_kept_waiting_by_younger_requests(folders: dict[int, Path]) -> None:
    with running(LocalFiles(folders), budget=1) as engine:
        first, _ = submit(engine, drawing(*range(4), steps=30, shape=TOGETHER))
        first.wait_for(StepDone)
        second = ask(engine, drawing(1, version=2))
        # There is room for its pictures beside those of the first, and its model would stay for as long.
        third = ask(engine, drawing(*range(20, 24), steps=60, shape=TOGETHER))

        second.pictures()

        assert first.ended.is_set()
        assert not third.ended.is_set()
        third.pictures()


def test_while_a_model_is_loaded_others_draw(folders: dict[int, Path]) -> None:
    files = LocalFiles(folders)
    with running(files) as engine:
        ask(engine, drawing(1)).pictures()
        files.gate.clear()
        waits = ask(engine, drawing(1, version=2))

        assert len(ask(engine, drawing(2)).pictures()) == 1
        assert waits.messages == []
        files.gate.set()
        assert len(waits.pictures()) == 1


def test_the_next_model_is_loaded_while_one_draws(folders: dict[int, Path]) -> None:
    files = LocalFiles(folders)
    with running(files) as engine:
        first = ask(engine, drawing(*range(8), steps=40))
        first.wait_for(StepDone)
        second = ask(engine, drawing(1, version=2))
        while len(engine.models.held()) < 2:
            assert not first.ended.wait(0.01), "the second model was loaded only after the first request"

        assert len(second.pictures()) == 1


def test_a_model_that_is_gone_fails_its_requests_by_name_and_no_other(engine: Engine) -> None:
    gone, fine = ask(engine, drawing(1, version=99)), ask(engine, drawing(1))

    assert (gone.failure().code, gone.failure().reason) == ("blob_missing", "the model is gone")
    assert len(fine.pictures()) == 1
    assert ask(engine, drawing(1, version=99)).failure().code == "blob_missing"


def test_a_source_that_is_gone_fails_its_request_alone(engine: Engine) -> None:
    source: dict[str, Any] = {"operation": Operation.IMG2IMG, "source": "gone"}
    gone, fine = ask(engine, drawing(1, 2, 3, **source)), ask(engine, drawing(4, 5, 6))

    assert gone.failure().code == "blob_missing"
    assert len(fine.pictures()) == 3


def test_img2img_goes_on_from_its_source(engine: Engine) -> None:
    source: dict[str, Any] = {"operation": Operation.IMG2IMG, "source": "grey", "steps": 10}
    weak, strong = (ask(engine, drawing(1, strength=strength, **source)) for strength in (0.2, 1.0))

    plain = ask(engine, drawing(1, steps=10)).pictures()[0].astype(int)

    assert [one.steps for one in weak.messages if isinstance(one, StepDone)] == [2, 2]
    # With all of it replaced by noise little of the source is left.
    assert (
        np.abs(strong.pictures()[0].astype(int) - plain).mean() < np.abs(weak.pictures()[0].astype(int) - plain).mean()
    )


def test_inpainting_changes_nothing_outside_its_mask(engine: Engine) -> None:
    source: dict[str, Any] = {"operation": Operation.INPAINT, "source": "grey", "mask": "mask", "strength": 1.0}

    picture = ask(engine, drawing(1, **source)).pictures()[0]

    assert (picture[:, :32] == (90, 120, 150)).all()
    assert not (picture[:, 32:] == (90, 120, 150)).all(axis=-1).any()


def test_upscaling_needs_no_model(engine: Engine) -> None:
    larger: dict[str, Any] = {"operation": Operation.UPSCALE, "source": "grey", "width": 128, "height": 96}
    before = engine.models.loads

    picture = ask(engine, drawing(1, version=98, **larger)).pictures()[0]

    assert picture.shape == (96, 128, 3)
    assert engine.models.loads == before


def test_previews_are_sent_where_they_are_wanted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_reports, "PREVIEW_SECONDS", 0.0)
    with_previews, without = ask(engine, drawing(1), previews=True), ask(engine, drawing(1))

    with_previews.pictures()
    without.pictures()

    # Not of the last step, behind which the picture itself comes.
    assert len([one for one in with_previews.messages if isinstance(one, PreviewDrawn)]) == 2
    assert not any(isinstance(one, PreviewDrawn) for one in without.messages)


def test_more_urgent_requests_go_first(engine: Engine) -> None:
    order: list[str] = []
    done = threading.Event()
    asked = {
        "running": ask(engine, drawing(*range(1), steps=30)),
        "later": ask(engine, drawing(*range(8), steps=8, shape=ALONE), urgency=2),
        "soon": ask(engine, drawing(1, steps=8), urgency=0),
    }
    watchers = [
        threading.Thread(target=lambda name=name, one=one: (one.ended.wait(60), order.append(name)))
        for name, one in asked.items()
    ]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    done.set()

    assert order.index("soon") < order.index("later")


def test_a_call_that_finds_no_memory_is_made_again_for_one(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine_module.predict_together

    def small(family: Any, components: Any, trajectories: Any, shape: int) -> Any:
        if shape == TOGETHER:
            raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")
        return real(family, components, trajectories, shape)

    expected = ask(engine, drawing(1, exact=True)).pictures()[0]
    monkeypatch.setattr(engine_module, "predict_together", small)

    pictures = ask(engine, drawing(1, 2, 3, width=72)).pictures()
    again = ask(engine, drawing(1, 2, 3, 4, width=72))

    assert len(pictures) == 3
    assert len(again.pictures()) == 4
    assert again.shapes() == {ALONE}
    assert expected.shape == (64, 64, 3)


def test_a_call_that_fails_ends_its_requests_and_the_engine_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a kernel failed")

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "predict_together", broken)
        failed = ask(engine, drawing(1, 2, 3)).failure()

    assert failed.code == "job_failed"
    assert len(ask(engine, drawing(1)).pictures()) == 1


def test_models_that_nobody_uses_are_forgotten(folders: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "IDLE_LOOK_SECONDS", 0.05)
    with running(LocalFiles(folders), idle_seconds=0.0) as engine:
        ask(engine, drawing(1)).pictures()
        deadline = threading.Event()
        while engine.models.held():
            deadline.wait(0.05)

    with running(LocalFiles(folders)) as engine:
        ask(engine, drawing(1)).pictures()
        assert engine.rest() == 1
        assert engine.models.held() == {}


def test_what_a_picture_took_of_the_device_is_its_share_of_each_call(engine: Engine) -> None:
    heard = ask(engine, drawing(*range(8)))
    heard.pictures()

    drawn = [one for one in heard.messages if isinstance(one, PictureDrawn)]
    assert all(0 < one.busy_seconds < one.seconds for one in drawn)


def test_prompts_of_a_drawing_may_differ(engine: Engine) -> None:
    images = tuple(DrawnImage(prompt=prompt, seed=1) for prompt in ("a mug", "a car", "a tree"))

    pictures = ask(engine, drawing(1, images=images)).pictures()

    assert len({one.tobytes() for one in pictures.values()}) == 3


def test_weights_and_every_word_of_a_long_prompt_count_and_no_other_prompt_does(engine: Engine) -> None:
    long = "red blue green " * 66
    prompts = ["a red mug", "a (red:1.4) mug", f"{long} mug", f"{long} car", "a red mug BREAK in the snow"]
    images = tuple(DrawnImage(prompt=prompt, seed=1) for prompt in prompts)

    together = ask(engine, drawing(1, images=images, shape=TOGETHER)).pictures()

    assert len({one.tobytes() for one in together.values()}) == len(prompts)
    for number, image in enumerate(images):
        alone = ask(engine, drawing(1, images=(image,), shape=TOGETHER)).pictures()[0]
        assert alone.tobytes() == together[number].tobytes()

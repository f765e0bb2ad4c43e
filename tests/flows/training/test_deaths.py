"""kill -9 at a random moment, and between any two stages: a training ends with the bytes of an undisturbed one."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.starter.networks import write_tiny_model
from tests.flows.diffusion.families.tiny_sdxl import write_tiny_sdxl
from tests.flows.training.dying import (
    COMBINATIONS,
    FAMILIES,
    RESUME,
    exported,
    places,
    places_until_the_end,
    training_process,
)

log = logging.getLogger("tests.flows.training")

QUICK = (("sd1", "full"), ("sdxl", "lora"))
"""In `make test`: each family and each method once. What a death could spoil is the family's or the method's own."""
KILLS = 5
"""Of each of the four combinations: 20 in all."""
A_STEP_SECONDS = 0.1
"""About as long as a step takes with its checkpoint; what is random is where in it a process dies."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny base model of each family; tests only read them."""
    folders = {family: tmp_path_factory.mktemp("bases") / family for family in FAMILIES}
    write_tiny_model(folders["sd1"], seed=0)
    write_tiny_sdxl(folders["sdxl"])
    return folders


@dataclass(frozen=True)
class Trained:
    """A training that nothing disturbed, by what was trained how."""

    base: Path
    family: str
    method: str
    straight: dict[str, bytes]

    @property
    def what(self) -> tuple[Path, str, str]:
        return self.base, self.family, self.method


def a_seed() -> int:
    """Another one each time; what a failed test has printed can be given again in TEST_SEED."""
    seed = int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(2**32))
    log.warning("TEST_SEED=%d", seed)
    return seed


def trained_to_the_end(base: Path, family: str, method: str, work: Path) -> dict[str, bytes]:
    with training_process(base, family, method, work) as (process, heard):
        places_until_the_end(heard)
        process.join()
        assert process.exitcode == 0
    return exported(work)


def killed_at_a_random_moment(base: Path, family: str, method: str, work: Path, chance: random.Random) -> bool:
    """Whether it was still at work, a random part of a step after a random one of the places that it passes."""
    passed = chance.randrange(1, len(places()))
    with training_process(base, family, method, work) as (process, heard):
        reached = [heard.recv() for _ in range(passed)]
        time.sleep(chance.uniform(0, A_STEP_SECONDS))
        process.kill()
        process.join()
        log.warning("%s %s: killed after %s", family, method, reached[-1])
        return process.exitcode == -signal.SIGKILL


def kill_at(place: str, base: Path, family: str, method: str, work: Path) -> None:
    """The process comes to that place, and dies there."""
    with training_process(base, family, method, work, place) as (process, heard):
        reached = places_until_the_end(heard)
        process.join()
        log.warning("%s %s: dies at %s", family, method, place)
        assert reached[-1] == place
        assert process.exitcode == -signal.SIGKILL


@pytest.fixture(
    scope="module",
    params=[one if one in QUICK else pytest.param(one, marks=pytest.mark.soak) for one in COMBINATIONS],
    ids="-".join,
)
def trained(
    request: pytest.FixtureRequest, bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """A family and a method, and what a training that nothing disturbs exports."""
    family, method = request.param
    work = tmp_path_factory.mktemp("straight")
    return Trained(bases[family], family, method, trained_to_the_end(bases[family], family, method, work))


@pytest.mark.parametrize("kills", [1, pytest.param(KILLS, marks=pytest.mark.soak)])
def test_a_training_killed_at_random_moments_ends_byte_equal(trained: Trained, kills: int, tmp_path: Path) -> None:
    chance = random.Random(a_seed())
    died = tries = 0
    while died < kills:
        # Each in a training of its own, which then goes on to its end.
        work, tries = tmp_path / str(tries), tries + 1
        died += killed_at_a_random_moment(*trained.what, work, chance)
        assert trained_to_the_end(*trained.what, work) == trained.straight
    assert tries <= 3 * kills


@pytest.mark.parametrize("count", [1, pytest.param(len(places()), marks=pytest.mark.soak)], ids=["one", "every"])
def test_a_training_that_dies_between_stages_ends_byte_equal(trained: Trained, count: int, tmp_path: Path) -> None:
    chosen = places()
    if count == 1:
        chosen = [random.Random(a_seed()).choice([place for place in chosen if place != RESUME])]
    # One training that dies again and again, so that most deaths come after a resume.
    for place in chosen:
        kill_at(place, *trained.what, tmp_path)
    assert trained_to_the_end(*trained.what, tmp_path) == trained.straight

"""What the state machines of this folder share: scripts that die between two statements, faults to catch, sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from storage.errors import DarkroomError, NotFound
from storage.postgres.connection import Database, Query, Script
from tests.hypothesis_checks import ALL_HEALTH_CHECKS

T = TypeVar("T")

CRASHES = st.one_of(st.none(), st.none(), st.none(), st.integers(0, 4))
"""After how many statements the process dies; mostly it does not."""


class ProcessDied(BaseException):
    """The process was killed between two statements: nobody of our code may catch it."""


def dying(script: Query[T] | Script[T], after: int | None) -> Script[T]:
    """A script whose process dies after so many statements, unless it is done by then."""
    steps: Script[T] = iter(script) if isinstance(script, Query) else script
    try:
        query, done = next(steps), 0
        while True:
            if done == after:
                raise ProcessDied
            done += 1
            try:
                value = yield query
            except NotFound as error:
                query = steps.throw(error)
            else:
                query = steps.send(value)
    except StopIteration as end:
        return cast(T, end.value)


class Machine(RuleBasedStateMachine):
    """A machine over one database. `tables` are emptied before each run."""

    tables: tuple[str, ...] = ()

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        for table in self.tables:
            self.execute(f"delete from {table}")

    def execute(self, statement: str, **parameters: object) -> list[dict[str, Any]]:
        """The rows of a statement, committed."""
        return self.database.run(Query(statement, parameters, lambda rows: [dict(row) for row in rows]))

    def carry_out(
        self,
        script: Query[T] | Script[T],
        crash: int | None,
        refusal: type[DarkroomError] | None,
        effect: Callable[[T], object],
    ) -> None:
        """Run a script that must be refused so, or else has this effect on the model; one that dies has none."""
        try:
            result = self.database.run(dying(script, crash))
        except ProcessDied:
            return
        except DarkroomError as error:
            if type(error) is not refusal:
                raise AssertionError(f"{type(error).__name__} instead of {refusal}: {error}") from error
        else:
            assert refusal is None, f"{refusal} expected"
            effect(result)


def run(machine: Callable[[], Machine], examples: int, steps: int = 25) -> None:
    """So many runs of a machine, with the seed of the run unless a profile says otherwise."""
    run_state_machine_as_test(
        cast(type[Machine], machine),  # Hypothesis states a class; it calls whatever it is given
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=ALL_HEALTH_CHECKS,
            print_blob=True,
        ),
    )


@dataclass(frozen=True)
class Fault:
    """A hand-made fault: `was` in a named statement becomes `now`."""

    sql: MutableMapping[str, str]
    name: str
    was: str
    now: str

    @contextmanager
    def made(self) -> Iterator[None]:
        """The statement with the fault in it."""
        before = self.sql[self.name]
        assert self.was in before, f"'{self.was}' is not in {self.name}"
        self.sql[self.name] = before.replace(self.was, self.now)
        try:
            yield
        finally:
            self.sql[self.name] = before

    def __str__(self) -> str:
        return f"{self.name}: {self.was} > {self.now or 'nothing'}"


def fault(sql: object, name: str, was: str, now: str = "") -> Fault:
    """A fault in a statement of a repository."""
    return Fault(cast(MutableMapping[str, str], sql), name, was, now)


def assert_caught(machine: Callable[[], Machine], made: Fault, examples: int = 300) -> None:
    """The machine notices the fault: it fails, by its model or by what Postgres says."""
    wanted = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=ALL_HEALTH_CHECKS,
        print_blob=False,
    )
    with made.made():
        try:
            run_state_machine_as_test(cast(type[Machine], machine), settings=wanted)
        except Exception:  # noqa: BLE001 - whatever it is, the machine did not go through
            return
    pytest.fail(f"nobody noticed {made}")

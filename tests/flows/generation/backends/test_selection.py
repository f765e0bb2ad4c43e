"""Which backend draws, and who takes over: nothing is stored twice, nothing is paid twice."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest

from flows.generation.backends.selection import BackendSelection
from flows.generation.callbacks import DrawingCallbacks
from storage.errors import (
    BackendBroken,
    BackendRefused,
    BackendStalled,
    BackendUnavailable,
    BlobMissing,
    CancellationRequested,
    InvalidRequest,
    StoreUnavailable,
)
from storage.postgres.generation import backends
from storage.records.generation.circuits import FAILURES, BackendFault, CircuitState
from storage.stores import Stores
from tests.flows.generation.backends.toys import DRAWING, SECONDS, ScriptedBackend, drawn_by, ignored, picture

SILENT = BackendUnavailable("It does not respond.")
BROKEN = BackendBroken("It is no picture.")
STALLED = BackendStalled("Nothing moves.")
ALL = [0, 1, 2]


@pytest.fixture
def one() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
def two() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
def selection(module_stores: Stores, one: ScriptedBackend, two: ScriptedBackend) -> BackendSelection:
    """Of two, the first preferred. Rows of other tests are not read."""
    return selection_of(module_stores, one=one, two=two)


def selection_of(stores: Stores, **those: ScriptedBackend) -> BackendSelection:
    made = BackendSelection(stores, those)
    made.health.take_over([])
    return made


def open_circuit(selection: BackendSelection, name: str) -> None:
    """As if it had not responded some times in a row."""
    for _ in range(FAILURES):
        selection.health.failed(name, str(SILENT), unheard=True, since=float("inf"))
    assert selection.health.circuit(name) is CircuitState.OPEN


def test_the_first_one_draws_where_all_else_is_equal(selection: BackendSelection, two: ScriptedBackend) -> None:
    drawn = drawn_by(selection)

    assert drawn.pictures == [("one", number) for number in ALL]
    assert drawn.begun == ["one"]
    assert two.asked == []


def test_those_that_are_wanted_are_drawn_once_each(selection: BackendSelection, one: ScriptedBackend) -> None:
    assert drawn_by(selection, wanted=[2, 0, 2]).pictures == [("one", 2), ("one", 0)]
    assert one.asked == [("step", (2, 0))]
    assert drawn_by(selection, wanted=[]).begun == []


def test_the_one_with_fewer_pictures_to_draw_goes_first(selection: BackendSelection, one: ScriptedBackend) -> None:
    one.gate.clear()
    busy = threading.Thread(target=drawn_by, args=(selection,))
    busy.start()
    while not one.asked:
        busy.join(0.01)

    drawn = drawn_by(selection)

    one.gate.set()
    busy.join(SECONDS)
    assert drawn.begun == ["two"]
    assert drawn_by(selection).begun == ["one"]


def test_while_one_that_failed_draws_its_first_picture_others_are_drawn_there_too(
    selection: BackendSelection, one: ScriptedBackend
) -> None:
    open_circuit(selection, "one")
    selection.health.looked("one", one.facts())
    one.gate.clear()
    first = threading.Thread(target=drawn_by, args=(selection,), kwargs={"only": "one"})
    first.start()
    while not one.asked:
        first.join(0.01)
    first.join(0.1)
    opening = threading.Timer(0.1, one.gate.set)
    opening.start()
    second = drawn_by(selection, only="one")
    opening.join()
    first.join(SECONDS)
    assert (second.begun, second.error) == (["one"], None)


def test_one_that_lacks_something_is_passed_over(selection: BackendSelection, one: ScriptedBackend) -> None:
    one.lacks = {"model": "no file mugs.safetensors"}

    assert drawn_by(selection).begun == ["two"]


def test_what_no_backend_can_is_refused_by_field_and_backend(
    selection: BackendSelection, one: ScriptedBackend, two: ScriptedBackend
) -> None:
    one.lacks, two.lacks = {"model": "no file x", "scheduler": "no heun"}, {"model": "no file y"}

    error = drawn_by(selection).error

    assert isinstance(error, BackendRefused)
    assert error.fields == {"model": "one: no file x; two: no file y", "scheduler": "one: no heun"}


@pytest.mark.parametrize(("only", "reason"), [("two", "two: no x"), ("three", "'three' is not set up here")])
def test_a_request_may_name_the_only_one(
    selection: BackendSelection, two: ScriptedBackend, only: str, reason: str
) -> None:
    if only == "two":
        assert drawn_by(selection, only="two").begun == ["two"]
    two.lacks = {"backend": "no x"}

    drawn = drawn_by(selection, only=only)

    assert isinstance(drawn.error, BackendRefused)
    assert reason in drawn.error.fields["backend"]
    assert drawn.begun == []


def test_nothing_is_drawn_where_no_backend_is_set_up(module_stores: Stores) -> None:
    error = drawn_by(selection_of(module_stores)).error

    assert isinstance(error, BackendRefused)
    assert error.fields == {"backend": "none is set up here"}


def test_a_look_writes_what_each_is_and_one_that_hangs_holds_up_nobody(stores: Stores) -> None:
    well, hanging, faulty = ScriptedBackend(), ScriptedBackend(), ScriptedBackend(unheard=ValueError("a fault"))
    hanging.gate.clear()
    selection = BackendSelection(stores, {"well": well, "hanging": hanging, "faulty": faulty}, look_seconds=0.05)

    for _ in range(2):
        selection.look()

    rows = {row.name: row for row in stores.database.run(backends.list_all)}
    assert (rows["well"].version, rows["well"].failures) == ("1.0", 0)
    assert rows["hanging"].responded_at is None
    assert (rows["hanging"].failures, hanging.looks) == (1, 1), "it is not asked a second time meanwhile"
    assert (rows["faulty"].failures, faulty.looks) == (2, 2)
    assert rows["faulty"].reason is BackendFault.NO_RESPONSE
    assert "ValueError" in selection.health.reason("faulty")
    hanging.gate.set()
    while not rows["hanging"].responded_at:
        selection.look()
        rows = {row.name: row for row in stores.database.run(backends.list_all)}


def test_a_look_at_one_that_draws_counts_no_failure(stores: Stores) -> None:
    busy = ScriptedBackend()
    selection = BackendSelection(stores, {"busy": busy})
    drawing = selection.draw(DRAWING, DrawingCallbacks(), key="step", wanted=ALL, urgency=0, begins=ignored)
    next(drawing)
    busy.unheard = SILENT

    selection.look()
    [row] = stores.database.run(backends.list_all)
    drawing.close()
    selection.look()
    [later] = stores.database.run(backends.list_all)

    assert (row.failures, row.drawing) == (0, 1)
    assert (later.failures, later.drawing) == (1, 0)


def test_a_selection_that_is_closed_draws_nothing(stores: Stores) -> None:
    selection = BackendSelection(stores, {"one": ScriptedBackend()})
    drawing = selection.draw(DRAWING, DrawingCallbacks(), key="step", wanted=ALL, urgency=0, begins=ignored)
    next(drawing)
    selection.look()
    selection.close()

    [row] = stores.database.run(backends.list_all)
    assert row.drawing == 0


@pytest.mark.parametrize("why", [SILENT, BROKEN], ids=["silent", "broken"])
def test_before_anything_was_given_the_next_one_is_asked_at_once(
    selection: BackendSelection, one: ScriptedBackend, why: Exception
) -> None:
    one.unheard = why

    assert drawn_by(selection).begun == ["two"]


def test_one_that_refuses_when_it_is_given_the_drawing_is_passed_over(
    selection: BackendSelection, one: ScriptedBackend, two: ScriptedBackend
) -> None:
    one.fails = BackendRefused({"steps": "too many"})

    drawn = drawn_by(selection)

    assert (drawn.begun, drawn.pictures) == (["one", "two"], [("two", number) for number in ALL])
    two.lacks = {"model": "none"}
    refused = drawn_by(selection).error
    assert isinstance(refused, BackendRefused)
    assert refused.fields == {"steps": "one: too many", "model": "two: none"}
    assert selection.health.circuit("one") is CircuitState.CLOSED


def test_those_that_can_and_do_not_respond_are_waited_for(
    selection: BackendSelection, one: ScriptedBackend, two: ScriptedBackend
) -> None:
    one.lacks, two.unheard = {"model": "none"}, SILENT

    error = drawn_by(selection).error

    assert isinstance(error, BackendUnavailable)
    assert "two: It does not respond." in str(error)


@pytest.mark.parametrize("freely", [True, False])
def test_what_was_given_to_one_that_is_lost_stays_there(
    selection: BackendSelection, one: ScriptedBackend, two: ScriptedBackend, freely: bool
) -> None:
    one.repeats_freely, one.fails, one.fails_at = freely, SILENT, 1

    lost = drawn_by(selection)
    one.fails = None
    again = drawn_by(selection, wanted=[1, 2], held_by="one")

    assert (lost.pictures, lost.error) == ([("one", 0)], SILENT)
    assert again.pictures == [("one", 1), ("one", 2)]
    assert one.asked == [("step", (0, 1, 2)), ("step", (1, 2))]
    assert two.asked == []


def test_the_one_that_holds_it_is_asked_even_while_it_has_more_to_draw(
    selection: BackendSelection, two: ScriptedBackend
) -> None:
    assert drawn_by(selection, held_by="two").begun == ["two"]


def test_one_that_repeats_freely_is_left_when_its_circuit_opens(
    selection: BackendSelection, one: ScriptedBackend
) -> None:
    one.unheard = SILENT
    outcomes = [drawn_by(selection, held_by="one") for _ in range(FAILURES)]

    assert [type(outcome.error) for outcome in outcomes[:-1]] == [BackendUnavailable] * (FAILURES - 1)
    assert outcomes[-1].begun == ["two"]
    assert selection.health.circuit("one") is CircuitState.OPEN
    one.unheard = None
    assert drawn_by(selection, held_by="one").begun == ["two"]


def test_one_that_is_paid_and_does_not_respond_is_waited_for(
    selection: BackendSelection, one: ScriptedBackend, two: ScriptedBackend
) -> None:
    one.repeats_freely = False
    open_circuit(selection, "one")

    assert isinstance(drawn_by(selection, held_by="one").error, BackendUnavailable)
    assert two.asked == []
    assert drawn_by(selection).begun == ["two"], "it holds nothing of this one"


@pytest.mark.parametrize(
    "changes", [{"fails": BROKEN}, {"lacks": {"model": "gone"}}, {"fails": BackendRefused({"steps": "too many"})}]
)
def test_what_is_paid_is_drawn_by_nobody_else(
    selection: BackendSelection, one: ScriptedBackend, two: ScriptedBackend, changes: dict[str, Any]
) -> None:
    one.repeats_freely = False
    for name, value in changes.items():
        setattr(one, name, value)

    assert isinstance(drawn_by(selection, held_by="one").error, BackendBroken | BackendRefused)
    assert two.asked == []


@pytest.mark.parametrize("why", [BROKEN, STALLED], ids=["broken", "stalled"])
def test_what_is_paid_and_broken_in_the_first_attempt_is_drawn_by_nobody_else(
    selection: BackendSelection, one: ScriptedBackend, two: ScriptedBackend, why: Exception
) -> None:
    one.repeats_freely, one.fails = False, why

    assert drawn_by(selection).error is why
    assert two.asked == []


def test_one_that_broke_something_has_stopped_before_another_begins(
    selection: BackendSelection, one: ScriptedBackend
) -> None:
    one.sends = [picture(0, width=24), picture(1), picture(2)]
    stopped = list[tuple[str, int]]()

    drawing = selection.draw(
        DRAWING,
        DrawingCallbacks(),
        key="step",
        wanted=ALL,
        urgency=0,
        begins=lambda name: stopped.append((name, one.closed)),
    )

    assert [name for name, _ in drawing] == ["two"] * 3
    assert stopped == [("one", 0), ("two", 1)]


def test_one_that_the_settings_name_no_more_is_left(selection: BackendSelection) -> None:
    assert drawn_by(selection, held_by="gone").begun == ["one"]


@pytest.mark.parametrize("why", [BROKEN, STALLED], ids=["broken", "stalled"])
def test_what_one_broke_or_left_lying_is_drawn_by_another(
    selection: BackendSelection, one: ScriptedBackend, two: ScriptedBackend, why: Exception
) -> None:
    one.fails, one.fails_at = why, 1

    drawn = drawn_by(selection)

    assert drawn.pictures == [("one", 0), ("two", 1), ("two", 2)]
    assert drawn.begun == ["one", "two"]
    assert two.asked == [("step", (1, 2))]
    two.lacks = {"model": "none"}
    assert drawn_by(selection).error is why


@pytest.mark.parametrize(
    ("sent", "match"),
    [
        ([picture(0, width=24)], "24 x 8 pixels"),
        ([picture(0, mode="L")], r"\(L\) instead"),
        ([picture(5)], "picture 5, which nobody waits for"),
        ([picture(0), picture(0)], "picture 0, which nobody waits for"),
        ([picture(1)], r"ended without pictures \[0, 2\]"),
        ([], r"without pictures \[0, 1, 2\]"),
    ],
)
def test_a_backend_that_returns_something_else_is_broken(
    module_stores: Stores, one: ScriptedBackend, sent: list[Any], match: str
) -> None:
    one.sends = sent
    selection = selection_of(module_stores, one=one)

    with pytest.raises(BackendBroken, match=match):
        raise drawn_by(selection).error or AssertionError
    assert selection.health.reason("one") != "it does not respond"


@pytest.mark.parametrize(
    "why",
    [
        CancellationRequested("The owner asked to stop."),
        InvalidRequest({"mask": "has another size"}),
        BlobMissing("The source is gone."),
        StoreUnavailable("The blob store does not respond."),
    ],
    ids=lambda why: type(why).__name__,
)
def test_what_is_not_the_backends_fault_counts_for_nothing(
    selection: BackendSelection, one: ScriptedBackend, two: ScriptedBackend, why: Exception
) -> None:
    one.fails = why
    for _ in range(FAILURES + 1):
        assert drawn_by(selection).error is why

    assert selection.health.circuit("one") is CircuitState.CLOSED
    assert two.asked == []


def test_a_callback_that_raises_ends_the_drawing_and_whoever_leaves_cancels_it(
    selection: BackendSelection, one: ScriptedBackend
) -> None:
    def check() -> None:
        raise CancellationRequested("The owner asked to stop.")

    assert isinstance(drawn_by(selection, callbacks=DrawingCallbacks(check=check)).error, CancellationRequested)
    drawing = selection.draw(DRAWING, DrawingCallbacks(), key="step", wanted=ALL, urgency=0, begins=ignored)
    next(drawing)
    assert selection.health.load("one") == 2
    drawing.close()
    assert one.closed == 1
    assert (selection.health.load("one"), selection.health.drawings("one")) == (0, 0)


def test_nothing_is_given_to_a_backend_that_may_not_begin(selection: BackendSelection, one: ScriptedBackend) -> None:
    def begins(name: str) -> None:
        raise CancellationRequested(name)

    with pytest.raises(CancellationRequested):
        list(selection.draw(DRAWING, DrawingCallbacks(), key="step", wanted=ALL, urgency=0, begins=begins))
    assert one.asked == []
    assert selection.health.drawings("one") == 0


def test_a_picture_has_the_drawings_own_size(selection: BackendSelection, one: ScriptedBackend) -> None:
    one.sends = [picture(0, width=32)]
    wide = msgspec.structs.replace(DRAWING, width=32, images=DRAWING.images[:1])

    assert drawn_by(selection, wide).pictures == [("one", 0)]

"""The engine's process and its door: a real one, asked through its socket."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from flows.generation.engine.client import EngineClient
from flows.generation.engine.messages import DrawRequest, PictureDrawn, StepDone
from flows.starter.networks import write_tiny_model
from storage.blobs.store import BlobStore
from storage.errors import BlobMissing, InvalidRequest, JobCannotSucceed, StoreUnavailable
from storage.records.generation.drawings import DrawnModel
from storage.settings import BlobSettings
from tests.flows.generation.engine.bench import drawing

PROJECT = Path(__file__).resolve().parents[4]


class EngineProcess:
    """`python -m flows.generation.engine` on a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.process = folder, None
        self.socket = folder / "engine" / "engine.sock"
        self.client = EngineClient(self.socket)

    def start(self) -> None:
        environment = {**os.environ, "DARKROOM_DATA_FOLDER": str(self.folder), "DARKROOM_JOBS__THREADS": "1"}
        with (self.folder / "engine.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.generation.engine"], cwd=PROJECT, env=environment, stderr=log
            )
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(StoreUnavailable):
                self.client.status()
                return
            assert self.process.poll() is None, (self.folder / "engine.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(30)


@pytest.fixture(scope="module")
def model(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> DrawnModel:
    """A tiny model in the engine's blob store."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder, seed=0)
    blobs = BlobStore(BlobSettings(url=(engine.folder / "blobs").as_uri()), renew=lambda _: 0)
    files = {
        str(file.relative_to(folder)): blobs.put(file.read_bytes()).sha256
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    return DrawnModel(version_id=1, family="sd1", files=files)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    one = EngineProcess(tmp_path_factory.mktemp("e"))
    one.start()
    yield one
    assert one.process is not None
    one.process.kill()
    one.process.wait(30)


def drawn(engine: EngineProcess, request: DrawRequest) -> list[PictureDrawn]:
    return [message for message in engine.client.draw(request) if isinstance(message, PictureDrawn)]


def test_an_engine_draws_what_the_blob_store_has_and_says_what_it_holds(
    engine: EngineProcess, model: DrawnModel
) -> None:
    request = DrawRequest(drawing=drawing(1, 2, model=model), wanted=(0, 1))

    first, second = drawn(engine, request), drawn(engine, request)

    assert [len(one.pixels) for one in first] == [64 * 64 * 3] * 2
    assert [one.pixels for one in first] == [one.pixels for one in second]
    status = engine.client.status()
    assert (status["device"], status["loads"], status["waiting"], len(status["models"])) == ("cpu", 1, 0, 1)
    assert engine.client.rest() == 1
    assert engine.client.status()["models"] == {}


def test_only_this_user_can_open_its_socket(engine: EngineProcess) -> None:
    assert stat.S_IMODE(engine.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(engine.socket.parent.stat().st_mode) == 0o700


def test_who_hangs_up_cancels(engine: EngineProcess, model: DrawnModel) -> None:
    long = DrawRequest(drawing=drawing(*range(64), model=model, steps=100), wanted=tuple(range(64)))
    before = engine.client.status()["calls"]
    messages = engine.client.draw(long)
    assert any(isinstance(message, StepDone) for message in messages)

    messages.close()

    while engine.client.status()["waiting"]:
        time.sleep(0.02)
    # Eight pictures to a call, whole it would take 800.
    assert engine.client.status()["calls"] - before < 400


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xc1", msgspec.msgpack.encode({"drawing": 1}), b"x" * (17 * 1024 * 1024)),
        b"\x81\xa1a" + b"\x91" * 100_000 + b"\xc0",
    ],
    ids=["empty", "no MessagePack", "another shape", "too long", "too deep"],
)
def test_what_is_no_request_is_refused(engine: EngineProcess, content: bytes) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(engine.socket)), base_url="http://engine") as client:
        response = client.post("/draw", content=content)

    assert response.status_code == 422
    assert "The engine cannot read the request" in response.json()["detail"]


def test_what_cannot_be_drawn_is_refused_with_its_fields(engine: EngineProcess, model: DrawnModel) -> None:
    with pytest.raises(InvalidRequest, match="pictures that the drawing lacks") as refusal:
        drawn(engine, DrawRequest(drawing=drawing(1, model=model, width=0), wanted=(0, 1)))

    assert list(refusal.value.fields) == ["wanted", "width"]


def test_a_model_that_is_gone_is_named(engine: EngineProcess) -> None:
    gone = DrawnModel(version_id=2, family="sd1", files={"unet/config.json": "0" * 64})

    with pytest.raises((JobCannotSucceed, BlobMissing), match="0000 is gone"):
        drawn(engine, DrawRequest(drawing=drawing(1, model=gone), wanted=(0,)))


def test_an_engine_that_is_killed_is_unavailable_and_the_next_one_draws_the_same(
    engine: EngineProcess, model: DrawnModel
) -> None:
    request = DrawRequest(drawing=drawing(1, model=model), wanted=(0,))
    [before] = drawn(engine, request)
    long = DrawRequest(drawing=drawing(*range(8), model=model, steps=200), wanted=tuple(range(8)))
    messages = engine.client.draw(long)
    next(messages)

    engine.end(signal.SIGKILL)

    with pytest.raises(StoreUnavailable):
        list(messages)
    with pytest.raises(StoreUnavailable, match="engine does not respond"):
        engine.client.status()
    engine.start()
    [after] = drawn(engine, request)
    assert after.pixels == before.pixels


def test_asked_to_stop_it_ends_with_its_socket(engine: EngineProcess, model: DrawnModel) -> None:
    long = DrawRequest(drawing=drawing(*range(8), model=model, steps=900), wanted=tuple(range(8)))
    messages = engine.client.draw(long)
    next(messages)
    ended: list[BaseException] = []

    def read() -> None:
        try:
            list(messages)
        except StoreUnavailable as error:
            ended.append(error)

    reader = threading.Thread(target=read)
    reader.start()

    assert engine.end(signal.SIGTERM) == 0

    reader.join(30)
    assert len(ended) == 1
    assert not engine.socket.exists()

"""The backend on a real ComfyUI: the contract of every backend, cancels, repeats, and a server that dies."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import msgspec
import pytest
import torch
from safetensors.torch import save_file

from flows.generation.backends.comfyui import ComfyuiBackend
from flows.generation.callbacks import DrawingCallbacks
from flows.generation.comfyui.address import ComfyAddress
from flows.generation.comfyui.backend import ComfyBackend
from flows.generation.comfyui.prompts import prompt_id_of
from storage.errors import BackendBroken, BackendRefused, BackendUnavailable, InvalidRequest, JobLost
from storage.records.generation.comfyui.comfy_models import adapter_name
from storage.records.generation.drawings import Drawing, DrawnAdapter, DrawnModel, Operation
from storage.records.generation.schedulers import SchedulerSettings
from storage.stores import Stores
from tests.comfyui import ComfyServer
from tests.flows.generation.comfyui.conftest import (
    MASK,
    NAMES,
    PEERS_MODEL,
    QUICK,
    SOURCE,
    STARTER_VERSION,
    TINY_VERSION,
    drawing,
    picture_named,
    pictures,
)
from tests.flows.generation.comfyui.scripted_peer import ScriptedPeer
from tests.flows.generation.drawing_contract import Drawer, DrawingContract, a_drawing, numbered, through_selection


def queued(url: str) -> int:
    """How many prompts wait or are drawn."""
    queue = httpx.get(f"{url}/api/queue", trust_env=False).json()
    return len(queue["queue_running"]) + len(queue["queue_pending"])


def times_drawn(server: ComfyServer, prompt_id: str) -> int:
    """How often a prompt is in the history and the queue."""
    history = httpx.get(f"{server.url}/api/history", trust_env=False).json()
    queue = httpx.get(f"{server.url}/api/queue", trust_env=False).json()
    waiting = [item[1] for item in (*queue["queue_running"], *queue["queue_pending"])]
    return [*history, *waiting].count(prompt_id)


class TestComfyUi(DrawingContract):
    """Noise and DDIM are those of our sampler; the VAE's pixels are cut off, not rounded: 9 levels were measured."""

    @pytest.fixture
    def drawer(self, real: ComfyBackend, comfyui_server: ComfyServer, module_stores: Stores) -> Drawer:
        draw = through_selection(module_stores, "comfyui", ComfyuiBackend(real))
        return Drawer(draw, STARTER_VERSION, TINY_VERSION, 16, 1, lambda: queued(comfyui_server.url))


def test_a_repeat_finds_the_picture_and_another_key_draws_its_own(
    real: ComfyBackend, comfyui_server: ComfyServer
) -> None:
    wanted = a_drawing(TINY_VERSION, 51, 52)
    before = httpx.get(f"{comfyui_server.url}/api/prompt", trust_env=False).json()
    first = numbered(real.draw(wanted, key="step-1"))
    started = list[int]()
    again = numbered(real.draw(wanted, DrawingCallbacks(step=lambda *done: started.append(1)), key="step-1"))

    assert {number: one.tobytes() for number, one in again.items()} == {n: one.tobytes() for n, one in first.items()}
    assert started == []
    assert [times_drawn(comfyui_server, prompt_id_of(wanted, number, "step-1")) for number in (0, 1)] == [1, 1]
    other = numbered(real.draw(wanted, key="step-2", wanted=[1]))
    assert list(other) == [1]
    assert times_drawn(comfyui_server, prompt_id_of(wanted, 0, "step-2")) == 0
    assert httpx.get(f"{comfyui_server.url}/api/prompt", trust_env=False).json() == before


def test_an_attempt_joins_what_an_earlier_one_submitted(real: ComfyBackend, comfyui_server: ComfyServer) -> None:
    wanted, steps = a_drawing(TINY_VERSION, 61, steps=30), list[int]()

    def lose(*_: object) -> None:
        raise JobLost("Another attempt has the job.")

    with pytest.raises(JobLost):
        numbered(real.draw(wanted, DrawingCallbacks(step=lose), key="step"))
    assert queued(comfyui_server.url) == 1
    [picture] = real.draw(wanted, DrawingCallbacks(step=lambda _, done, __: steps.append(done)), key="step")
    assert picture.image.size == (64, 64)
    assert times_drawn(comfyui_server, prompt_id_of(wanted, 0, "step")) == 1


def test_a_picture_whose_file_is_gone_is_saved_again(
    real: ComfyBackend, comfyui_server: ComfyServer, comfyui_folder: Path
) -> None:
    wanted = a_drawing(TINY_VERSION, 55)
    [picture] = real.draw(wanted, key="one")
    for file in (comfyui_folder / "base" / "temp").iterdir():
        file.unlink()
    # One is in the history, the other in ComfyUI's cache of what nodes made.
    for key in ("one", "two"):
        assert numbered(real.draw(wanted, key=key))[0].tobytes() == picture.image.tobytes()
        assert times_drawn(comfyui_server, prompt_id_of(wanted, 0, key)) == 1


def test_adapters_clip_skip_and_rescale_change_a_picture(real: ComfyBackend, comfyui_folder: Path) -> None:
    lora = DrawnAdapter(version_id=5, sha256="0123456789abcdef" * 4, strength=1.0)
    folder = comfyui_folder / "base" / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    layer, draw = "lora_unet_input_blocks_1_1_proj_in", torch.Generator().manual_seed(0)
    tensors = {
        f"{layer}.lora_down.weight": torch.randn(2, 32, 1, 1, generator=draw),
        f"{layer}.lora_up.weight": torch.randn(32, 2, 1, 1, generator=draw),
    }
    save_file(tensors, folder / adapter_name(lora.sha256))
    weak = msgspec.structs.replace(lora, strength=0.1)
    # The tiny model's pictures are nearly of one colour, so clip skip is seen to run, not to show.
    chains = ((), (lora,), (weak,), (lora, weak))
    adapted = [drawn(real, a_drawing(TINY_VERSION, 56, adapters=chain, clip_skip=len(chain))) for chain in chains]
    rescaled = [drawn(real, a_drawing(STARTER_VERSION, 56, guidance_rescale=rescale)) for rescale in (0.0, 0.9)]
    assert len(set(adapted)) == len(chains)
    assert len(set(rescaled)) == 2


def drawn(backend: ComfyBackend, wanted: Drawing) -> bytes:
    """The pixels of a drawing of one picture."""
    [picture] = backend.draw(wanted)
    return picture.image.tobytes()


def test_what_comfyui_refuses_is_named_by_the_requests_fields(real: ComfyBackend) -> None:
    with pytest.raises(BackendRefused) as refusal:
        numbered(real.draw(a_drawing(TINY_VERSION, 71, guidance_scale=200.0, clip_skip=30)))
    assert refusal.value.fields == {
        "clipSkip": "ComfyUI says: Value -30 smaller than min of -24 (stop_at_clip_layer)",
        "guidanceScale": "ComfyUI says: Value 200.0 bigger than max of 100.0 (cfg)",
    }


def test_a_long_queue_is_reported(real: ComfyBackend, comfyui_server: ComfyServer) -> None:
    other = ComfyBackend(ComfyAddress(url=comfyui_server.url), picture_named, names=NAMES)
    positions, begun = list[int](), threading.Event()
    occupied = threading.Thread(
        target=lambda: numbered(
            other.draw(a_drawing(TINY_VERSION, 81, steps=30), DrawingCallbacks(step=lambda *_: begun.set()))
        )
    )
    occupied.start()
    assert begun.wait(20)
    numbered(real.draw(a_drawing(TINY_VERSION, 82), DrawingCallbacks(queued=positions.append)))
    occupied.join(20)
    other.close()
    assert positions[0] == 1


def test_pictures_are_submitted_two_at_a_time_and_come_in_order(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    drawn = backend.draw(drawing(images=pictures(1, 2, 3, 4)))

    assert next(drawn).number == 0
    assert len(peer.submitted) == 2
    assert [one.number for one in drawn] == [1, 2, 3]
    seeds = [one["prompt"]["sampler"]["inputs"]["seed"] for one in peer.submitted]
    assert seeds == [1, 2, 3, 4]
    assert len({one["prompt_id"] for one in peer.submitted}) == 4


def test_nothing_is_asked_for_when_nothing_is_left_to_draw(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    assert list(backend.draw(drawing(), wanted=[])) == []
    assert peer.requests == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scheduler": SchedulerSettings(name="heun")}, "scheduler"),
        ({"scheduler": SchedulerSettings(eta=0.5)}, "scheduler"),
        ({"scheduler": SchedulerSettings(name="best")}, "scheduler"),
        ({"adapters": (DrawnAdapter(version_id=5, sha256="a" * 64),)}, "adapters"),
        ({"model": DrawnModel(version_id=6, family="sd1", files={})}, "model"),
    ],
)
def test_what_is_missing_is_refused_before_anything_is_submitted(
    backend: ComfyBackend, peer: ScriptedPeer, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(BackendRefused) as refusal:
        list(backend.draw(drawing(**changes)))
    assert list(refusal.value.fields) == [field]
    assert peer.submitted == []
    assert backend.lacking(drawing(**changes)) == refusal.value.fields


def test_a_file_that_was_copied_a_moment_ago_is_found(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    peer.script.bodies["models/checkpoints"] = b"[]"
    assert backend.lacking(drawing()) == {"model": "no file mugs.safetensors in its models/checkpoints for version 1"}
    del peer.script.bodies["models/checkpoints"]
    assert backend.lacking(drawing()) == {}
    asked = peer.requests.count("GET object_info")
    assert [one.number for one in backend.draw(drawing())] == [0]
    assert peer.requests.count("GET object_info") == asked


def test_whether_it_is_there_is_asked_each_time_and_what_it_can_do_now_and_then(
    backend: ComfyBackend, peer: ScriptedPeer
) -> None:
    whole = ComfyuiBackend(backend)
    facts = [whole.facts() for _ in range(2)]

    assert facts[0] == facts[1]
    assert facts[0].version == facts[0].capabilities["version"]
    assert facts[0].capabilities["checkpoints"] == ["mugs.safetensors"]
    assert peer.requests.count("GET object_info") == 1
    peer.script.statuses["system_stats"] = 500
    with pytest.raises(BackendUnavailable, match="status 500"):
        whole.facts()


def test_threads_that_ask_what_it_can_do_ask_it_once(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    ready = threading.Barrier(4)

    def ask(_: int) -> str:
        ready.wait()
        return backend.capabilities(fresh=True).version

    with ThreadPoolExecutor(4) as pool:
        versions = set(pool.map(ask, range(4)))

    assert len(versions) == 1
    assert peer.requests.count("GET object_info") < 4
    peer.script.statuses["system_stats"] = 500
    with pytest.raises(BackendUnavailable):
        backend.capabilities(fresh=True)
    peer.script.statuses.clear()
    assert backend.capabilities(fresh=True).version == versions.pop()


def test_a_source_and_a_mask_are_sent_under_names_of_their_bytes(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    wanted = drawing(operation=Operation.INPAINT, source=SOURCE, mask=MASK)
    for key in ("one", "two"):
        list(backend.draw(wanted, key=key))

    assert len(peer.uploads) == 2
    graph = peer.submitted[0]["prompt"]
    sent = {graph["source"]["inputs"]["image"], graph["mask"]["inputs"]["image"]}
    assert sent == {f"darkroom/{name}" for name in peer.uploads}


def test_a_mask_of_another_size_than_its_source_is_refused(peer: ScriptedPeer) -> None:
    made = ComfyBackend(
        ComfyAddress(url=peer.url),
        lambda sha256: picture_named(sha256) if sha256 == SOURCE else picture_named(sha256).resize((32, 64)),
        names=PEERS_MODEL,
        limits=QUICK,
    )
    with pytest.raises(InvalidRequest, match="mask: has 32 x 64 pixels; give it the source's 64 x 64"):
        list(made.draw(drawing(operation=Operation.INPAINT, source=SOURCE, mask=MASK)))
    made.close()
    assert peer.submitted == []


def test_an_error_500_after_drawing_costs_nothing_twice(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    peer.script.after = 500

    assert [one.number for one in backend.draw(drawing())] == [0]
    assert [one.number for one in backend.draw(drawing())] == [0]
    assert len(peer.submitted) == len(peer.drawn) == 1


def test_a_connection_lost_after_drawing_costs_nothing_twice(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    peer.script.after = 500
    peer.script.statuses["history"] = 500
    # The look before submitting fails: nothing is submitted blindly.
    with pytest.raises(BackendUnavailable, match="status 500"):
        list(backend.draw(drawing()))
    assert peer.submitted == []
    peer.script.statuses.clear()
    assert [one.number for one in backend.draw(drawing())] == [0]
    assert len(peer.drawn) == 1


def test_a_picture_that_failed_is_named_without_what_the_error_says(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    peer.script.fails = True
    with pytest.raises(BackendBroken, match=r"node sampler \(torch.OutOfMemoryError\)") as error:
        list(backend.draw(drawing()))
    assert "secret" not in str(error.value)
    peer.script.fails = False
    assert [one.number for one in backend.draw(drawing())] == [0]
    assert len(peer.drawn) == 2


def broken(wanted: Drawing, backend: ComfyBackend, match: str) -> None:
    with pytest.raises(BackendBroken, match=match):
        list(backend.draw(wanted))


def test_a_broken_picture_is_not_found_again(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    whole = peer.script.pictures
    peer.script.pictures = [whole[0][:-40]]
    broken(drawing(), backend, "cannot be read")
    peer.script.pictures = whole * 2
    broken(drawing(), backend, "drew 2 pictures instead of one")
    peer.script.pictures = []
    broken(drawing(), backend, "drew 0 pictures instead of one")
    peer.script.pictures = whole
    assert [one.number for one in backend.draw(drawing())] == [0]
    assert len(peer.drawn) == 4


def test_what_else_was_submitted_is_taken_back_after_a_broken_picture(
    backend: ComfyBackend, peer: ScriptedPeer
) -> None:
    backend.capabilities()
    peer.script.pictures = [b"no picture"]
    peer.script.starts = False
    drawn = backend.draw(drawing(images=pictures(1, 2)), DrawingCallbacks(queued=lambda _: peer.end(first(peer))))
    with pytest.raises(BackendBroken, match="cannot be read"):
        next(drawn)
    assert (len(peer.submitted), peer.queue, len(peer.drawn)) == (2, {}, 1)


def first(peer: ScriptedPeer) -> str:
    """The prompt that was submitted first."""
    return str(peer.submitted[0]["prompt_id"])

"""What is kept of VAE and text encoders changes no byte of a training, and lets it begin without either."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from transformers import CLIPTextModel

from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.protocol import Components
from flows.training.callbacks import Watch
from flows.training.fit import fit
from flows.training.methods.frozen import FrozenTensors
from flows.training.photos.encodings import EncodingCache, deferred_parts, part_hashes
from flows.training.photos.latents import encode_for
from flows.upkeep.retention.folder_rules import ENCODINGS_OF_NO_PHOTO
from storage.blobs.cached_files import CachedFiles
from storage.records.jobs.training import TrainingRecipe
from tests.flows.diffusion.families.tiny_sdxl import write_tiny_sdxl
from tests.flows.training.photos.test_latents import photos
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, pictures, recipe

PARTS = {"vae": "v" * 64, "text_encoder": "t" * 64, "tokenizer": "k" * 64}
SOURCES = [character * 64 for character in "abcd"]
EVERYTHING: dict[str, Any] = {
    "steps": 3,
    "token_learning_rate": 0.0,
    "bucketing": True,
    "random_crop": True,
    "cached_crops": 2,
    "random_flip": True,
    "caption_dropout": 0.3,
    "checkpoint_every": 99,
}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that were read, by their classes."""
    found: list[str] = []

    def counted(kind: Any) -> None:
        original: Callable[..., Any] = kind.from_pretrained

        def read(*arguments: Any, **options: Any) -> Any:
            found.append(kind.__name__)
            return original(*arguments, **options)

        monkeypatch.setattr(kind, "from_pretrained", read)

    counted(AutoencoderKL)
    counted(CLIPTextModel)
    return found


def trained(
    base: Path, work: Path, wanted: TrainingRecipe, place: Path | None, watch: Watch | None = None
) -> dict[str, torch.Tensor]:
    """The weights of a training with the cache of a place, or without one."""
    torch.set_num_threads(1)
    cache = EncodingCache(CachedFiles(place), PARTS, FAMILY, wanted) if place else None
    components = FAMILY.load(base, deferred_parts(FAMILY, wanted))
    captions = ["a photo of a sks mug", "", "a photo of a sks mug, red", "a photo of a sks mug, red"]
    images = encode_for(
        wanted, FAMILY, components, photos(), pictures(3, "class"), prompts=captions, cache=cache, sources=SOURCES
    )
    work.mkdir()
    fit(
        wanted,
        FAMILY,
        components,
        images,
        recipe_hash="r",
        newest=None,
        checkpoints=KeptCheckpoints(work / "kept"),
        work_folder=work,
        watch=watch,
        encodings=cache,
    )
    return {
        f"{name}.{key}": tensor
        for name in ("unet", "text_encoder" if wanted.text_encoder_learning_rate else "unet")
        for key, tensor in components.modules[name].state_dict().items()
    }


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_warm_cache_makes_the_same_bytes_and_loads_neither_vae_nor_text_encoder(
    tiny_model: Path, tmp_path: Path, loads: list[str], precision: str
) -> None:
    wanted = recipe(**EVERYTHING, precision=precision)
    without = trained(tiny_model, tmp_path / "none", wanted, None)
    assert sorted(loads) == ["AutoencoderKL", "CLIPTextModel"]
    loads.clear()
    cold = trained(tiny_model, tmp_path / "cold", wanted, tmp_path / "cache")
    assert sorted(loads) == ["AutoencoderKL", "CLIPTextModel"]
    loads.clear()
    warm = trained(tiny_model, tmp_path / "warm", wanted, tmp_path / "cache")
    assert loads == []
    assert_equal(without, cold)
    assert_equal(cold, warm)


def test_a_damaged_entry_is_made_again(tiny_model: Path, tmp_path: Path, loads: list[str]) -> None:
    wanted = recipe(**EVERYTHING)
    cold = trained(tiny_model, tmp_path / "cold", wanted, tmp_path / "cache")
    before = {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    for path in before:
        path.write_bytes(path.read_bytes()[:-4] + b"torn")
    loads.clear()
    assert_equal(cold, trained(tiny_model, tmp_path / "again", wanted, tmp_path / "cache"))
    assert sorted(loads) == ["AutoencoderKL", "CLIPTextModel"]
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("steps", [0, 1])
def test_a_text_encoder_that_trains_is_never_taken_from_the_cache(tiny_model: Path, tmp_path: Path, steps: int) -> None:
    """Also not once its steps are over: what it makes then is no base's."""
    wanted = recipe(**EVERYTHING, text_encoder_learning_rate=1e-2, text_encoder_steps=steps)
    without = trained(tiny_model, tmp_path / "none", wanted, None)
    # Fills the cache with the base's own prompts.
    trained(tiny_model, tmp_path / "base", recipe(**EVERYTHING), tmp_path / "cache")
    assert_equal(without, trained(tiny_model, tmp_path / "warm", wanted, tmp_path / "cache"))


def test_parts_that_were_read_for_a_sample_are_among_the_frozen(tiny_model: Path, tmp_path: Path) -> None:
    wanted = recipe(**EVERYTHING)
    found: list[FrozenTensors] = []
    trained(tiny_model, tmp_path / "cold", wanted, tmp_path / "cache", Watch(on_frozen=found.append))

    torch.set_num_threads(1)
    components = FAMILY.load(tiny_model, deferred_parts(FAMILY, wanted))
    cache = EncodingCache(CachedFiles(tmp_path / "cache"), PARTS, FAMILY, wanted)
    images = encode_for(wanted, FAMILY, components, photos(), pictures(3, "class"), cache=cache, sources=SOURCES)

    def draw(_: int) -> None:
        components.vae.state_dict()

    watch = Watch(on_sample=draw, on_frozen=found.append)
    (tmp_path / "warm").mkdir()
    fit(
        wanted,
        FAMILY,
        components,
        images,
        recipe_hash="r",
        newest=None,
        checkpoints=KeptCheckpoints(tmp_path / "kept"),
        work_folder=tmp_path / "warm",
        watch=watch,
        encodings=cache,
    )
    cold, warm = (frozen.hashes for frozen in found)
    assert {name for name in cold if name.startswith("vae.")}
    assert {name: digest for name, digest in warm.items() if name.startswith("vae.")} == {
        name: digest for name, digest in cold.items() if name.startswith("vae.")
    }


def entries(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}


def test_latents_are_in_their_photos_folder_and_everything_else_is_shared(tiny_model: Path, tmp_path: Path) -> None:
    trained(tiny_model, tmp_path / "cold", recipe(**EVERYTHING), tmp_path / "cache")
    assert {name.split("/")[0] for name in entries(tmp_path / "cache")} == {*SOURCES, ENCODINGS_OF_NO_PHOTO}


def test_the_prompt_of_a_photo_goes_with_it(components: Components, tmp_path: Path) -> None:
    wanted = recipe()
    cache = EncodingCache(CachedFiles(tmp_path), PARTS, FAMILY, wanted)
    cache.own([wanted.instance_prompt, "a sks mug of Ada", "a sks mug of Ada"], SOURCES[:3])
    folders: dict[str, str] = {}
    with torch.no_grad():
        for prompt in ("a sks mug of Ada", wanted.instance_prompt, wanted.class_prompt, ""):
            before = entries(tmp_path)
            cache.prompt(components, prompt)
            [made] = entries(tmp_path) - before
            folders[prompt] = made.split("/")[0]
    assert folders.pop("a sks mug of Ada") == SOURCES[1]
    assert set(folders.values()) == {ENCODINGS_OF_NO_PHOTO}


def test_encoding_the_photos_says_whose_the_captions_are(components: Components, tmp_path: Path) -> None:
    wanted, captions = recipe(), ["a sks mug, red", "", "a sks mug, blue", "a sks mug, blue"]
    cache = EncodingCache(CachedFiles(tmp_path), PARTS, FAMILY, wanted)
    encode_for(wanted, FAMILY, components, photos(), [], prompts=captions, cache=cache, sources=SOURCES)
    with torch.no_grad():
        for prompt in captions:
            cache.prompt(components, prompt)
    for photo in SOURCES:
        shutil.rmtree(tmp_path / photo)
    assert len(entries(tmp_path)) == 1, "the empty prompt"


@pytest.fixture
def made(components: Components, tmp_path: Path) -> Callable[..., set[str]]:
    """The entries that an image and a prompt make, with changes of what they are made by."""
    numbers = iter(range(99))

    def make(parts: dict[str, str] = PARTS, **changes: Any) -> set[str]:
        place = tmp_path / str(next(numbers))
        cache = EncodingCache(CachedFiles(place), parts, FAMILY, recipe(**changes))
        with torch.no_grad():
            cache.latents(components, torch.zeros(1, 3, 64, 64))
            cache.prompt(components, "a photo of a mug")
        return entries(place)

    return make


def test_the_key_is_what_decides_the_bytes_and_nothing_else(
    made: Callable[..., set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = made()
    assert made(seed=8, base_model_hash="c" * 64, steps=9, learning_rate=0.5) == plain
    assert len(made(PARTS | {"vae": "w" * 64}) & plain) == 1
    assert len(made(PARTS | {"text_encoder": "w" * 64}) & plain) == 1
    assert len(made(PARTS | {"tokenizer": "w" * 64}) & plain) == 1
    assert len(made(precision="bf16") & plain) == 1  # latents are made in float32 whatever the steps compute in
    torch.set_num_threads(2)
    assert made() & plain == set()
    torch.set_num_threads(1)
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    assert made() & plain == set()


def test_a_prompt_is_of_both_encoders_where_there_are_two(tmp_path: Path) -> None:
    write_tiny_sdxl(tmp_path / "base")
    family = family_named("sdxl")
    components = family.load(tmp_path / "base")
    plain = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"), "0" * 64)
    for name, changed in (("plain", ""), *((name, name) for name in plain)):
        parts = plain | ({changed: "1" * 64} if changed else {})
        with torch.no_grad():
            EncodingCache(CachedFiles(tmp_path / name), parts, family, recipe()).prompt(components, "a photo of a mug")
    known = entries(tmp_path / "plain")
    assert {name: entries(tmp_path / name) == known for name in plain} == {name: name == "vae" for name in plain}


def test_an_image_is_known_by_its_pixels_and_its_shape(components: Components, tmp_path: Path) -> None:
    cache = EncodingCache(CachedFiles(tmp_path), PARTS, FAMILY, recipe())
    with torch.no_grad():
        for size in ((64, 64), (32, 128), (128, 32)):
            mean, _ = cache.latents(components, torch.zeros(1, 3, *size))
            assert torch.equal(mean, cache.latents(components, torch.zeros(1, 3, *size))[0])
        cache.latents(components, torch.full((1, 3, 64, 64), 1e-6))
    assert len(entries(tmp_path)) == 4


def test_a_parts_hash_is_of_its_own_files() -> None:
    files = {"vae/config.json": "1", "vae/diffusion.safetensors": "2", "unet/x": "3", "model_index.json": "4"}
    plain = part_hashes(files)
    assert plain.keys() == {"vae", "unet"}
    assert plain["vae"] == hashlib.sha256(b"config.json 1\ndiffusion.safetensors 2").hexdigest()
    assert part_hashes(files | {"unet/x": "5", "model_index.json": "6"})["vae"] == plain["vae"]
    assert part_hashes(files | {"vae/config.json": "5"})["vae"] != plain["vae"]

"""Weights files made by somebody who means harm: only WeightsRefused ever, and never more memory than the file."""

from __future__ import annotations

import random
import struct
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from storage.blobs.headers import DTYPE_BITS
from storage.blobs.weights import check_weights
from storage.errors import WeightsRefused
from tests.attacks.corpus import ACCEPT, REJECT, RUNS_CODE, as_file, with_header

MIB = 1024 * 1024


@pytest.fixture
def without_pickle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any use of pickle's readers, in Python or in C, ends the test."""

    def entered(event: str, _arguments: object) -> None:
        if armed and event.startswith("pickle."):
            raise AssertionError(f"{event} was entered")

    armed = [True]
    sys.addaudithook(entered)
    monkeypatch.setitem(sys.modules, "pickle", None)
    yield
    armed.clear()


@pytest.mark.parametrize("what", REJECT)
def test_weights_refuse_everything_but_safetensors(what: str, tmp_path: Path, without_pickle: None) -> None:
    reason, content = REJECT[what]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)

    with pytest.raises(WeightsRefused) as refused:
        check_weights(path)

    assert refused.value.reason == reason
    assert len(str(refused.value)) < 600
    assert ("run code" in str(refused.value)) == (reason in RUNS_CODE)


@pytest.mark.parametrize("what", ACCEPT)
def test_what_is_unusual_but_sound_is_taken(what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(ACCEPT[what])

    assert check_weights(path).size == len(ACCEPT[what])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
SIZES = st.integers(0, 9) | st.integers(-(2**65), 2**65)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(sorted(DTYPE_BITS)) | st.text(max_size=4),
        "shape": st.lists(SIZES, max_size=3) | JSON_VALUES,
        "data_offsets": st.lists(SIZES, min_size=2, max_size=2) | JSON_VALUES,
    },
    optional={"more": JSON_VALUES},
)
HEADERS = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]) | st.text(max_size=4), ENTRIES | JSON_VALUES)


METADATA = st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=8), max_size=3)


def agree_with_the_reference(path: Path, content: bytes) -> bool:
    """Whether we accept the file; if so the reference reader must too, and must see the same tensors."""
    path.write_bytes(content)
    try:
        facts = check_weights(path)
    except WeightsRefused:
        return False
    try:
        reference = dict(deserialize(content))
    except SafetensorError as error:
        raise AssertionError(f"accepted what the reference refuses ({error}): {content!r}") from error
    assert {name: list(tensor.shape) for name, tensor in facts.tensors.items()} == {
        name: tensor["shape"] for name, tensor in reference.items()
    }
    return True


@given(entries=HEADERS, data=st.binary(max_size=16))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_header_of_any_values_is_read_as_the_reference_reads_it_or_refused(
    entries: dict[str, object], data: bytes, tmp_path: Path
) -> None:
    agree_with_the_reference(tmp_path / "mutated.safetensors", as_file(entries, data))


@given(metadata=METADATA, shape=st.lists(st.integers(0, 3), max_size=4))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_reference_writes_is_accepted(
    metadata: dict[str, str] | None, shape: list[int], tmp_path: Path
) -> None:
    content = save({"a": np.zeros(shape, np.float16), "ü": np.zeros(3, np.int64)}, metadata)

    assert agree_with_the_reference(tmp_path / "sound.safetensors", content)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The file with a lie about its header's length, some bytes changed, or a part cut, repeated or added."""
    match chance.randrange(4):
        case 0:
            lie = int.from_bytes(content[:8], "little") + chance.choice((-1, 1, 8, -8, 2**32, chance.randrange(2**40)))
            return struct.pack("<Q", max(0, lie)) + content[8:]
        case 1:
            begin, end = sorted(chance.choices(range(len(content) + 1), k=2))
            return content[:end] + chance.randbytes(chance.randrange(3)) + content[begin:]
        case _:
            edited = bytearray(content)
            for _ in range(chance.randint(1, 3)):
                edited[chance.randrange(8, len(edited))] = chance.choice(b'0123456789{}[]:,"\\ \x00\xffFIU')
            return bytes(edited)


def assert_mutations_are_read_as_the_reference_reads_them_or_refused(count: int, path: Path) -> None:
    chance = random.Random(count)
    tensors = {"a": np.zeros((2, 3), np.float16), "b": np.zeros((0, 3), np.int64), "c": np.zeros(4, np.uint8)}
    sound = save(tensors, {"format": "pt", "k": '\\"'})

    accepted = sum(agree_with_the_reference(path, mutated(sound, chance)) for _ in range(count))

    assert count / 200 < accepted < count * 3 / 4


def test_2_000_mutations_are_read_as_the_reference_reads_them_or_refused(tmp_path: Path) -> None:
    """Each of some 300 bytes of the file is changed several times, and every kind of change comes hundreds of times."""
    assert_mutations_are_read_as_the_reference_reads_them_or_refused(2_000, tmp_path / "mutated")


@pytest.mark.soak
def test_20_000_mutations_are_read_as_the_reference_reads_them_or_refused(tmp_path: Path) -> None:
    assert_mutations_are_read_as_the_reference_reads_them_or_refused(20_000, tmp_path / "mutated")


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[' + b"1," * (8 * MIB),
        b'{"' + b"a" * (16 * MIB) + b'":{}}',
        b'{"__metadata__":{"a":"' + b"\\n" * (8 * MIB) + b'"}}',
        b'{"__metadata__":{' + b'"a":"",' * (2 * MIB),
        b"{" + b'"a":{},' * (2 * MIB),
        b"{" + b" " * (16 * MIB),
        '{"€":{'.encode() + "€".encode() * (5 * MIB),
    ],
    ids=["shape", "name", "metadata text", "metadata keys", "entries", "spaces", "wide text"],
)
def test_a_huge_header_takes_no_more_memory_than_the_file(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(with_header(header))
    tracemalloc.start()
    try:
        with pytest.raises(WeightsRefused):
            check_weights(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < path.stat().st_size + 16 * MIB

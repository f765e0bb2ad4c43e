"""What a process may take of memory: a container's limit counts wherever it is less than the machine's memory."""

from __future__ import annotations

import mmap
import resource
from pathlib import Path

import psutil
import pytest

from flows.diffusion.devices import drawing_devices
from flows.jobs.memory_limit import limit_memory
from flows.runs.host_memory import empty_data_bytes, free_host_bytes, host_bytes
from storage.settings import JobSettings, Settings

MIB = 1024 * 1024


def test_a_cgroup_counts_where_it_has_less_than_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.runs.host_memory._CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("50000000\n")
    (tmp_path / "memory.current").write_text("20000000\n")
    assert (host_bytes(), free_host_bytes()) == (50_000_000, 30_000_000)
    # Of files that it has read most may go at once.
    (tmp_path / "memory.stat").write_text("anon 4000000\ninactive_file 15000000\nactive_file 1000000\n")
    assert free_host_bytes() == 45_000_000
    (tmp_path / "memory.current").write_text("80000000\n")
    assert free_host_bytes() == 0
    for more in ("max\n", f"{1 << 62}\n"):
        (tmp_path / "memory.max").write_text(more)
        assert free_host_bytes() > 50_000_000
        assert host_bytes() == psutil.virtual_memory().total


def test_what_a_limit_of_the_process_leaves_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    used = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmData:")
    )
    for left, free in ((64 * MIB, 64 * MIB), (-64 * MIB, 0)):
        monkeypatch.setattr("flows.runs.host_memory.resource.getrlimit", lambda what, left=left: (used + left, -1))
        assert free_host_bytes() == pytest.approx(free, abs=16 * MIB)


def test_addresses_that_hold_nothing_take_nothing_of_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(64 * MIB))
    before, limits = empty_data_bytes(), resource.getrlimit(resource.RLIMIT_DATA)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        assert empty_data_bytes() - before == pytest.approx(64 * MIB, abs=8 * MIB)
        for page in range(0, 32 * MIB, mmap.PAGESIZE):
            mapped[page] = 1
        assert empty_data_bytes() - before == pytest.approx(32 * MIB, abs=8 * MIB)
        try:
            limit_memory(10**9)
            limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, limits)
        assert limit - 10**9 == pytest.approx(empty_data_bytes(), abs=8 * MIB)


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with 4 GB, of which it uses one."""
    monkeypatch.setattr("flows.runs.host_memory._CGROUP", tmp_path)
    monkeypatch.setattr("flows.runs.host_memory.psutil.virtual_memory", _large_machine)
    (tmp_path / "memory.max").write_text("4000000000\n")
    (tmp_path / "memory.current").write_text("1000000000\n")


class _large_machine:  # noqa: N801 - it stands for a function
    total, available = 10**12, 10**12


@pytest.mark.usefixtures("container")
@pytest.mark.parametrize(
    ("asked", "empty", "limit"),
    [
        (0, 0, 2_800_000_000),
        (5_000_000_000, 0, 5_000_000_000),
        (0, 500_000_000, 3_300_000_000),
        # All that is empty may be filled again, in a container of 4 GB.
        (0, 3_000_000_000, 3_600_000_000),
        (2_000_000_000, 3_000_000_000, 3_600_000_000),
        (5_000_000_000, 3_000_000_000, 5_000_000_000),
    ],
)
def test_a_flows_process_is_limited_by_its_container(
    asked: int, empty: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond it the kernel would kill the process without a word. What holds nothing raises the limit within it."""
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr("flows.jobs.memory_limit.empty_data_bytes", lambda: empty)
    monkeypatch.setattr("flows.jobs.memory_limit.resource.setrlimit", lambda what, limit: limits.append(limit))
    monkeypatch.setattr("flows.jobs.memory_limit.resource.getrlimit", lambda what: (-1, resource.RLIM_INFINITY))
    limit_memory(asked)
    assert [soft for soft, _ in limits] == [limit]


@pytest.mark.usefixtures("container")
def test_images_are_drawn_by_as_many_processes_as_a_container_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.diffusion.devices.os.cpu_count", lambda: 64)
    monkeypatch.setattr("flows.diffusion.devices.visible_gpus", tuple)
    # 3 GB are free, a process with a model of 100 MB takes 1.2.
    assert drawing_devices(1, 100_000_000, Settings(jobs=JobSettings())) == ("", "")

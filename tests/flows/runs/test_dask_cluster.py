"""Dask takes work from the process that opened the cluster, and from nobody else."""

from __future__ import annotations

import contextlib
import os
import time
from typing import cast

import httpx
import psutil
import pytest
from dask.distributed import Client
from distributed.security import Security

from flows.runs.dask_cluster import (
    VISIBLE_GPUS,
    GpuHeldTwice,
    UnencryptedDask,
    check_held,
    dask_client,
    drawing_client,
    progress_reported,
)
from flows.runs.liveness import PROCESS, advanced


def test_a_cluster_of_this_machine_refuses_every_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(listening())
    monkeypatch.setattr("flows.runs.dask_cluster.host_bytes", lambda: 3_000_000_000)  # a container's
    with dask_client(("",)) as client:
        address = str(client.scheduler_info()["address"])
        assert client.submit(sum, (1, 2)).result() == 3
        assert address.startswith("tls://127.0.0.1:")
        assert [one["memory_limit"] for one in client.scheduler_info()["workers"].values()] == [3_000_000_000]
        plain, foreign = address.replace("tls://", "tcp://"), Security.temporary()
        for other, how in ((plain, None), (address, foreign)):
            with pytest.raises(OSError, match=r"closed|TLS"), Client(other, security=how, timeout=2):
                pass
        assert client.submit(sum, (3, 4)).result() == 7
        ports = set(listening()) - before
        assert len(ports) >= 3, "scheduler, nanny and worker"
        for port in ports:
            assert reads_nothing(port), port


def listening() -> list[int]:
    """The ports of this process and of what it has started."""
    me = psutil.Process()
    ports: list[int] = []
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # a child of an earlier test ends meanwhile
            connections = process.net_connections("tcp")
            ports += [one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN]
    return ports


def reads_nothing(port: int) -> bool:
    """Whether nothing of a scheduler or worker is told to somebody who asks over HTTP."""
    try:
        responses = [
            httpx.get(f"http://127.0.0.1:{port}{path}", timeout=2)
            for path in ("/json/counts.json", "/info/main/workers.html", "/metrics")
        ]
    except httpx.HTTPError:
        return True
    return all(response.status_code == 404 for response in responses)


def test_an_address_without_tls_is_refused_with_what_to_do() -> None:
    with (
        pytest.raises(UnencryptedDask, match=r"tcp://10\.0\.0\.7:8786 is not a tls:// address.*--tls-cert"),
        dask_client(("", ""), "tcp://10.0.0.7:8786"),
    ):
        pass


def seen_gpu() -> str | None:
    """What a worker's libraries would be told."""
    return os.environ.get(VISIBLE_GPUS)


def get_on() -> int:
    """A unit of work that says it gets on."""
    with progress_reported():
        advanced()
    return 1


def test_each_worker_sees_one_gpu_alone_and_says_that_it_gets_on() -> None:
    before = PROCESS.count
    with drawing_client(("1", "GPU-5ebe")) as client:
        seen = cast(dict[str, str], client.run(seen_gpu))
        assert sorted(seen.values()) == ["1", "GPU-5ebe"]
        assert client.submit(get_on).result() == 1
        deadline = time.monotonic() + 10
        while PROCESS.count == before:
            assert time.monotonic() < deadline, "nothing was heard of the worker's progress"
            time.sleep(0.05)


def test_two_workers_on_one_gpu_get_no_work() -> None:
    refused = pytest.raises(GpuHeldTwice, match=r"2 Dask workers hold .* GPU 0: .*CUDA_VISIBLE_DEVICES")
    with refused, drawing_client(("0", "0")):
        pass
    check_held({"a": "", "b": "", "c": "here GPU 0", "d": "there GPU 0"})

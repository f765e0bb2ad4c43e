"""Dask workers for the small units of one task: processes of this machine, or the cluster at an address.

What a worker is sent it unpickles, which is running it. So nobody speaks with one unencrypted: a cluster of this
machine lives for one block and has certificates that exist in its memory only; another one is reached with the
certificates of Dask's own settings (DASK_DISTRIBUTED__COMM__TLS__CA_FILE and ...__CLIENT__CERT, ...__CLIENT__KEY).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import dask
from dask.distributed import Client, LocalCluster
from distributed.security import Security

from storage.errors import Refused

# Pages with the state of the scheduler and its workers, which ask nobody who they are.
NO_PAGES = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}


class UnencryptedDask(Refused):
    """The address of a Dask scheduler that takes work from everybody."""

    code = "unencrypted_dask"

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address} is not a tls:// address, and Dask runs what anybody sends it there. Start the scheduler and "
            "its workers with --tls-ca-file, --tls-cert and --tls-key."
        )


@contextmanager
def dask_client(count: int, address: str = "") -> Generator[Client]:
    """A client of the scheduler at `address`, or of `count` processes of this machine with one thread each.

    Raises UnencryptedDask for an address without TLS.
    """
    if address:
        if not address.startswith("tls://"):
            raise UnencryptedDask(address)
        with Client(address, security=Security(require_encryption=True)) as client:
            yield client
        return
    # One thread a worker: the threads of a recipe are torch's, inside of that one.
    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with (
        dask.config.set(NO_PAGES),
        # security=True makes certificates for this one cluster; the default takes work from any process of the machine.
        LocalCluster(n_workers=count, security=True, **options) as local,
        Client(local) as client,
    ):
        yield client

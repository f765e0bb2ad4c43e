"""The most memory that a flow's process may take: what goes beyond it fails by name instead of being killed."""

from __future__ import annotations

import resource

from flows.runs.host_memory import empty_data_bytes, host_bytes

MEMORY_SHARE, MOST_OF_IT = 0.7, 0.9


def limit_memory(limit_bytes: int) -> None:
    """Cap this process's data memory (bytes; 0: 70 % of what the machine or its container has), so that too much is an
    error and not a kill.

    Called again after work that has freed much: the heap of a fit of 15 GB stays counted when it is empty, and what
    comes next found no memory though the process held 4 GB. What is empty can be filled again without being counted
    once more, so the process may then hold more than `limit_bytes`, but never above 90 % of the machine or container
    where the limit itself is not above that: what is held is counted.
    """
    limit = limit_bytes or int(host_bytes() * MEMORY_SHARE)
    limit = max(limit, min(limit + empty_data_bytes(), int(host_bytes() * MOST_OF_IT)))
    # Not RLIMIT_AS: that would also count mapped files and addresses that are only reserved, and torch has far more of
    # those than of memory.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard not in (-1, resource.RLIM_INFINITY):
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))

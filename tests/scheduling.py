"""Which process of pytest-xdist runs which tests: a file is run whole by one, and so is all that shares a platform, or
the Elasticsearch that takes most of a core while it warms up.

pytest-xdist 3.8 writes its groups (`--dist loadgroup`) to an attribute that pytest 9.2 no longer reads, so that every
fixture of a module, and the platform, were made by each process. Hence this scheduler.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

SHARE_A_PLATFORM = ("tests/faults/", "tests/attacks/test_back_doors.py", "tests/attacks/test_secret_canary.py")
SHARE_ELASTICSEARCH = ("tests/contracts/test_search", "tests/flows/indexing/")
TOGETHER = {"platform": SHARE_A_PLATFORM, "elasticsearch": SHARE_ELASTICSEARCH}
"""What is run by one process, by a name for it."""


def together(nodeid: str) -> str | None:
    """What a test is run together with; None for its file alone."""
    return next((name for name, tests in TOGETHER.items() if nodeid.startswith(tests)), None)


class SharedServersTogether(LoadFileScheduling):
    """Hands out tests by the file; those that share a server as if they were one file."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid) or super()._split_scope(nodeid)

"""Which process of pytest-xdist runs which tests: a file is run whole by one, and so is all that shares a platform.

pytest-xdist 3.8 writes its groups (`--dist loadgroup`) to an attribute that pytest 9.2 no longer reads, so that every
fixture of a module, and the platform, were made by each process. Hence this scheduler.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

SHARE_A_PLATFORM = ("tests/faults/", "tests/attacks/test_back_doors.py", "tests/attacks/test_secret_canary.py")


class PlatformTogether(LoadFileScheduling):
    """Hands out tests by the file; those that share a platform as if they were one file."""

    def _split_scope(self, nodeid: str) -> str:
        return "platform" if nodeid.startswith(SHARE_A_PLATFORM) else super()._split_scope(nodeid)

"""Errors of running the platform on one machine. Each message says what to do next."""

from __future__ import annotations

from storage.errors import DarkroomError


class PlatformError(DarkroomError):
    """The embedded platform cannot do what was asked."""

    code = "platform_error"


class AlreadyRunning(PlatformError):
    """Another `darkroom up` holds the data folder."""

    code = "already_running"


class NotRunning(PlatformError):
    """No `darkroom up` holds the data folder."""

    code = "not_running"


class PortTaken(PlatformError):
    """A port that a part listens on belongs to another process."""

    code = "port_taken"


class PartFailed(PlatformError):
    """A part did not start, or did not become healthy in time."""

    code = "part_failed"

"""The logger of a flow's code: the flow run's own, which Prefect's pages show, and a plain one outside of a run."""

from __future__ import annotations

import logging

from prefect import get_run_logger
from prefect.context import FlowRunContext


def run_logger(name: str) -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The logger of the flow run under way, or the one called `name` where there is none."""
    # Prefect's own raises outside of a run, where the same code works for commands and tests.
    return get_run_logger() if FlowRunContext.get() else logging.getLogger(name)

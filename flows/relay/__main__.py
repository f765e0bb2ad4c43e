"""The relay's process: `python -m flows.relay`."""

from __future__ import annotations

import logging
import signal
from contextlib import ExitStack
from types import FrameType

from flows.relay.relay import Relay
from flows.runs.orchestrator import Orchestrator, open_prefect
from storage.logs import configure
from storage.settings import load_settings
from storage.stores import open_stores


def main() -> None:
    """Run a relay until SIGTERM or SIGINT."""
    settings = load_settings()
    configure(settings.logs)
    with open_stores(settings) as stores, ExitStack() as clients:
        # Clients are closed at the end by the stack: duties are threads that may hang, and close nothing.
        relay = Relay(stores, lambda: Orchestrator(clients.enter_context(open_prefect(settings.prefect))))

        def stop(_signal: int, _frame: FrameType | None) -> None:
            relay.stopping.set()

        # A flag, and no exception: a duty in the middle of an effect comes to its end.
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        logging.getLogger("darkroom.relay").info("relay is up")
        relay.run()


if __name__ == "__main__":
    main()

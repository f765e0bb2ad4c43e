"""The seed of the day: other examples every day, the same ones again when asked for."""

from __future__ import annotations

import os
from datetime import UTC, datetime

VARIABLE = "TEST_SEED"
SEED_OF_THE_DAY = int(os.environ.get(VARIABLE) or datetime.now(UTC).strftime("%Y%m%d"))
AGAIN = f"examples of this run again: {VARIABLE}={SEED_OF_THE_DAY}"

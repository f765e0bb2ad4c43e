"""A Litestar application that does nothing but give bytes back: what no catalogue on it can be faster than."""

from __future__ import annotations

import os
from pathlib import Path

from litestar import Litestar, Response, get

FOLDER = "BENCH_BODIES"
"""Names the folder with the bodies: one file for each kind of request."""


def app() -> Litestar:
    """What uvicorn serves: each file of the folder at an address of its own."""
    bodies = {file.name: file.read_bytes() for file in Path(os.environ[FOLDER]).iterdir()}

    @get("/{name:str}", media_type="application/json")
    async def give(name: str) -> Response[bytes]:
        return Response(bodies[name], media_type="application/json")

    return Litestar([give], openapi_config=None, logging_config=None)

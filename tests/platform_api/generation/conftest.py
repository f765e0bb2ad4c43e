"""A door with a model and an adapter to draw with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.platform_api.door import Door
from tests.platform_api.generation.drawing import GENERATIONS, Artist, drawable


@dataclass
class Studio:
    """A door, its owner's client, and versions of the owner."""

    door: Door
    client: httpx.Client
    artist: Artist
    model: int
    adapter: int

    def ask(self, **fields: object) -> httpx.Response:
        """The response to a request for pictures of the model."""
        return self.client.post(GENERATIONS, json={"model": self.model, "prompt": "a sks mug", **fields})

    def submitted(self, **fields: object) -> str:
        """The id of a submitted generation."""
        response = self.ask(**fields)
        assert response.status_code == 202, response.text
        return response.json()["id"]

    def shown(self, job_id: str) -> dict[str, Any]:
        """A generation's detail."""
        response = self.client.get(f"{GENERATIONS}/{job_id}")
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture(scope="module")
def studio(shared_door: Door) -> Studio:
    """One for a module."""
    client = shared_door.client()
    model, adapter = drawable(shared_door, client), drawable(shared_door, client, adapter=True)
    return Studio(shared_door, client, Artist(shared_door), model, adapter)

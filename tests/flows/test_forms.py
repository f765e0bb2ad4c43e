"""Every parameter of every deployment says in Prefect's form what it means, and what holds where nothing is given."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import import_object

from deployments.local.fingerprint import PREFECT_FILE, stanzas

STANZAS = stanzas(PREFECT_FILE)


@pytest.mark.parametrize("stanza", STANZAS, ids=[stanza["name"] for stanza in STANZAS])
def test_every_field_of_a_form_is_described_and_has_a_default_or_is_required(stanza: dict[str, Any]) -> None:
    schema = parameter_schema(import_object(str(stanza["entrypoint"])))
    for name, field in schema.properties.items():
        assert len(field.get("description", "")) > 10, name
        assert ("default" in field) != (name in schema.required), name

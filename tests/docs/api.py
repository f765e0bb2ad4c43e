"""The API's document, and how a request that a page shows compares with it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from deployments.reference_tables import api_document

HOST = "http://127.0.0.1:8000"
OUTSIDE_THE_DOCUMENT = ("/docs", "/schema/openapi.json")


def operations(path: str) -> dict[str, Any] | None:
    """The operations at a path as somebody writes it, with values or names in place of its parameters."""
    asked = path.partition("?")[0].rstrip("/")
    for known, item in api_document()["paths"].items():
        pattern = re.sub(r"\\\{path\\\}", ".+", re.escape(known))
        if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", pattern), asked):
            return item
    return None


def wrong_with(words: Sequence[str], variables: dict[str, str]) -> str | None:
    """What is wrong with a call of curl, if anything is: its address, its method, the fields of its JSON."""
    [address] = [word for word in words[1:] if word.startswith((HOST, "$api"))]
    path = address.replace("$api", variables.get("api", "")).removeprefix(HOST)
    found = operations(path)
    if found is None:
        return f"no such route: {path}"
    options = {word: value for word, value in pairwise(words) if word in ("-X", "-d", "-T", "-F")}
    method = options.get("-X") or ("POST" if options.keys() & {"-d", "-F"} else "PUT" if "-T" in options else "GET")
    if method.lower() not in found:
        return f"{path} takes no {method}"
    parameters = {one["name"] for one in found[method.lower()].get("parameters", []) if one["in"] == "query"}
    asked = {pair.partition("=")[0] for pair in path.partition("?")[2].split("&") if pair}
    if asked - parameters:
        return f"{path} takes no {sorted(asked - parameters)}"
    if "-d" in options and (unknown := json.loads(options["-d"]).keys() - fields(found[method.lower()])):
        return f"{path} takes no {sorted(unknown)}"
    return None


def fields(operation: dict[str, Any]) -> set[str]:
    """The names of the fields that an operation's JSON body may have."""
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    found: set[str] = set()
    for one in [schema, *schema.get("oneOf", []), *schema.get("anyOf", [])]:
        named = api_document()["components"]["schemas"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one
        found |= set(named.get("properties", {}))
    return found

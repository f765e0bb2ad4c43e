"""The headers and bodies of tus in the OpenAPI document, which Litestar cannot read off a handler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, Parameter, RequestBody, Schema

from platform_api.catalog.uploads import tus

_HEADERS: Mapping[str, tuple[Schema, str]] = {
    "Tus-Resumable": (Schema(type=OpenAPIType.STRING, enum=[tus.VERSION]), "The version of tus that is spoken."),
    "Upload-Length": (Schema(type=OpenAPIType.STRING, pattern="^[0-9]{1,18}$"), "Bytes of the whole file."),
    "Upload-Offset": (Schema(type=OpenAPIType.STRING, pattern="^[0-9]{1,18}$"), "Where these bytes begin."),
    "Upload-Metadata": (
        Schema(type=OpenAPIType.STRING, max_length=tus.MAX_METADATA),
        "Pairs of a key and a Base64 value: versionId and filename; fileType (Model by default) and sha256 if wanted.",
    ),
    "X-HTTP-Method-Override": (
        Schema(type=OpenAPIType.STRING, enum=["PATCH", "DELETE"]),
        "The method that this POST stands for.",
    ),
    "Upload-Checksum": (
        Schema(type=OpenAPIType.STRING, max_length=200),
        f"An algorithm ({', '.join(tus.ALGORITHMS)}) and the Base64 of its value for these bytes.",
    ),
}  # fmt: skip


def tus_operation(*needed: str, optional: tuple[str, ...] = (), body: bool = False) -> type[Operation]:
    """The documentation of an operation with these headers, and with a body of raw bytes."""

    @dataclass  # Litestar's base calls __post_init__ only for dataclasses
    class TusOperation(Operation):
        """An operation of tus."""

        def __post_init__(self) -> None:
            """Describe the headers and the body."""
            parameters = [
                Parameter(name=name, param_in="header", required=name in needed, schema=schema, description=text)
                for name, (schema, text) in _HEADERS.items()
                if name in (*needed, *optional)
            ]
            self.parameters = [*(self.parameters or []), *parameters]
            if body:
                binary = Schema(type=OpenAPIType.STRING, format="binary")  # pyright: ignore[reportArgumentType]
                content = {tus.MEDIA_TYPE: OpenAPIMediaType(schema=binary)}
                self.request_body = RequestBody(content=content, required="Upload-Offset" in needed)

    return TusOperation


def empty_response(description: str) -> ResponseSpec:
    """The documentation of a response without a body."""
    return ResponseSpec(None, description=description)

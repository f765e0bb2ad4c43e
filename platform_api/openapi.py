"""The API's description: the OpenAPI document, and a page of it that needs nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from litestar import Controller, Litestar, Request, Response, get
from litestar.datastructures import ResponseHeader
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import (
    Components,
    SecurityScheme,
    Tag,
)
from litestar.routes import BaseRoute, HTTPRoute
from litestar.types.internal_types import PathParameterDefinition

from platform_api.access.guards import Open, Reads, Requires
from platform_api.http import problem_list, rate_limits

DESCRIPTION = """Photos in, a personalised image model out.

Send `Authorization: Bearer drk_...` with every request; each route names the scope that the key needs. Where a POST
takes an `Idempotency-Key` it can be repeated: the same key and request give the same answer. Errors are
`application/problem+json`, with a reason for each field at fault. Lists go on at `metadata.nextPage`.

Each answer says how many more requests of its kind the account, whichever of its keys it uses, or the address without
a key may send: `X-RateLimit-Limit` in a minute, `-Remaining` now, `-Reset` seconds until all of them again. Beyond that
it is 429 with `Retry-After`."""

SHARED_HEADERS = tuple(
    ResponseHeader(name=name, description=words, documentation_only=True)
    for name, words in (
        (
            rate_limits.LIMIT,
            "How many requests of this kind the account, or an address without a key, may send a minute.",
        ),
        (rate_limits.REMAINING, "How many more it may send at this moment."),
        (rate_limits.RESET, "Seconds from now until it may send that many again."),
    )
)
"""What every counted answer says, the refusals too."""

_TAGS = (
    Tag("Data sets", "The subject's photos."),
    Tag("Base models", "What a fine-tune can start from."),
    Tag("Training jobs", "Photos in, a catalogued model out."),
    Tag("Generations", "A prompt in, images out."),
    Tag("Models", "The catalogue, in the shapes that Civitai's clients read."),
    Tag("Uploads", "Model files, whole or in parts."),
    Tag("Search", "By words, by meaning, by both; filters and facets."),
    Tag("Images", "What models look like, and single images."),
    Tag("People", "Creators, users, yourself."),
    Tag("Leaderboards", "Whose works were taken up most, day by day."),
    Tag("Social", "Follows, reactions, comments."),
    Tag("Activity", "Counted acts, and how fresh the counts are."),
    Tag("Notifications", "What you are told, where, and how often."),
    Tag("Downloads", "Bytes of published files."),
    Tag("Moderation", "For moderators: take-downs and bans."),
    Tag("Keys", "API keys of your own."),
    Tag("Health", "Whether the door and what it needs are well."),
)


def config() -> OpenAPIConfig:
    """How the document is made."""
    key = SecurityScheme(type="http", scheme="bearer", description="An API key: drk_ID_SECRET, made with darkroom key.")
    return OpenAPIConfig(
        title="Darkroom",
        version="1.0",
        description=DESCRIPTION,
        tags=list(_TAGS),
        components=Components(security_schemes={"key": key}),
        operation_id_creator=operation_id,  # pyright: ignore[reportArgumentType]
        openapi_controller=Documentation,  # pyright: ignore[reportArgumentType]
    )


def operation_id(handler: HTTPRouteHandler, method: HttpMethod, path: Sequence[str | PathParameterDefinition]) -> str:
    """`trainingJobsSubmit`, `modelVersionsFileHead`: the resource, what is done, and HEAD when it is."""
    nouns = [part for part in path if isinstance(part, str) and part not in ("api", "v1")]
    words = [*nouns[0].split("-"), *handler.handler_name.split("_")]
    if method == HttpMethod.HEAD:
        words.append("head")
    return words[0] + "".join(word.capitalize() for word in words[1:])


def state_scopes(app: Litestar) -> None:
    """Write each route's scope, as its guard has it, into the document."""
    for handler in handlers(app):
        guards = guards_of(handler)
        scopes = [guard.scope.value for guard in guards if isinstance(guard, Requires | Reads)]
        optional = any(isinstance(guard, Reads) for guard in guards)
        handler.security = [*([{"key": scopes}] if scopes else []), *([{}] if optional or not scopes else [])]


def described(app: Litestar) -> dict[str, Any]:
    """The document. Bodies that take no unknown field say so, which the framework leaves out."""
    document = app.openapi_schema.to_schema()
    for handler in handlers(app):
        body = handler.parsed_fn_signature.parameters.get("data")
        config = body and getattr(body.annotation, "__struct_config__", None)
        if body and config and config.forbid_unknown_fields:
            document["components"]["schemas"][body.annotation.__name__]["additionalProperties"] = False
    return document


def handlers(app: Litestar) -> list[HTTPRouteHandler]:
    """Every handler that answers requests of its own. Raises TypeError for one that states neither scope nor reason."""
    found = {id(handler): handler for route in app.routes for handler in handlers_of(route)}
    for handler in found.values():
        if not any(isinstance(guard, Requires | Reads | Open) for guard in guards_of(handler)):
            raise TypeError(f"Route {sorted(handler.paths)} ({handler.handler_name}) states no scope: add a guard.")
    return list(found.values())


def guards_of(handler: HTTPRouteHandler) -> list[object]:
    """The guards that a handler's requests pass, its own and its owners'."""
    return cast(list[object], cast(Any, handler).resolve_guards())


def handlers_of(route: BaseRoute) -> list[HTTPRouteHandler]:
    """A route's handlers, without the one that the framework adds for OPTIONS."""
    if not isinstance(route, HTTPRoute):
        return []
    return [handler for handler in route.route_handlers if HttpMethod.OPTIONS not in handler.http_methods]


class Documentation(Controller):
    """The OpenAPI document and its page."""

    path = "/"
    include_in_schema = False
    guards = (Open("what the API is, is no secret"),)

    @get("/schema/openapi.json", media_type="application/vnd.oai.openapi+json")
    async def document(self, request: Request[Any, Any, Any]) -> dict[str, Any]:
        """The OpenAPI 3.1 document."""
        return described(request.app)

    @get("/docs", media_type="text/html")
    async def page(self, request: Request[Any, Any, Any]) -> Response[str]:
        """The document as a page."""
        return Response(_page(described(request.app)), headers=_PAGE_HEADERS, media_type="text/html")


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1f24;background:#fff}
details{border:1px solid #d5d9e0;border-radius:6px;margin:.4rem 0;padding:.4rem .8rem}
summary{cursor:pointer}summary b{display:inline-block;min-width:4.2rem;font-family:ui-monospace,monospace}
code{font-family:ui-monospace,monospace;background:#f2f4f7;padding:0 .2em}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.15rem .6rem .15rem 0}
.muted{color:#5b6470}nav a{margin-right:1rem}
@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#16181c}code{background:#262a31}
details{border-color:#3a404a}.muted{color:#9aa3af}a{color:#8ab4f8}}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_PAGE_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'",
    "Cache-Control": "public, max-age=300",
}


def _page(document: Mapping[str, Any]) -> str:
    """One page without scripts: every operation by tag, every schema."""
    info, schemas = document["info"], document.get("components", {}).get("schemas", {})
    groups: dict[str, list[str]] = {tag["name"]: [] for tag in document.get("tags", [])}
    for path, item in document["paths"].items():
        for method in ("get", "post", "put", "patch", "delete"):
            if method in item:
                operation = item[method]
                groups.setdefault(operation.get("tags", ["Other"])[0], []).append(_operation(path, method, operation))
    body = "".join(f"<h2>{html.escape(tag)}</h2>{''.join(parts)}" for tag, parts in groups.items() if parts)
    listed = "".join(_schema_section(name, schema) for name, schema in sorted(schemas.items()))
    words = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(info["description"])).replace("\n\n", "</p><p>")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(info['title'])} API</title>"
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>"
        f"<h1>{html.escape(info['title'])} API</h1><p>{words}</p>"
        f"<nav><a href='#errors'>Errors</a><a href='/schema/openapi.json'>OpenAPI document</a>"
        f"<a href='/health'>Health</a></nav>{body}{problem_list.section()}<h2>Schemas</h2>{listed}</html>"
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    needs = cast(list[dict[str, list[str]]], operation.get("security") or [])
    scopes = [scope for need in needs for scope in need.get("key", [])]
    need = "<p class=muted>No key.</p>"
    if scopes:
        anybody = " for what is your own; everybody may read what is public" if {} in needs else ""
        need = f"<p class=muted>Scope: <code>{html.escape(scopes[0])}</code>{anybody}</p>"
    rows = "".join(
        f"<tr><td><code>{html.escape(item['name'])}</code></td><td class=muted>{item['in']}</td>"
        f"<td>{_kind(item.get('schema', {}))} {html.escape(item.get('description', ''))}</td></tr>"
        for item in operation.get("parameters", [])
    )
    bodies = operation.get("requestBody", {}).get("content", {})
    sent = "".join(
        f"<p>Body: <code>{kind}</code> {_kind(media.get('schema', {}))}</p>" for kind, media in bodies.items()
    )
    answers = "".join(
        f"<tr><td><code>{status}</code></td><td>{html.escape(answer.get('description', ''))}</td><td>"
        + " ".join(_kind(media.get("schema", {})) for media in answer.get("content", {}).values())
        + "</td></tr>"
        for status, answer in sorted(operation.get("responses", {}).items())
    )
    return (
        f"<details id='{operation['operationId']}'><summary><b>{method.upper()}</b> <code>{html.escape(path)}</code> "
        f"{html.escape(operation.get('summary', ''))}</summary><p>{html.escape(operation.get('description') or '')}</p>"
        f"{need}<table>{rows}</table>{sent}<table>{answers}</table></details>"
    )


def _schema_section(name: str, schema: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(field)}</code></td><td>{_kind(kind)}</td>"
        f"<td>{html.escape(str(kind.get('description', '')))}</td></tr>"
        for field, kind in schema.get("properties", {}).items()
    )
    words = html.escape(", ".join(str(value) for value in schema.get("enum", [])))
    return f"<details id='schema-{name}'><summary><code>{name}</code> {words}</summary><table>{rows}</table></details>"


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, with a link when it has a name."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        return f"<a href='#schema-{name}'>{html.escape(name)}</a>"
    for several in ("oneOf", "anyOf"):
        if several in schema:
            return " or ".join(_kind(one) for one in schema[several])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    text = " or ".join(cast(list[str], kind)) if isinstance(kind, list) else str(kind)
    bounds = [f"{label} {schema[name]}" for name, label in _BOUNDS if name in schema]
    return html.escape(f"{text} ({', '.join(bounds)})" if bounds else text)


_BOUNDS = (
    ("minimum", ">="),
    ("exclusiveMinimum", ">"),
    ("maximum", "<="),
    ("minLength", "at least"),
    ("maxLength", "at most"),
    ("format", ""),
)

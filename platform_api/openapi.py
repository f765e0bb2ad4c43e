"""The API's description: the OpenAPI document, and a page on which it can be tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
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
from litestar.params import FromPath
from litestar.routes import BaseRoute, HTTPRoute
from litestar.types.internal_types import PathParameterDefinition

from platform_api.access.guards import Open, Reads, Requires
from platform_api.generation.generation_schema import describe_generation_fields
from platform_api.http import docs_page, rate_limits
from platform_api.http.fixed_responses import FixedResponse
from platform_api.jobs.training_schema import describe_training_fields
from storage.errors import NotFound

DESCRIPTION = """Photos in, a personalised image model out.

Send `Authorization: Bearer drk_...` with every request; each route names the scope that the key needs. Where a POST
takes an `Idempotency-Key` it can be repeated: the same key and request get the same response. Errors are
`application/problem+json`, with a reason for each field at fault. Lists go on at `metadata.nextPage`.

Each response says how many more requests of its kind the account, whichever of its keys it uses, or the address without
a key may send: `X-RateLimit-Limit` in a minute, `-Remaining` now, `-Reset` seconds until all of them again. Beyond that
it is 429 with `Retry-After`."""

SHARED_HEADERS = tuple(
    ResponseHeader(name=name, description=text, documentation_only=True)
    for name, text in (
        (
            rate_limits.LIMIT,
            "How many requests of this kind the account, or an address without a key, may send a minute.",
        ),
        (rate_limits.REMAINING, "How many more it may send at this moment."),
        (rate_limits.RESET, "Seconds from now until it may send that many again."),
    )
)
"""What every counted response says, the refusals too."""

_TAGS = (
    Tag("Data sets", "The subject's photos."),
    Tag("Base models", "What a fine-tune can start from."),
    Tag("Training jobs", "Photos in, a catalogued model out."),
    Tag("Generations", "Prompts in, pictures out: steps, workflows of steps, and what draws them."),
    Tag("Orchestration", "Generations as Civitai's orchestration v2 has them, where it is switched on."),
    Tag("Models", "The catalogue, in the shapes that Civitai's clients read."),
    Tag("Uploads", "Model files, whole or in parts."),
    Tag("Search", "By words, by meaning, by both; filters and facets."),
    Tag("Images", "What models look like, and single images."),
    Tag("People", "Creators, users, yourself."),
    Tag("Leaderboards", "Whose works were most popular, day by day."),
    Tag("Social", "Follows, reactions, comments."),
    Tag("Activity", "Counted acts, and how fresh the counts are."),
    Tag("Notifications", "What you are notified of, where, and how often."),
    Tag("Downloads", "Bytes of published files."),
    Tag("Moderation", "For moderators: take-downs and bans."),
    Tag("Keys", "API keys of your own."),
    Tag("Health", "Whether the API and what it needs are well."),
)


@dataclass(frozen=True)
class Kept:
    """What a process serves about itself, as bytes."""

    document: FixedResponse
    page: FixedResponse


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
    """The document. Bodies that take no unknown field say so, which the framework leaves out; so do descriptions the
    scope, which no page shows of a bearer's key, and fields of trainings and generations their unit."""
    document = app.openapi_schema.to_schema()
    for item in document["paths"].values():
        for operation in item.values():
            if isinstance(operation, dict) and "responses" in operation:
                _describe_scope(cast(dict[str, Any], operation))
    for handler in handlers(app):
        body = handler.parsed_fn_signature.parameters.get("data")
        config = body and getattr(body.annotation, "__struct_config__", None)
        if body and config and config.forbid_unknown_fields:
            document["components"]["schemas"][body.annotation.__name__]["additionalProperties"] = False
    describe_training_fields(document["components"]["schemas"])
    describe_generation_fields(document["components"]["schemas"])
    return document


def _kept(request: Request[Any, Any, Any]) -> Kept:
    """The document and its page, made when one is first asked for: that holds up everybody else for 0.3 to 1 s."""
    state = request.app.state
    if "documentation" not in state:
        document = described(request.app)
        page = _PAGE.render(request, document)
        state.documentation = Kept(
            FixedResponse.of(msgspec.json.encode(document), "application/vnd.oai.openapi+json"),
            FixedResponse.of(page, "text/html", docs_page.page_headers(page)),
        )
    return cast(Kept, state.documentation)


def scope_of(operation: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The scope that a key needs for an operation of the document, None when it needs no key; and whether a request
    without a key is served too."""
    needs = cast(list[dict[str, list[str]]], operation.get("security") or [])
    return next((scope for need in needs for scope in need.get("key", [])), None), {} in needs


def _describe_scope(operation: dict[str, Any]) -> None:
    scope, optional = scope_of(operation)
    anybody = " for what is your own; everybody may read what is public" if optional else ""
    stated = "No key." if scope is None else f"Scope: `{scope}`{anybody}."
    operation["description"] = "\n\n".join(filter(None, (operation.get("description"), stated)))


def handlers(app: Litestar) -> list[HTTPRouteHandler]:
    """Every handler that serves requests of its own. Raises TypeError for one that states neither scope nor reason."""
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
    async def document(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """The OpenAPI 3.1 document."""
        return _kept(request).document.respond(request)

    @get("/docs", media_type="text/html")
    async def page(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """The document as a page on which it can be tried."""
        return _kept(request).page.respond(request)

    @get("/docs/{version:str}/{name:str}", sync_to_thread=True)
    def asset(self, version: FromPath[str], name: FromPath[str]) -> Response[bytes]:
        """A script or style of the page, at an address that means the same for ever."""
        # Kept for ever by browsers, an address may never have other bytes: not those of a newer release either.
        if version != docs_page.VERSION:
            raise NotFound("The documentation's page is of another version now. Load it again.")
        content = docs_page.read_asset(name)
        return Response(content, headers=docs_page.ASSET_HEADERS, media_type=docs_page.ASSETS[name])


_PAGE = docs_page.TryItPage()

"""The contract is the API: whatever fits or breaks the OpenAPI document gets a response that the document has, whoever
sends it, and nothing of one account is ever in a response to another or to anybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import schemathesis
from hypothesis import Phase, assume, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Err, Ok
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from flows.indexing.new_builds import ensure_live_builds
from storage.records.notifications.channels import OUTWARD
from storage.stores import open_stores
from tests.hypothesis_checks import ALL_HEALTH_CHECKS
from tests.platform_api.door import UNLIMITED, Door, register_starter, serving
from tests.properties.identities import Identity, leaks, planted_rows, three_identities
from tests.properties.seeds import AGAIN, SEED_OF_THE_DAY

NAMES_THINGS = (
    "/api/v1/data-sets",
    "/api/v1/training-jobs",
    "/api/v1/training-jobs/estimate",
    "/api/v1/generations",
    "/api/v1/generations/price",
    "/api/v1/generations/sources",
    "/api/v1/comments",
    "/api/v1/activity",
    "/api/v1/notifications/preferences",
    *(f"/api/v1/notifications/channels/{channel}" for channel in OUTWARD),
)
"""Bodies that must hold pictures, or name things of the caller's or of the world: a document cannot say which will be
accepted."""

RULED = ("/api/v1/models", "/api/v1/model-versions", "/api/v1/keys", "/api/v1/users", "/v2")
"""Where the catalogue is written: names are taken once, words have rules over several fields, a model needs a file
before it is published; steps of /v2 name models. A document cannot say which of their bodies will pass."""

LENIENT = (
    *("/api/v1/models", "/api/v1/images", "/api/v1/creators", "/api/v1/tags", "/api/v1/users", "/api/v1/search"),
    "/api/v1/leaderboards/{board_id}",
)
"""Lists that read queries as Civitai's clients write them: empty is not given, what is unknown is ignored, pages end
where page times limit does, and parameters depend on each other. Which data they take a document cannot say."""

UPLOADS = ("/api/v1/uploads", "/api/v1/uploads/{upload_id}")
"""Uploads name a version, a file and an offset in headers, and bytes must be a model's: most of what fits the document
is refused; a creation whose body is not sent has none."""

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")

NO_INPUTS = (
    "GET /health",
    "GET /health/ready",
    "GET /health/live",
    "GET /metrics",
    "GET /api/v1/me",
    "GET /api/v1/enums",
    "GET /api/v1/leaderboards",
    "GET /api/v1/freshness",
    "GET /api/v1/model-versions/by-hash/{hash}",
    "GET /v2/consumer/blobs/upload",
    *(f"{method} /v2/consumer/blobs/content/{{token}}" for method in ("GET", "HEAD")),
    *(f"{method} /v2/consumer/blobs/{{blob_id}}" for method in ("HEAD", "DELETE")),
    "POST /v2/consumer/blobs/{blob_id}/refresh",
)
"""What takes nothing, or a text that is never wrong."""


@pytest.fixture(scope="module")
def live_door(module_database_url: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door without a relay."""
    with serving(tmp_path_factory.mktemp("live"), module_database_url, valkey_server, limits=UNLIMITED) as door:
        register_starter(door.database)
        with open_stores(door.settings) as stores:
            ensure_live_builds(stores)
        yield door


@pytest.fixture(scope="module")
def identities(live_door: Door) -> list[Identity]:
    """Who sends requests, each with things of its own."""
    return three_identities(live_door)


@pytest.fixture(scope="module")
def operations(live_door: Door) -> list[Any]:
    """Every operation of the door with something in it."""
    return operations_of(live_door)


def operations_of(door: Door) -> list[Any]:
    """Every operation of the API's own description, deletions last: what is gone returns 410. The event streams are
    left out: they end only with their job."""
    document = schemathesis.openapi.from_url(f"{door.url}/schema/openapi.json").exclude(path_regex=r"/events$")
    results = list(document.get_all_operations())
    assert [result.err() for result in results if isinstance(result, Err)] == []
    found = [result.ok() for result in results if isinstance(result, Ok)]
    assert len(found) > 50
    return sorted(found, key=lambda operation: operation.method.upper() == "DELETE")


def unsaid(case: Any) -> list[Any]:
    """The checks that a document cannot decide for a request."""
    query = case.query or {}
    declared = {parameter.name for parameter in case.operation.query}
    checks: list[Any] = []
    if case.method == "GET" and case.path in LENIENT:
        checks += [positive_data_acceptance, negative_data_rejection]
    named = case.method in ("POST", "PUT") and case.path in NAMES_THINGS
    if named or (case.method in ("POST", "PUT", "PATCH") and case.path.startswith(RULED)):
        checks.append(positive_data_acceptance)
    if case.operation.path in UPLOADS or case.operation.label.startswith("PUT /api/v1/model-versions/"):
        checks += [positive_data_acceptance, negative_data_rejection]
    if "tag" in query and reads_as_texts(query["tag"]):  # in an address one text is a list of one
        checks.append(negative_data_rejection)
    if "cursor" in query:  # opaque: only we know which ones are ours
        checks.append(positive_data_acceptance)
    if not declared.issuperset(query):  # what a route does not know it ignores
        checks.append(negative_data_rejection)
    return checks


def reads_as_texts(value: Any) -> bool:
    """Whether a value that is no list of texts becomes one in an address, where everything is text."""
    return not isinstance(value, list) or not all(isinstance(one, str) for one in value)


def faults(
    door: Door,
    operations: list[Any],
    identities: Sequence[Identity],
    mode: GenerationMode,
    examples: int,
    *,
    stores_unavailable: bool = False,
) -> tuple[list[str], dict[str, Counter[int]]]:
    """What responses to generated requests, each sent by all identities, were not as documented, one line an operation;
    and how often each operation had which status.

    While stores are unavailable 503 is right where the document has it, if it says when to come back.
    """
    found: list[str] = []
    statuses: dict[str, Counter[int]] = {}
    for operation in operations:
        check, statuses[operation.label] = check_of(door, operation, identities, mode, examples, stores_unavailable)
        try:
            check()
        except Unsatisfiable:
            assert operation.label in NO_INPUTS, f"nothing to generate for {operation.label}"
        except (Exception, BaseExceptionGroup) as fault:  # noqa: BLE001 - every kind is reported, beside all others
            found.append(f"{operation.label}: {fault}")
    return found, statuses


def check_of(
    door: Door,
    operation: Any,
    identities: Sequence[Identity],
    mode: GenerationMode,
    examples: int,
    stores_unavailable: bool,
) -> tuple[Callable[[], None], Counter[int]]:
    """What sends generated requests of an operation and checks the responses, and the statuses that it has seen."""
    seen: Counter[int] = Counter()
    turns: dict[int, int] = {}

    @seed(SEED_OF_THE_DAY)
    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=ALL_HEALTH_CHECKS,
        phases=[Phase.explicit, Phase.generate],
        database=None,
    )
    @given(case=operation.as_strategy(generation_mode=mode), pick=st.integers(0, 2**16))
    def check(case: Any, pick: int) -> None:
        assume((case.path_parameters or {}).get("hash") != "ids")  # that address is another route's
        # How a body is framed the server judges by itself, before the API sees a request.
        assume("transfer-encoding" not in {name.lower() for name in case.headers or {}})
        if mode is GenerationMode.POSITIVE:
            # In the order of the examples, the same one again where Hypothesis repeats an example.
            name_what_is_there(case, identities, pick, turns.setdefault(pick, len(turns)))
        for identity in identities:
            # What owners do to their own private things may publish them: the others may not.
            if case.method in ("GET", "HEAD") or not identity.owns(case.path_parameters or {}):
                seen[send(door, case, identity, identities, stores_unavailable=stores_unavailable)] += 1

    return check, seen


def name_what_is_there(case: Any, identities: Sequence[Identity], pick: int, turn: int) -> None:
    """Have addresses name the private things of each owner in turn, and then none: a made-up number names nothing."""
    owners = [identity for identity in identities if identity.things]
    if owner := dict(enumerate(owners)).get(turn % (len(owners) + 1)):
        for name in case.path_parameters or {}:
            if name in owner.things:
                case.path_parameters[name] = owner.things[name][pick % len(owner.things[name])]


def send(door: Door, case: Any, identity: Identity, identities: Sequence[Identity], *, stores_unavailable: bool) -> int:
    """Send a request as one of them and check the response; returns its status."""
    response = case.call(base_url=door.url, headers=identity.headers, timeout=20)
    told = f"{response.headers} {response.text}"
    assert not [*leaks(identity, list(identities), told)], f"{case.method} {case.path}: {told[:2000]}"
    unasked = unsaid(case)
    if response.status_code == 410:  # what is gone says so, whatever else a request has
        unasked += [positive_data_acceptance, negative_data_rejection]
    if stores_unavailable and response.status_code == 503:
        assert response.headers["retry-after"], case.path
        unasked.append(not_a_server_error)
    case.validate_response(response, headers=identity.headers, excluded_checks=unasked)
    return int(response.status_code)


def check_privacy_and_contract(
    door: Door, operations: list[Any], identities: list[Identity], mode: GenerationMode, examples: int
) -> None:
    """No response but those of the document, nothing of one to another, and nothing of one changed by another."""
    before = [planted_rows(door, identity) for identity in identities[:2]]
    assert all(len(rows) >= 10 for rows in before)
    found, statuses = faults(door, operations, identities, mode, examples)
    assert not found, "\n\n".join([AGAIN, *found])
    assert [planted_rows(door, identity) for identity in identities[:2]] == before, AGAIN
    if mode is GenerationMode.POSITIVE:  # the planted things were read by their owners, and by nobody else
        for label in ("GET /api/v1/models/{model_id}", "GET /api/v1/training-jobs/{job_id}"):
            assert {200, 404} <= set(statuses[label]), (label, statuses[label], AGAIN)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_input_of_anybody_gets_a_response_that_is_not_in_the_document_or_not_for_them(
    live_door: Door, operations: list[Any], identities: list[Identity], mode: GenerationMode
):
    """Three examples of each operation: things of the one owner, of the other, and of nobody."""
    check_privacy_and_contract(live_door, operations, identities, mode, 3)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_input_gets_such_a_response_at_full_size(
    live_door: Door, operations: list[Any], identities: list[Identity], mode: GenerationMode
):
    check_privacy_and_contract(live_door, operations, identities, mode, 50)


def test_the_check_itself_sees_what_is_shown_to_the_wrong_one(live_door: Door, identities: list[Identity]) -> None:
    """What a route that forgot to ask would return."""
    owner, other, anybody = identities
    listed = live_door.client(owner.key).get("/api/v1/keys").text
    assert not [*leaks(owner, identities, listed)]
    assert [*leaks(other, identities, listed)] == ["a response to other shows what only owner may see"]
    assert [*leaks(anybody, identities, listed)] == ["a response to anybody shows what only owner may see"]

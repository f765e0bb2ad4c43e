"""The rules of the catalogue's fields that a type cannot say, and the form in which each is stored."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec
import nh3

from storage.errors import InvalidRequest
from storage.records.catalog.vocabulary import BASE_MODELS, CommercialUse, ModelType


class Unfit(Exception):
    """A field that does not pass; the text is its reason."""


def check_model_fields(fields: Mapping[str, Any]) -> None:
    """Rules over several columns of a model. Raises InvalidRequest."""
    wrong: dict[str, str] = {}
    if fields.get("checkpoint_type") is not None and fields["type"] != ModelType.CHECKPOINT:
        wrong["checkpointType"] = f"only a Checkpoint has one; leave it out or null for a {fields['type']}"
    if fields.get("nsfw") and fields.get("minor"):
        wrong["nsfw"] = "a model of somebody under age is never nsfw"
    if fields.get("nsfw") and fields.get("sfw_only"):
        wrong["sfwOnly"] = "contradicts nsfw; say one of them"
    if wrong:
        raise InvalidRequest(wrong)


def check_file_name(name: str | None, path: str) -> None:
    """A file keeps its extension, so that nothing is saved as what it is not. Raises InvalidRequest."""
    extension = path.rsplit("/", 1)[-1].rpartition(".")[2]
    if name is not None and name.rpartition(".")[2].lower() != extension.lower():
        raise InvalidRequest({"overrideName": f"must end with .{extension}, as the file does"})


def _line(text: str) -> str:
    line = text.strip()
    if not line:
        raise Unfit("must not be blank")
    return line


# A list of what is allowed, not of what is dangerous: clients show descriptions as HTML.
_CLEANER = nh3.Cleaner(
    tags={
        *("p", "br", "hr", "h1", "h2", "h3", "h4", "blockquote", "pre", "code", "ul", "ol", "li", "a"),
        *("strong", "b", "em", "i", "u", "s", "del", "table", "thead", "tbody", "tr", "th", "td"),
    },
    attributes={"a": {"href"}},
    url_schemes={"http", "https", "mailto"},
    # Links of strangers: no credit with search engines, no hold on the page that they were opened from.
    link_rel="nofollow noopener noreferrer",
)


def _description(text: str) -> str:
    return _CLEANER.clean(text)


_TAG = re.compile(r"[\w\-.+&' ]+")


def _tags(names: list[str]) -> list[str]:
    # One spelling for a tag, and sorted below: the same tags are then the same value, and a change of none is none.
    found = [" ".join(name.split()).lower() for name in names]
    for name in found:
        if not _TAG.fullmatch(name) or len(name) > 100:
            raise Unfit(f"'{name[:100]}' is no tag: use letters, digits, blanks and -_.+&' only")
    return sorted(set(found))


def _commercial_use(uses: list[CommercialUse]) -> list[CommercialUse]:
    if CommercialUse.NONE in uses and len(set(uses)) > 1:
        raise Unfit("None stands alone; leave it out, or the others")
    return list(dict.fromkeys(uses)) or [CommercialUse.NONE]


def _trained_words(words: list[str]) -> list[str]:
    return list(dict.fromkeys(_line(word) for word in words))


def _base_model(name: str) -> str:
    line = _line(name)
    if "," in line:
        raise Unfit("must not have a comma: filters join names by it")
    # In the catalogue's own spelling, or filters would miss it; unknown ones are taken as they are.
    return next((known for known in BASE_MODELS if known.lower() == line.lower()), line)


_FILE_NAME = re.compile(r'[^/\\:*?"<>|%]+')


def _file_name(name: str) -> str:
    line = _line(name)
    if not _FILE_NAME.fullmatch(line) or line.startswith("."):
        raise Unfit('must be a plain file name: no / \\ : * ? " < > | % and no dot at its beginning')
    return line


MAX_META_BYTES = 16 * 1024
_DEEPEST_META = 4


def _meta(meta: dict[str, Any]) -> dict[str, Any]:
    _check_meta(meta, _DEEPEST_META)
    if len(msgspec.json.encode(meta)) > MAX_META_BYTES:
        raise Unfit(f"must have {MAX_META_BYTES:,} bytes of JSON at most")
    return meta


def _check_meta(value: Any, depth: int) -> None:
    if isinstance(value, dict | list):
        if not depth:
            raise Unfit(f"must be nested {_DEEPEST_META} levels deep at most")
        members = cast(dict[str, Any], value).values() if isinstance(value, dict) else cast(list[Any], value)
        for member in members:
            _check_meta(member, depth - 1)
    # JavaScript reads larger numbers as other ones, and JSON has no word for infinity.
    if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= 2**53):
        raise Unfit("must hold no number beyond 2^53")


RULES: Mapping[str, Callable[[Any], Any]] = {
    "name": _line,
    "description": _description,
    "tags": _tags,
    "allow_commercial_use": _commercial_use,
    "trained_words": _trained_words,
    "base_model": _base_model,
    "override_name": _file_name,
    "meta": _meta,
    "reason": _line,
}
"""By column: what a value becomes, or Unfit with the reason. Those of other columns are stored as they are."""

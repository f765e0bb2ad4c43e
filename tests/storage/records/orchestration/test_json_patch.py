"""JSON Patch: the operations of RFC 6902 with its own examples, and what would grow without end."""

from __future__ import annotations

from typing import Any

import pytest

from storage.errors import InvalidRequest
from storage.records.orchestration.json_patch import PatchOperation, patched


def operation(op: str, path: str, **fields: Any) -> PatchOperation:
    return PatchOperation(op=op, path=path, **fields)


@pytest.mark.parametrize(
    ("before", "operations", "after"),
    [
        ({"foo": "bar"}, [operation("add", "/baz", value="qux")], {"foo": "bar", "baz": "qux"}),
        ({"foo": ["bar"]}, [operation("add", "/foo/0", value="qux")], {"foo": ["qux", "bar"]}),
        ({"foo": ["bar"]}, [operation("add", "/foo/-", value=["a"])], {"foo": ["bar", ["a"]]}),
        ({"a": 1, "b": 2}, [operation("remove", "/a")], {"b": 2}),
        ({"a": [1, 2, 3]}, [operation("remove", "/a/1")], {"a": [1, 3]}),
        ({"a": 1}, [operation("replace", "/a", value=None)], {"a": None}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {}},
            [operation("move", "/qux/thud", from_="/foo/waldo")],
            {"foo": {"bar": "baz"}, "qux": {"thud": "fred"}},
        ),
        ({"a": [1, 2, 3]}, [operation("move", "/a/2", from_="/a/0")], {"a": [2, 3, 1]}),
        ({"a": [1]}, [operation("copy", "/b", from_="/a"), operation("add", "/b/-", value=2)], {"a": [1], "b": [1, 2]}),
        ({"/": 9, "~1": 10}, [operation("test", "/~01", value=10), operation("remove", "/~1")], {"~1": 10}),
        ({"a": {"b": 1}}, [operation("replace", "", value={"c": 2})], {"c": 2}),
    ],
)
def test_operations_do_what_the_rfc_says(before: dict[str, Any], operations: list[PatchOperation], after: Any) -> None:
    kept = repr(before)
    assert patched(before, operations) == after
    assert repr(before) == kept


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (operation("add", "/no/such", value=1), "nothing at"),
        (operation("add", "/a"), "needs `value`"),
        (operation("add", "a", value=1), "no JSON Pointer"),
        (operation("add", "/list/3", value=1), "no place in the list"),
        (operation("add", "/list/01", value=1), "no place in the list"),
        (operation("add", "/text/x", value=1), "nothing can be put under"),
        (operation("remove", "/no"), "nothing at"),
        (operation("remove", ""), "cannot be removed"),
        (operation("replace", "/list/1", value=1), "no place in the list"),
        (operation("test", "/true", value=1), "is another"),
        (operation("move", "/a/b", from_="/a"), "into itself"),
        (operation("copy", "/a"), "needs `from`"),
        (operation("delete", "/a"), "is no operation"),
    ],
    ids=lambda one: one if isinstance(one, str) else f"{one.op} {one.path}",
)
def test_what_cannot_be_done_is_named_and_nothing_is_done(refused: PatchOperation, reason: str) -> None:
    before = {"a": {"b": 1}, "list": [1], "text": "t", "true": True}
    with pytest.raises(InvalidRequest, match=reason) as error:
        patched(before, [operation("add", "/a/c", value=2), refused])
    assert list(error.value.fields) == ["[1]"]
    assert before == {"a": {"b": 1}, "list": [1], "text": "t", "true": True}


def test_copies_into_themselves_end_at_the_limit() -> None:
    doubled = [operation("copy", f"/{n}", from_="") for n in range(100)]
    with pytest.raises(InvalidRequest, match="longer than 65,536 bytes"):
        patched({"a": "x" * 1000}, doubled)


def test_copies_into_themselves_nest_no_deeper_than_the_limit() -> None:
    first = operation("add", "/a", value={})
    doubled = [operation("copy", "/a" * 2**n, from_="") for n in range(7)]
    with pytest.raises(InvalidRequest, match="nests the document more than 32 deep") as refused:
        patched({}, [first, *doubled])
    assert list(refused.value.fields) == ["[5]"]


def test_what_is_nested_too_deeply_already_is_not_patched() -> None:
    deep: dict[str, object] = {}
    for _ in range(2000):
        deep = {"a": deep}
    with pytest.raises(InvalidRequest, match="what is there is nested more than 32 deep"):
        patched(deep, [operation("add", "/b", value=1)])


def test_what_is_patched_stays_an_object() -> None:
    with pytest.raises(InvalidRequest, match="must stay an object"):
        patched({}, [operation("replace", "", value=[])])

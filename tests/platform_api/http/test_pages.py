"""Where the next page of a list begins, with all that the request for it must say again."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from platform_api.http.pages import camelised, page_metadata


def test_the_next_page_repeats_the_query_and_quotes_what_callers_wrote() -> None:
    page = page_metadata("/things", "Nw", {"limit": 5, "state": None, "tag": ["a&b=c", "ü d"], "since": "2026+02:00"})
    assert page.next_cursor == "Nw"
    parts = urlsplit(page.next_page or "")
    said = {"cursor": ["Nw"], "limit": ["5"], "tag": ["a&b=c", "ü d"], "since": ["2026+02:00"]}
    assert (parts.path, parse_qs(parts.query)) == ("/things", said)


def test_the_last_page_has_no_next_one() -> None:
    page = page_metadata("/things", None, {"limit": 5})
    assert (page.next_cursor, page.next_page) == (None, None)


def test_names_inside_are_written_as_the_api_writes_them() -> None:
    assert camelised({"a_b": [{"c_d_e": 1}], "f": None}) == {"aB": [{"cDE": 1}], "f": None}

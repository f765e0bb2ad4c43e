"""The list of images."""

from __future__ import annotations

import httpx

from tests.platform_api.catalog.reading.shelf import Shelf
from tests.platform_api.door import photo


def test_images_are_listed_with_their_levels_and_shown_without_a_key(shelf: Shelf) -> None:
    listed = shelf.get(f"/api/v1/images?modelId={shelf.model.id}&withTags=true").json()
    [image] = listed["items"]
    assert (image["nsfwLevel"], image["browsingLevel"], image["hash"]) == ("None", 1, "L0")
    assert (image["modelVersionIds"], image["tags"], image["meta"]) == ([shelf.version.id], ["lighting", "style"], None)
    for address in (image["url"], image["url"].replace("original=true", "width=450")):
        shown = httpx.get(address)
        assert (shown.content, shown.headers["content-type"]) == (photo(3), "image/png")
    for query in ("nsfw=true", "browsingLevel=4", "type=video", "tags=99", "username=nobody", "requiringMeta=true"):
        assert shelf.get(f"/api/v1/images?modelId={shelf.model.id}&{query}").json()["items"] == [], query
    for query in ("nsfw=Soft", "nsfw=X", "nsfw=false", "sort=Random", "sort=Oldest", f"postId={shelf.version.id}"):
        found = shelf.get(f"/api/v1/images?modelId={shelf.model.id}&{query}").json()["items"]
        assert [item["id"] for item in found] == [image["id"]], query

"""Versions and their files written through the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from storage.postgres.catalog import catalog
from tests.platform_api.catalog.writing.test_model_routes import MODELS, VERSIONS, listed, made, with_file
from tests.platform_api.door import Door
from tests.platform_api.http.test_problems import assert_problem
from tests.storage.makers import a_file


def test_a_version_is_changed_published_and_hidden_alone(shared_door: Door) -> None:
    owner, anybody = shared_door.client(), shared_door.client("")
    model_id = made(owner, "of two versions")
    first = with_file(shared_door, owner, model_id, "9")
    owner.post(f"{MODELS}/{model_id}/publish")
    second = with_file(shared_door, owner, model_id, "a", "v2")
    words = {"trainedWords": [" lantern ", "lantern", "glow"], "baseModel": "sdxl 1.0", "clipSkip": 2, "steps": 900}
    changed = owner.patch(f"{VERSIONS}/{second}", json=words).json()
    assert (changed["trainedWords"], changed["baseModel"]) == (["lantern", "glow"], "SDXL 1.0")
    assert changed == owner.get(f"{VERSIONS}/{second}").json()
    at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert owner.post(f"{VERSIONS}/{second}/publish", json={"at": at}).json()["status"] == "Scheduled"
    assert_problem(anybody.get(f"{VERSIONS}/{second}"), 404)
    published = owner.post(f"{VERSIONS}/{second}/publish").json()
    assert [v["id"] for v in anybody.get(f"{MODELS}/{model_id}").json()["modelVersions"]] == [second, first]
    assert owner.post(f"{VERSIONS}/{second}/unpublish").json()["publishedAt"] == published["publishedAt"]
    assert_problem(anybody.get(f"{VERSIONS}/{second}"), 404)
    empty = owner.post(f"{MODELS}/{model_id}/versions", json={"name": "v3", "baseModel": "Pony"}).json()["id"]
    assert "no file" in str(assert_problem(owner.post(f"{VERSIONS}/{empty}/publish"), 409)["detail"])
    for wrong, field in (({"baseModel": "a,b"}, "baseModel"), ({"trainedWords": [" "]}, "trainedWords")):
        assert set(assert_problem(owner.patch(f"{VERSIONS}/{second}", json=wrong), 422)["errors"]) == {field}


def test_a_file_is_described_hidden_and_deleted_but_the_last_public_one_stays(shared_door: Door) -> None:
    owner, anybody = shared_door.client(), shared_door.client("")
    model_id = made(owner, "of two files", tags=["files"])
    version_id = with_file(shared_door, owner, model_id, "b")
    shared_door.database.run(catalog.add_files(version_id, [a_file("c" * 64, "small.safetensors")]))
    owner.post(f"{MODELS}/{model_id}/publish")
    path = f"{VERSIONS}/{version_id}/files"
    ids = {file["hashes"]["SHA256"][0]: file["id"] for file in owner.get(f"{VERSIONS}/{version_id}").json()["files"]}
    words = {"type": "Pruned Model", "size": "pruned", "fp": "fp16", "overrideName": "lantern.safetensors"}
    shown = owner.patch(f"{path}/{ids['C']}", json=words).json()["files"]
    [small] = [file for file in shown if file["id"] == ids["C"]]
    assert (small["type"], small["name"]) == ("Pruned Model", "lantern.safetensors")
    assert small["metadata"] == {"format": "SafeTensor", "size": "pruned", "fp": "fp16"}
    assert small["primary"]
    for wrong in ("lantern.exe", "../lantern.safetensors", ".safetensors", 'a".safetensors'):
        response = owner.patch(f"{path}/{ids['C']}", json={"overrideName": wrong})
        assert set(assert_problem(response, 422)["errors"]) == {"overrideName"}
    owner.patch(f"{path}/small.safetensors", json={"visibility": "Private"})
    assert [file["id"] for file in anybody.get(f"{VERSIONS}/{version_id}").json()["files"]] == [ids["B"]]
    assert owner.delete(f"{path}/{ids['C']}").status_code == 204
    assert_problem(owner.delete(f"{path}/{ids['C']}"), 404)
    assert "last one" in str(assert_problem(owner.delete(f"{path}/{ids['B']}"), 409)["detail"])
    owner.post(f"{VERSIONS}/{version_id}/unpublish")
    assert owner.delete(f"{path}/{ids['B']}").status_code == 204
    assert model_id not in listed(shared_door)

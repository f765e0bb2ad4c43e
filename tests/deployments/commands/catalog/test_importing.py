"""darkroom import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.deployments.line import Line
from tests.platform_api.door import photo

LORA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v"
KOHYA = {
    "ss_base_model_version": "sd_v1",
    "ss_output_name": "copper lantern",
    "ss_network_dim": "16",
    "ss_network_alpha": "8.0",
    "ss_network_module": "networks.lora",
    "ss_steps": "1500",
    "ss_epoch": "10",
    "ss_clip_skip": "2",
    "ss_tag_frequency": json.dumps({"10_c0pperlamp lantern": {"glass": 12, "night": 7, "1girl": 1}}),
}


def lora(path: Path, seed: int, metadata: dict[str, str] | None = None) -> Path:
    """A small LoRA of Stable Diffusion 1."""
    noise = np.random.default_rng(seed).standard_normal((4, 768)).astype(np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"{LORA}.lora_down.weight": noise, f"{LORA}.alpha": np.ones((), np.float16)}, path, metadata)
    return path


def mine(line: Line) -> list[dict[str, Any]]:
    """Every model of the test's account, as the API shows it to its owner."""
    with line.door.database.connect() as connection:
        rows = connection.execute(
            "select id from models where account_id = %(id)s and gone_at is null order by id",
            {"id": line.door.account_id},
        ).fetchall()
    client = line.door.client(line.door.key)
    return [client.get(f"/api/v1/models/{row['id']}").json() for row in rows]


@pytest.fixture
def shelf(line: Line) -> Path:
    """A folder with two variants of one LoRA, another one with a sidecar, and files that nobody should take."""
    folder = line.folder / "models"
    lora(folder / "lanterns/copper-fp16.safetensors", 1, KOHYA)
    lora(folder / "lanterns/copper.safetensors", 2, KOHYA)
    lora(folder / "tower.safetensors", 3)
    told = {
        "name": "v2.1",
        "baseModel": "SD 1.4",
        "trainedWords": ["t0wer"],
        "description": "<p>Tall.</p>",
        "model": {"name": "The Tower", "type": "LORA", "nsfw": False, "tags": ["Building", "no/tag"]},
    }
    (folder / "tower.civitai.info").write_text(json.dumps(told))
    (folder / "tower.preview.png").write_bytes(photo(1))
    (folder / "old.ckpt").write_bytes(b"\x80\x02}q\x00.")
    (folder / "renamed.safetensors").write_bytes(b"\x80\x04\x95" + bytes(40))
    (folder / "notes.txt").write_text("buy film")
    (folder / ".hidden.safetensors").write_bytes(b"?")
    return folder


def test_a_folder_fills_the_catalogue_and_again_changes_nothing(line: Line, shelf: Path):
    first = line("import", shelf)
    models = mine(line)
    again = line("import", shelf)

    assert (first.exit_code, again.exit_code) == (1, 1), first.output
    assert first.output.rstrip().endswith("3 imported, 0 there already, 2 refused")
    assert again.output.rstrip().endswith("0 imported, 3 there already, 2 refused")
    assert "old.ckpt is a pickle by its name" in first.output
    assert "renamed.safetensors is a pickle, which can run code" in first.output
    assert mine(line) == models
    tower, lantern = models
    version = lantern["modelVersions"][0]
    assert (lantern["name"], lantern["type"], version["baseModel"]) == ("copper lantern", "LORA", "SD 1.5")
    assert sorted(file["name"] for file in version["files"]) == ["copper-fp16.safetensors", "copper.safetensors"]
    assert {file["metadata"]["checked"] for file in version["files"]} == {"family"}
    assert version["trainedWords"] == ["c0pperlamp lantern", "glass"]
    assert lantern["tags"] == ["1girl", "glass", "night"]
    assert "rank 16, alpha 8.0" in version["description"]
    assert tower["name"] == "The Tower"
    assert tower["tags"] == ["building"]
    told = tower["modelVersions"][0]
    assert (told["name"], told["baseModel"], told["trainedWords"]) == ("v2.1", "SD 1.4", ["t0wer"])
    assert len(told["images"]) == 1


def test_models_are_drafts_unless_they_shall_be_published(line: Line):
    lora(line.folder / "a/one.safetensors", 4)
    lora(line.folder / "b/two.safetensors", 5)
    assert line("import", line.folder / "a").exit_code == 0
    assert line("import", line.folder / "b", "--publish").exit_code == 0
    stranger = line.door.client("")
    assert [stranger.get(f"/api/v1/models/{model['id']}").status_code for model in mine(line)] == [404, 200]


def test_another_model_of_the_name_is_left_alone(line: Line):
    lora(line.folder / "a/one.safetensors", 6, {"modelspec.title": "Twin"})
    lora(line.folder / "b/one.safetensors", 7, {"modelspec.title": "twin"})
    assert line("import", line.folder).exit_code == 0, line.folder
    names = [model["name"] for model in mine(line)]
    assert names[0] == "Twin"
    assert names[1].startswith("twin (")


def test_the_same_bytes_twice_are_imported_once(line: Line):
    first = lora(line.folder / "a.safetensors", 8)
    (line.folder / "b.safetensors").write_bytes(first.read_bytes())
    result = line("import", line.folder)
    assert result.output.rstrip().endswith("1 imported, 1 there already, 0 refused"), result.output


def test_a_file_that_the_api_refuses_leaves_no_model(line: Line):
    lora(line.folder / "a.safetensors", 9)
    (line.folder / "a.json").write_text(json.dumps({"baseModel": "SD,1"}))
    result = line("import", line.folder)
    assert result.exit_code == 1
    assert "must not have a comma" in result.output
    assert mine(line) == []
    (line.folder / "a.json").unlink()
    assert line("import", line.folder).exit_code == 0
    assert [model["name"] for model in mine(line)] == ["a"]


def test_what_its_owner_deleted_is_imported_anew(line: Line):
    lora(line.folder / "a.safetensors", 12)
    line("import", line.folder)
    line.door.client(line.door.key).delete(f"/api/v1/models/{mine(line)[0]['id']}")
    result = line("import", line.folder)
    assert (result.exit_code, len(mine(line))) == (0, 1), result.output


def test_a_broken_sidecar_is_said_and_passed_over(line: Line):
    lora(line.folder / "a.safetensors", 10)
    (line.folder / "a.json").write_text("{")
    result = line("import", line.folder)
    assert (result.exit_code, "left out: a.json is no description" in result.output) == (0, True)


def test_an_upload_goes_on_in_a_later_command(line: Line, monkeypatch: pytest.MonkeyPatch):
    """The first command loses its connection for good after the first bytes; the second sends the rest only."""
    path = lora(line.folder / "big.safetensors", 11)
    sent: list[int] = []
    patch = httpx.Client.patch

    def cut(self: httpx.Client, url: str, **options: Any) -> httpx.Response:
        offset = int(options["headers"]["Upload-Offset"])
        if offset:
            raise httpx.ReadError("the cable is out")
        return patch(self, url, **{**options, "content": path.read_bytes()[:1000]})

    def counted(self: httpx.Client, url: str, **options: Any) -> httpx.Response:
        sent.append(int(options["headers"]["Upload-Offset"]))
        return patch(self, url, **options)

    monkeypatch.setattr("deployments.client.uploads.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(httpx.Client, "patch", cut)
    broken = line("import", line.folder)
    assert (broken.exit_code, "does not respond" in broken.output) == (1, True), broken.output
    monkeypatch.setattr(httpx.Client, "patch", counted)
    result = line("import", line.folder)
    assert (result.exit_code, sent) == (0, [1000]), result.output
    assert len(mine(line)) == 1
    assert list((line.door.settings.data_folder / "import").iterdir()) == []

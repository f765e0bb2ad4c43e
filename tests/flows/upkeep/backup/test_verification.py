"""What is cut, changed or missing in a backup is named."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from deployments.cli import app
from tests.flows.upkeep.backup.source import Source, complaint, newest


def test_any_file_that_is_cut_changed_or_missing_is_named(copy: Path) -> None:
    _, manifest = newest(copy)
    folder = copy / "backups" / manifest.name
    assert len(manifest.files) == 7
    for file in manifest.files:
        path, content = folder / file.name, (folder / file.name).read_bytes()
        path.write_bytes(content[:-1])
        assert f"'{file.name}' has {file.size - 1:,} bytes and should have {file.size:,}" in complaint(copy)
        path.write_bytes(
            content[: file.size // 2] + bytes([content[file.size // 2] ^ 1]) + content[file.size // 2 + 1 :]
        )
        assert f"the bytes of '{file.name}' have changed" in complaint(copy)
        path.unlink()
        assert f"lacks its file '{file.name}'" in complaint(copy)
        path.write_bytes(content)
    assert complaint(copy) == ""


def test_any_blob_that_is_cut_changed_or_missing_is_named(copy: Path) -> None:
    blobs = [path for path in (copy / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) > 4
    for path in blobs:
        content = path.read_bytes()
        path.write_bytes(content[1:])
        assert f"blob {path.name} has" in complaint(copy)
        path.write_bytes(bytes([content[0] ^ 0x80]) + content[1:])
        assert f"the bytes of blob {path.name} have changed" in complaint(copy)
        path.unlink()
        assert f"blob {path.name} is missing" in complaint(copy)
        path.write_bytes(content)
    assert complaint(copy) == ""


def test_a_cut_blob_of_the_place_is_copied_again_and_no_backup_counts_on_it(old: Source) -> None:
    cut = [path for path in (old.place / "blobs").rglob("*") if path.is_file()]
    contents = {path: path.read_bytes() for path in cut}
    for path, content in contents.items():  # rows' bytes and MLflow's artifacts
        path.write_bytes(content[:-1])
    made = old.back_up()
    assert made.copied.count == made.manifest.blobs.count > 0
    assert made.copied_artifacts.size == made.manifest.artifacts.size > 0
    assert complaint(old.place) == ""
    assert {path: path.read_bytes() for path in cut} == contents


def test_a_cut_blob_that_the_platform_has_lost_too_is_named_and_in_no_list(old: Source) -> None:
    image = next(iter(old.stores.blobs.list()))
    content = old.stores.blobs.read(image.sha256)
    [path] = (old.place / "blobs").rglob(image.sha256)
    path.write_bytes(content[:-1])
    old.stores.blobs.delete(image.sha256)
    made = old.back_up()
    assert made.manifest.lost == [f"Blob {image.sha256} is gone"]
    assert f"{made.place} has no whole copy of them, in no backup" in made.complaint()
    assert complaint(old.place) == ""
    old.stores.blobs.put(content)
    assert old.back_up().complaint() == ""
    assert path.read_bytes() == content


def test_a_changed_blob_is_put_aside_by_verify_and_copied_again(old: Source) -> None:
    old.back_up()
    blobs = [path for path in (old.place / "blobs").rglob("*") if path.is_file()]
    path, content = blobs[0], blobs[0].read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    done = CliRunner().invoke(app, ["backup", "verify", str(old.place)])
    said = " ".join(done.output.split())
    assert (done.exit_code, f"the bytes of blob {path.name} have changed" in said) == (1, True), said
    assert "Back up again" in said
    assert "If the platform is lost" in said
    assert said.endswith("--without-damaged")
    assert not path.exists()
    assert (old.place / "damaged" / path.name).read_bytes() != content
    old.back_up()
    assert path.read_bytes() == content
    done = CliRunner().invoke(app, ["backup", "verify", str(old.place)])
    assert (done.exit_code, "is whole" in done.output) == (0, True)


def test_a_changed_blob_is_put_aside_also_where_a_dump_is_cut(old: Source) -> None:
    made = old.back_up()
    path = next(path for path in (old.place / "blobs").rglob("*") if path.is_file())
    path.write_bytes(path.read_bytes() + b"more")
    dump = old.place / "backups" / made.manifest.name / next(f.name for f in made.manifest.files if ".dump" in f.name)
    dump.write_bytes(dump.read_bytes()[:-7])
    done = CliRunner().invoke(app, ["backup", "verify", str(old.place)])
    said = " ".join(done.output.split())
    assert (done.exit_code, path.exists(), (old.place / "damaged" / path.name).exists()) == (1, False, True), said
    assert "go back to this one for nothing. What was there of the blobs is in" in said

"""Bytes that no row names go once they have waited; what a row names is never deleted, whatever happens in between."""

from __future__ import annotations

import os
from uuid import uuid4

import psycopg
import pytest

from flows.upkeep.blob_sweep import NAMED, PAGE, WARY, drop_unnamed, faulty_blobs, sweep_blobs
from storage.errors import StoreUnavailable
from storage.postgres.connection import Query
from storage.postgres.jobs import data_sets, job_files, jobs
from storage.postgres.locks import BLOB_SWEEP
from storage.records.jobs.data_sets import DataSetImage
from storage.stores import Stores
from tests.storage.makers import a_job, an_account

DAY = 86400.0


def put_old(stores: Stores, content: bytes) -> str:
    """A blob that was written years ago."""
    sha256 = stores.blobs.put(content).sha256
    os.utime(stores.settings.data_folder / "blobs" / sha256[:2] / sha256, (0, 0))
    return sha256


def named(stores: Stores, sha256: str, size: int = 7) -> str:
    """Have a data set name these bytes; returns what a finding calls it."""
    image = DataSetImage(position=0, name="a.png", sha256=sha256, size=size, width=64, height=64)
    made = stores.database.run(data_sets.create(an_account(stores.database), "photos", [image]))
    return f"data set {made.id}"


def execute(stores: Stores, statement: str, **parameters: object) -> list[dict[str, object]]:
    return stores.database.run(Query(statement, parameters, lambda rows: [dict(row) for row in rows]))


def wait(stores: Stores, seconds: float) -> None:
    """Let time pass in which sweeps ran."""
    execute(stores, "update orphans set since = since - make_interval(secs => %(seconds)s)", seconds=seconds)


def sleep(stores: Stores, seconds: float) -> None:
    """Set the clock forward: no sweep ran in between."""
    shifted = "make_interval(secs => %(seconds)s)"
    statement = f"update orphans set since = since - {shifted}, seen_at = seen_at - {shifted}"
    execute(stores, statement, seconds=seconds)


def present(stores: Stores) -> set[str]:
    return {blob.sha256 for blob in stores.blobs.list()}


def orphans_of(stores: Stores) -> set[object]:
    return {row["sha256"] for row in execute(stores, "select sha256 from orphans")}


def test_bytes_that_no_row_names_go_once_they_have_waited(stores: Stores) -> None:
    orphans = {put_old(stores, content) for content in (b"one", b"two", b"three")}
    kept = put_old(stores, b"a photo")
    named(stores, kept)
    assert sweep_blobs(stores) == []  # they were written long ago, but nobody knows since when no row names them
    wait(stores, DAY - 60)
    assert sweep_blobs(stores) == []
    wait(stores, 60)
    assert sweep_blobs(stores) == [f"blob {sha256} was named by no row: deleted" for sha256 in sorted(orphans)]
    assert present(stores) == {kept}
    assert orphans_of(stores) == set()
    assert sweep_blobs(stores) == []


def test_the_wait_begins_when_the_last_row_goes(stores: Stores) -> None:
    photo = put_old(stores, b"a photo")
    named(stores, photo)
    sweep_blobs(stores)
    execute(stores, "delete from data_set_images")
    wait(stores, 10 * DAY)
    assert sweep_blobs(stores) == []
    wait(stores, DAY / 2)
    named(stores, photo)
    assert sweep_blobs(stores) == []
    assert orphans_of(stores) == set()
    execute(stores, "delete from data_set_images")
    sweep_blobs(stores)
    wait(stores, DAY / 2)
    assert sweep_blobs(stores) == []
    wait(stores, DAY / 2)
    assert len(sweep_blobs(stores)) == 1


def test_a_put_that_finds_its_bytes_has_them_wait_anew(stores: Stores) -> None:
    orphan = put_old(stores, b"a photo")
    sweep_blobs(stores)
    wait(stores, DAY)
    stores.blobs.put(b"a photo")
    assert sweep_blobs(stores) == []
    assert present(stores) == {orphan}


def test_new_bytes_under_an_old_row_are_young(stores: Stores) -> None:
    sha256 = put_old(stores, b"a photo")
    sweep_blobs(stores)
    wait(stores, 2 * DAY)
    stores.blobs.delete(sha256)  # a deletion that died before its commit
    stores.blobs.put(b"a photo")
    assert sweep_blobs(stores) == []
    os.utime(stores.settings.data_folder / "blobs" / sha256[:2] / sha256, (0, 0))
    assert sweep_blobs(stores) == []  # its wait started over
    assert present(stores) == {sha256}


def test_a_row_whose_bytes_are_gone_is_forgotten(stores: Stores) -> None:
    gone, kept = put_old(stores, b"gone"), put_old(stores, b"kept")
    sweep_blobs(stores)
    stores.blobs.delete(gone)
    sweep_blobs(stores)
    assert orphans_of(stores) == {kept}


@pytest.mark.parametrize("days", [1, 400])
def test_a_clock_set_forward_or_a_restored_database_deletes_nothing_early(stores: Stores, days: float) -> None:
    sha256 = put_old(stores, b"a photo")
    sweep_blobs(stores)
    for _ in range(3):
        sleep(stores, days * DAY)
        assert sweep_blobs(stores) == []
    sleep(stores, days * DAY)  # four sweeps that saw it, a quarter of the grace between each two
    assert sweep_blobs(stores) == [f"blob {sha256} was named by no row: deleted"]


def test_a_clock_set_back_a_day_and_forward_again_deletes_nothing_early(stores: Stores) -> None:
    sha256 = put_old(stores, b"a photo")
    sweep_blobs(stores)
    wait(stores, DAY - 60)
    sleep(stores, -DAY)
    assert sweep_blobs(stores) == []
    wait(stores, DAY / 2)
    stores.blobs.put(b"a photo")  # wanted again while the clock is wrong
    sleep(stores, DAY)
    assert sweep_blobs(stores) == []
    assert present(stores) == {sha256}


def test_rows_whose_bytes_are_gone_or_cut_are_reported_and_kept(stores: Stores) -> None:
    cut = stores.blobs.put(b"a photo").sha256
    of_cut, of_gone = named(stores, cut), named(stores, "f" * 64)
    (stores.settings.data_folder / "blobs" / cut[:2] / cut).write_bytes(b"a ph")
    faults = [
        f"blob {cut} has 4 bytes, and 7 as a row says, it is damaged: {of_cut}",
        f"blob {'f' * 64} is named by a row but gone: {of_gone}",
    ]
    assert faulty_blobs(stores) == sorted(faults)
    assert sweep_blobs(stores) == sorted(faults)
    assert sweep_blobs(stores) == sorted(faults)


def test_while_rows_name_bytes_that_are_gone_orphans_wait_longer(stores: Stores) -> None:
    """As after a restore: the rows are of another day than the blobs, and the newest blobs look like orphans."""
    newer = put_old(stores, b"put after the backup was taken")
    gone = f"blob {'f' * 64} is named by a row but gone: {named(stores, 'f' * 64)}"
    sweep_blobs(stores)
    wait(stores, (WARY - 1) * DAY)
    assert sweep_blobs(stores) == [gone]
    assert present(stores) == {newer}
    wait(stores, DAY)
    assert sweep_blobs(stores) == [gone, f"blob {newer} was named by no row: deleted"]


def test_very_many_lost_blobs_are_counted(stores: Stores) -> None:
    images = [
        DataSetImage(position=n, name="a.png", sha256=f"{n:064x}", size=7, width=64, height=64)
        for n in range(NAMED + 234)
    ]
    stores.database.run(data_sets.create(an_account(stores.database), "photos", images))
    faults = faulty_blobs(stores)
    assert len(faults) == NAMED + 1
    assert faults[-1] == "234 more blobs that rows name are gone or damaged"


def test_pages_leave_no_gap(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PAGE > 100
    monkeypatch.setattr("flows.upkeep.blob_sweep.PAGE", 3)
    hashes = [put_old(stores, str(number).encode()) for number in range(40)]
    lost = [f"{number:064x}" for number in range(0, 2**256, 2**251)]
    rows = {
        sha256: named(stores, sha256, size=len(str(hashes.index(sha256))) if sha256 in hashes else 7)
        for sha256 in [*hashes[::2], *lost]
    }
    gone = [f"blob {sha256} is named by a row but gone: {rows[sha256]}" for sha256 in sorted(lost)]
    assert sweep_blobs(stores) == gone
    assert orphans_of(stores) == set(hashes[1::2])
    execute(stores, "delete from data_set_images")
    wait(stores, 2 * DAY)
    assert len(sweep_blobs(stores)) == 20
    assert present(stores) == set(hashes[::2])


def test_one_sweep_at_a_time(stores: Stores) -> None:
    sha256 = put_old(stores, b"a photo")
    sweep_blobs(stores)
    wait(stores, DAY)
    with stores.database.session_lock(BLOB_SWEEP) as held:
        assert held
        assert sweep_blobs(stores) == []
        assert drop_unnamed(stores, [sha256]) == []
    assert present(stores) == {sha256}
    assert len(sweep_blobs(stores)) == 1


def test_old_checkpoints_go_at_once_unless_a_row_names_them(stores: Stores) -> None:
    job = a_job(stores.database)
    stores.database.run(jobs.claim(job.id, 1, uuid4()))
    old, kept = stores.blobs.put(b"step 1"), stores.blobs.put(b"step 2")
    for step, blob in ((1, old), (2, kept)):
        stores.database.run(job_files.put_checkpoint(job.id, 1, step, blob.sha256, blob.size))
    assert drop_unnamed(stores, [old.sha256]) == []
    assert stores.database.run(job_files.prune_checkpoints(job.id, 1)) == [old.sha256]
    assert drop_unnamed(stores, [old.sha256, kept.sha256]) == [old.sha256]
    assert present(stores) == {kept.sha256}
    assert orphans_of(stores) == set()


def test_a_deletion_whose_commit_fails_puts_the_bytes_back(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection may have been lost, and with it the lock, before the bytes went: somebody may name them by now."""
    sha256 = put_old(stores, b"a photo")
    sweep_blobs(stores)
    wait(stores, DAY)
    delete = stores.blobs.removing

    def cut_off(wanted: str) -> object:
        terminate = "select pg_terminate_backend(pid) from pg_stat_activity where state = 'idle in transaction'"
        with psycopg.connect(stores.settings.postgres.url.get_secret_value(), autocommit=True) as other:
            other.execute(terminate)
        named(stores, sha256)
        return delete(wanted)

    monkeypatch.setattr(stores.blobs, "removing", cut_off)
    with pytest.raises(StoreUnavailable):
        sweep_blobs(stores)
    monkeypatch.undo()
    assert stores.blobs.read(sha256) == b"a photo"
    assert sweep_blobs(stores) == []
    assert sorted(os.listdir(stores.settings.data_folder / "blobs" / ".incoming")) == []


def test_a_blob_store_that_takes_its_time_costs_the_sweep_no_lock(stores: Stores) -> None:
    execute(stores, "create table deletions (patience text)")
    execute(
        stores,
        "create function note_patience() returns trigger language plpgsql as $$ begin "
        "insert into deletions values (current_setting('idle_in_transaction_session_timeout')); return old; end $$",
    )
    execute(stores, "create trigger note before delete on orphans for each row execute function note_patience()")
    put_old(stores, b"one")
    sweep_blobs(stores)
    wait(stores, DAY)
    assert len(sweep_blobs(stores)) == 1
    assert drop_unnamed(stores, [put_old(stores, b"two")])
    assert execute(stores, "select patience from deletions") == [{"patience": "0"}] * 2
    assert execute(stores, "show idle_in_transaction_session_timeout") == [
        {"idle_in_transaction_session_timeout": "1min"}
    ]

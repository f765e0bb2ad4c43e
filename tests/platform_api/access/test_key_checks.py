"""A key works until it is revoked, or the one that made it."""

from __future__ import annotations

from storage.postgres.accounts import accounts
from tests.platform_api.accounts.test_keys import KEYS, id_of, make, works
from tests.platform_api.door import ALL, Door
from tests.platform_api.http.test_problems import assert_problem


def test_revoking_a_key_revokes_what_it_made_and_what_that_made(shared_door: Door) -> None:
    grandmother, neighbour = (shared_door.new_key(*ALL, account="family") for _ in range(2))
    mother, aunt = (make(shared_door.client(grandmother)) for _ in range(2))
    child = make(shared_door.client(mother))
    family, owner = (grandmother, mother, aunt, child), shared_door.client(neighbour)
    assert all(works(shared_door, key) for key in family)
    assert owner.delete(f"{KEYS}/{id_of(mother)}").status_code == 204
    assert [works(shared_door, key) for key in family] == [True, False, True, False]
    rows = {key["id"]: key for key in owner.get(KEYS).json()["items"]}
    assert rows[id_of(child)]["revokedAt"] == rows[id_of(mother)]["revokedAt"] is not None
    assert (rows[id_of(child)]["madeBy"], rows[id_of(grandmother)]["madeBy"]) == (id_of(mother), None)
    revoked = shared_door.database.run(accounts.revoke_key(id_of(grandmother)))
    assert [key.id for key in revoked] == [id_of(key) for key in family]
    assert works(shared_door, neighbour)


def test_a_key_that_revokes_itself_succeeds_and_is_then_dead_with_its_children(shared_door: Door) -> None:
    key = shared_door.new_key(*ALL, account="self-revoking")
    client, child = shared_door.client(key), make(shared_door.client(key))
    assert client.delete(f"{KEYS}/{id_of(key)}").status_code == 204
    assert_problem(client.delete(f"{KEYS}/{id_of(key)}"), 401)
    assert not works(shared_door, child)


def test_a_key_whose_maker_is_revoked_never_works(shared_door: Door) -> None:
    """Also when a row came to be behind the back of the statement that revokes what a key made."""
    key = shared_door.new_key(*ALL, account="late")
    child = make(shared_door.client(make(shared_door.client(key))))
    assert works(shared_door, child)
    with shared_door.database.connect() as connection:
        connection.execute("update api_keys set revoked_at = now() where id = %s", (id_of(key),))
    assert not works(shared_door, child)

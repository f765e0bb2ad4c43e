-- reserve --
-- Tie an Idempotency-Key to a request; no row when it is tied already. Waits for a concurrent first use to end.
insert into idempotency_keys (account_id, key, request_hash) values (%(account_id)s, %(key)s, %(request_hash)s)
on conflict (account_id, key) do nothing
returning key;

-- recall --
-- The request that a key was first used for, and its response.
select request_hash, response from idempotency_keys where account_id = %(account_id)s and key = %(key)s;

-- keep --
update idempotency_keys set response = %(response)s where account_id = %(account_id)s and key = %(key)s returning key;

-- owner --
-- The account that the first start made.
select * from accounts where name = 'owner';

-- ensure_account --
-- The account of this name, made when new.
insert into accounts (name, role) values (%(name)s, %(role)s)
on conflict (name) do update set name = excluded.name
returning *;

-- add_key --
insert into api_keys (id, account_id, name, secret_hash, scopes, expires_at)
values (%(id)s, %(account_id)s, %(name)s, %(secret_hash)s, %(scopes)s, %(expires_at)s)
returning *;

-- key --
select * from api_keys where id = %(id)s;

-- keys --
select * from api_keys order by created_at;

-- revoke_key --
update api_keys set revoked_at = coalesce(revoked_at, now()) where id = %(id)s returning *;

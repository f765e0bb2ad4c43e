-- hold --
-- What an account holds, its row held until the transaction ends: submissions of one account go one after the other.
select bytes from account_usage where account_id = %(account_id)s for no key update;

-- hold_first --
-- The same for an account that has held nothing so far.
insert into account_usage (account_id) values (%(account_id)s)
on conflict (account_id) do update set bytes = account_usage.bytes
returning bytes;

-- of_account --
-- What `account` holds, what it has deleted and is still there, and what it has begun to send: the figures of both
-- statements below.
select greatest(coalesce((select bytes from account_usage where account_id = account.id), 0), 0) as bytes,
       coalesce((select sum(bytes) from released_bytes where account_id = account.id), 0)::bigint as released_bytes,
       coalesce(upload.bytes, 0)::bigint + coalesce(reserved.bytes, 0)::bigint as unfinished_bytes,
       upload.uploads as unfinished_uploads
  from (select sum(length) as bytes, count(*) as uploads from model_uploads
         where account_id = account.id and file_id is null and expires_at > now()) upload,
       (select sum(bytes) as bytes from byte_reservations
         where account_id = account.id and expires_at > now() and id is distinct from %(but)s::uuid) reserved

-- usage --
-- What an account holds, and what it has begun to send.
select usage.* from accounts account cross join lateral ({of_account}) usage where account.id = %(account_id)s;

-- largest --
-- The accounts that hold most.
select account.name, usage.*
  from accounts account
 cross join lateral ({of_account}) usage
 where usage.bytes + usage.unfinished_bytes > 0
 order by usage.bytes + usage.unfinished_bytes desc, account.name
 limit %(limit)s;

-- forget_released --
-- What was deleted so long ago that the blob store does not hold it any more.
delete from released_bytes where at < now() - make_interval(secs => %(seconds)s) returning bytes;

-- reserve --
-- Bytes that a request may bring from now on; forgotten after an hour in which it does not ask again.
insert into byte_reservations (id, account_id, bytes, expires_at)
values (%(id)s, %(account_id)s, %(bytes)s, now() + interval '1 hour')
on conflict (id) do update set bytes = excluded.bytes, expires_at = excluded.expires_at
returning id;

-- release --
delete from byte_reservations where id = %(id)s or expires_at < now() - interval '1 hour' returning id;

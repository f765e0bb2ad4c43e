-- hold --
-- What an account holds, its row held until the transaction ends: submissions of one account go one after the other.
select bytes from account_usage where account_id = %(account_id)s for no key update;

-- hold_first --
-- The same for an account that has held nothing so far.
insert into account_usage (account_id) values (%(account_id)s)
-- An update that changes nothing, because "do nothing" would neither lock nor return the row.
on conflict (account_id) do update set bytes = account_usage.bytes
returning bytes;

-- of_account --
-- What `account` holds, what it has deleted and is still there, and what it has begun to send: the numbers of both
-- statements below.
select greatest(coalesce((select bytes from account_usage where account_id = account.id), 0), 0) as bytes,
       -- Counted until the sweep: otherwise an account could fill a disk within its quota, by uploading and deleting.
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

-- kinds --
-- What an account holds, by what is to be deleted to have the room again.
select coalesce((select sum(file.size)
                   from models model
                   join model_versions version on version.model_id = model.id
                   join version_files file on file.version_id = version.id
                  where model.account_id = %(account_id)s and file.gone_at is null), 0)::bigint as models,
       coalesce((select sum(size) from images
                  where account_id = %(account_id)s and gone_at is null), 0)::bigint
       + coalesce((select sum(size) from source_pictures where account_id = %(account_id)s), 0)::bigint as images,
       coalesce((select sum(photo.size)
                   from data_sets owner join data_set_images photo on photo.data_set_id = owner.id
                  where owner.account_id = %(account_id)s), 0)::bigint as data_sets,
       coalesce((select sum(file.size) from jobs job join job_files file on file.job_id = job.id
                  where job.account_id = %(account_id)s), 0)::bigint
       + coalesce((select sum(kept.size) from jobs job join job_checkpoints kept on kept.job_id = job.id
                    where job.account_id = %(account_id)s), 0)::bigint
       + coalesce((select sum(made.size) from jobs job join job_stage_blobs made on made.job_id = job.id
                    where job.account_id = %(account_id)s), 0)::bigint as jobs;

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

-- add --
insert into source_pictures (account_id, sha256, width, height, size)
values (%(account_id)s, %(sha256)s, %(width)s, %(height)s, %(size)s)
on conflict (account_id, sha256) do update set used_at = now()
returning *;

-- find --
-- What the account sent, or what its generations drew. Named once more, so it is kept from now on as if it were new.
with sent as (
    update source_pictures set used_at = now()
     where account_id = %(account_id)s and sha256 = any(%(hashes)s::text[])
    returning sha256, width, height
)
select sha256, width, height from sent
 union
select file.sha256, (file.details ->> 'width')::int, (file.details ->> 'height')::int
  from jobs job join job_files file on file.job_id = job.id
 where job.account_id = %(account_id)s and job.kind = 'generation' and file.role = 'image'
   and file.sha256 = any(%(hashes)s::text[]) and file.details ? 'width' and file.details ? 'height';

-- of_account --
select * from source_pictures where account_id = %(account_id)s and sha256 = %(sha256)s;

-- delete --
delete from source_pictures where account_id = %(account_id)s and sha256 = %(sha256)s returning sha256;

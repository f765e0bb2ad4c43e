-- put --
-- What a stage of this attempt has made; the same stage again replaces it. Its earlier bytes are named no more.
with holder as (
    select id from jobs where id = %(job_id)s and attempt = %(attempt)s and state in ('running', 'cancelling') for share
), earlier as (
    delete from job_stage_blobs where job_id in (select id from holder) and stage = %(stage)s
       and sha256 <> all(%(hashes)s)
)
insert into job_stages (job_id, stage, key, result, made_by, attempt, seconds, peak_bytes)
select id, %(stage)s, %(key)s, %(result)s, id, %(attempt)s, %(seconds)s, %(peak_bytes)s from holder
on conflict (job_id, stage) do update
   set key = excluded.key, result = excluded.result, made_by = excluded.made_by, attempt = excluded.attempt,
       seconds = excluded.seconds, peak_bytes = excluded.peak_bytes, ended_at = now()
returning *;

-- put_blobs --
-- The bytes that a result names; those that are there stay.
insert into job_stage_blobs (job_id, stage, sha256, size)
select %(job_id)s, %(stage)s, sha256, size from unnest(%(hashes)s::text[], %(sizes)s::bigint[]) as named (sha256, size)
on conflict (job_id, stage, sha256) do nothing
returning sha256;

-- hold --
-- The job, if it is still this attempt's; it stays so until the transaction ends.
select id from jobs where id = %(job_id)s and attempt = %(attempt)s and state in ('running', 'cancelling') for share;

-- of_job --
-- In the order in which they ended.
select * from job_stages where job_id = %(job_id)s order by ended_at, stage;

-- inherit --
-- A retry goes on behind the stages of the job that it retries, but for those that are asked for again.
insert into job_stages (job_id, stage, key, result, made_by, attempt, seconds, peak_bytes, ended_at)
select %(job_id)s, stage, key, result, made_by, attempt, seconds, peak_bytes, ended_at from job_stages
 where job_id = %(retry_of)s and stage <> all(%(but)s)
returning stage;

-- inherit_blobs --
insert into job_stage_blobs (job_id, stage, sha256, size)
select %(job_id)s, stage, sha256, size from job_stage_blobs where job_id = %(retry_of)s and stage <> all(%(but)s)
returning stage;

-- release_blobs --
-- Once the version that was published names them.
delete from job_stage_blobs where job_id = %(job_id)s returning sha256;

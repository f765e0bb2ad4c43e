-- put_checkpoint --
-- A checkpoint of this attempt; progress resets the count of silent attempts.
with holder as (
    update jobs set silent_attempts = 0, heartbeat_at = now()
     where id = %(job_id)s and attempt = %(attempt)s and state in ('running', 'cancelling')
    returning id
)
insert into job_checkpoints (job_id, step, sha256, size)
select id, %(step)s, %(sha256)s, %(size)s from holder
-- An attempt that goes on from an earlier step reaches this one again, with other bytes.
on conflict (job_id, step) do update set sha256 = excluded.sha256, size = excluded.size, created_at = now()
returning *;

-- checkpoints --
-- A job's checkpoints, newest step first.
select * from job_checkpoints where job_id = %(job_id)s order by step desc;

-- prune_checkpoints --
-- Keep only the newest few checkpoints of a job, and those whose step is a multiple of `every` (0: none).
delete from job_checkpoints
 where job_id = %(job_id)s
   and step not in (select step from job_checkpoints where job_id = %(job_id)s order by step desc limit %(keep)s)
   and mod(step, nullif(%(every)s, 0)) is distinct from 0
returning sha256;

-- drop_damaged --
-- Forget a checkpoint whose bytes did not verify in every job that names it: a retry names one of the job that it retries.
-- Each of them goes on from the newest one before it that any of them has.
with gone as (
    delete from job_checkpoints where sha256 = %(sha256)s returning job_id, step
), earlier as (
    select kept.step, kept.sha256, kept.size
      from job_checkpoints kept join gone on gone.job_id = kept.job_id and kept.step < gone.step
     order by kept.step desc limit 1
)
insert into job_checkpoints (job_id, step, sha256, size)
select gone.job_id, earlier.step, earlier.sha256, earlier.size
  from earlier, gone join jobs on jobs.id = gone.job_id
 where jobs.state <> 'succeeded'
on conflict (job_id, step) do nothing
returning step;

-- inherit_checkpoint --
-- Start a retry from the newest checkpoint, of some steps, of the job it retries.
insert into job_checkpoints (job_id, step, sha256, size)
select %(job_id)s, step, sha256, size from job_checkpoints
 where job_id = %(retry_of)s and step between %(first)s and %(last)s order by step desc limit 1
returning step;

-- put_file --
-- Something the job made; the same name again replaces it.
with holder as (
    select id from jobs where id = %(job_id)s and attempt = %(attempt)s and state in ('running', 'cancelling') for share
)
insert into job_files (job_id, name, role, sha256, size, media_type, step, details)
select id, %(name)s, %(role)s, %(sha256)s, %(size)s, %(media_type)s, %(step)s, %(details)s from holder
on conflict (job_id, name) do update
   set sha256 = excluded.sha256, size = excluded.size, details = excluded.details, created_at = now()
returning *;

-- forget_others --
-- Only one file of a role stays: it has what the others had. The job must still be this attempt's.
with holder as (
    select id from jobs where id = %(job_id)s and attempt = %(attempt)s and state in ('running', 'cancelling') for share
)
delete from job_files using holder
 where job_id = holder.id and role = %(role)s and name <> %(kept)s
returning name;

-- delete_all --
-- What a job made and kept of itself. What was published has rows of its own.
-- Its checkpoints and stages count for the account as long as the blob store holds them: those that the job itself replaces do not.
with kept as (select size from job_stage_blobs where job_id = %(job_id)s),
-- Its blobs' rows go with it, after this statement has read them.
stages as (delete from job_stages where job_id = %(job_id)s),
checkpoints as (delete from job_checkpoints where job_id = %(job_id)s returning size),
released as (insert into released_bytes (account_id, bytes)
             select jobs.account_id, sum(gone.size)
               from (select size from checkpoints union all select size from kept) gone, jobs where jobs.id = %(job_id)s
              group by jobs.account_id having sum(gone.size) > 0)
delete from job_files where job_id = %(job_id)s returning name;

-- files --
select * from job_files where job_id = %(job_id)s order by created_at, name;

-- file --
select * from job_files where job_id = %(job_id)s and name = %(name)s;

-- Each deletes at most `limit` rows that were old at `before`, a moment of Postgres' own clock; others' rows are skipped,
-- not waited for. It returns one row: how many went.
-- `= any(array(select ...))` and not `in`: the array is made once and its rows are fetched by an index or by ctid, where
-- `in` may be planned as a join that reads the whole table. A ctid holds, because the same statement has locked its row.

-- now --
select now() as moment;

-- outbox --
-- Events that had their effect. What waits, and what failed, stays however old it is.
with gone as (
    delete from outbox
     where id = any(array(select id from outbox where done_at < %(before)s
                           order by done_at limit %(limit)s for update skip locked))
    returning 1
)
select count(*) as gone from gone;

-- idempotency_keys --
with gone as (
    delete from idempotency_keys
     where (account_id, key) in (select account_id, key from idempotency_keys where created_at < %(before)s
                                  order by created_at limit %(limit)s for update skip locked)
    returning 1
)
select count(*) as gone from gone;

-- sort_keys --
-- Places that no cursor can ask for any more.
with gone as (
    delete from sort_keys
     where ctid = any(array(select ctid from sort_keys where replaced is not null and replaced_at < %(before)s
                             order by replaced_at limit %(limit)s for update skip locked))
    returning 1
)
select count(*) as gone from gone;

-- search_windows --
with gone as (
    delete from search_windows
     where id = any(array(select id from search_windows where created_at < %(before)s
                           order by created_at limit %(limit)s for update skip locked))
    returning 1
)
select count(*) as gone from gone;

-- search_vectors --
-- A text that is still shown is encoded again when it is written next.
with gone as (
    delete from search_vectors
     where ctid = any(array(select ctid from search_vectors where created_at < %(before)s
                             limit %(limit)s for update skip locked))
    returning 1
)
select count(*) as gone from gone;

-- activity_keys --
-- An act this old is rejected by its time alone.
with gone as (
    delete from activity_keys
     where ctid = any(array(select ctid from activity_keys where occurred_at < %(before)s
                             limit %(limit)s for update skip locked))
    returning 1
)
select count(*) as gone from gone;

-- activity_rejected --
with gone as (
    delete from activity_rejected
     where ctid = any(array(select ctid from activity_rejected where noted_at < %(before)s
                             limit %(limit)s for update skip locked))
    returning 1
)
select count(*) as gone from gone;

-- activity_batches --
-- Batches that nothing waits for any more, after a while in which somebody may ask about them.
with gone as (
    delete from activity_batches
     where id = any(array(select id from activity_batches batch
                           where received_at < %(before)s
                             and not exists (select from activity_pending where batch_id = batch.id)
                             and not exists (select from activity_rejected where batch_id = batch.id)
                           order by received_at limit %(limit)s for update skip locked))
    returning 1
)
select count(*) as gone from gone;

-- base_models --
-- Those that were replaced, once no checkpoint is left of the jobs that named them, and no adapter, which is drawn with
-- its base.
with gone as (
    delete from base_models
     where id = any(array(select id from base_models base
                           where retired_at < %(before)s
                             and not exists (select from jobs
                                              where (ended_at is null or state <> 'succeeded' and ended_at >= %(before)s
                                                     or exists (select from job_checkpoints kept where kept.job_id = jobs.id))
                                                and request -> 'recipe' ->> 'base_model_hash' = base.folder_hash)
                             and not exists (select from model_versions version join models model on model.id = model_id
                                              where version.gone_at is null and model.type = 'LORA'
                                                and recipe -> 'recipe' ->> 'base_model_hash' = base.folder_hash)
                           limit %(limit)s for update skip locked))
    returning 1
)
select count(*) as gone from gone;

-- job_checkpoints --
-- Of jobs that ended long ago: a retry begins at the first step. Before that those stay that keepEvery asked for, and of
-- jobs that failed or were cancelled the newest, since a retry begins with no other. A job that succeeded has let go of
-- the others itself, unless its process died before it came to that.
with gone as (
    delete from job_checkpoints
     where (job_id, step) in (select checkpoint.job_id, checkpoint.step
                                from job_checkpoints checkpoint join jobs job on job.id = checkpoint.job_id
                               where job.ended_at < %(before)s
                                  or (job.ended_at is not null
                                      -- One of those that were asked for may be the one that is chosen.
                                      and coalesce(mod(checkpoint.step, nullif((job.request -> 'recipe' ->> 'keep_every')::int, 0)), 1) <> 0
                                      and (job.state = 'succeeded'
                                           or checkpoint.step < (select max(step) from job_checkpoints newest
                                                                  where newest.job_id = checkpoint.job_id)))
                               limit %(limit)s for update of checkpoint skip locked)
    returning 1
)
select count(*) as gone from gone;

-- job_stages --
-- Of jobs that ended long ago: a retry does every stage again. Bytes that only they name go with them.
with gone as (
    delete from job_stages
     where (job_id, stage) in (select made.job_id, made.stage
                                 from job_stages made join jobs job on job.id = made.job_id
                                where job.ended_at < %(before)s
                                limit %(limit)s for update of made skip locked)
    returning 1
)
select count(*) as gone from gone;

-- job_files --
-- What generations drew that ended long ago; what was published of it stays.
with gone as (
    delete from job_files
     where ctid = any(array(select file.ctid from job_files file join jobs job on job.id = file.job_id
                             -- Before its job's end: most are passed over without a look at their jobs.
                             where file.role in ('image', 'grid') and file.created_at < %(before)s
                               and job.kind = 'generation' and job.ended_at < %(before)s
                               and not exists (select from images shown
                                                where shown.sha256 = file.sha256 and shown.account_id = job.account_id
                                                  and shown.gone_at is null)
                             limit %(limit)s for update of file skip locked))
    returning 1
)
select count(*) as gone from gone;

-- source_pictures --
-- Those that nobody has asked for since `before`. A workflow that has not ended keeps the bytes of its own.
with gone as (
    delete from source_pictures
     where ctid = any(array(select ctid from source_pictures where used_at < %(before)s
                             order by used_at limit %(limit)s for update skip locked))
    returning 1
)
select count(*) as gone from gone;

-- alerts --
-- One that is raised stays however old it is.
with gone as (
    delete from alerts
     where id = any(array(select id from alerts where cleared_at < %(before)s limit %(limit)s for update skip locked))
    returning 1
)
select count(*) as gone from gone;

-- backfills --
with old as (
    select id from backfills where finished_at < %(before)s order by id limit %(limit)s for update skip locked
), days as (
    delete from backfill_days where backfill_id in (select id from old) returning 1
), gone as (
    -- After its days, in the order of the constraint.
    delete from backfills where id in (select id from old) and (select count(*) from days) >= 0 returning 1
)
select count(*) as gone from gone;

-- old_sampled_sets --
-- Sets of class images that no job has asked for since `before`.
select recipe_hash from sampled_sets where used_at < %(before)s order by used_at limit %(limit)s;

-- drop_sampled_images --
delete from sampled_images where recipe_hash = %(recipe_hash)s returning position;

-- drop_sampled_set --
delete from sampled_sets where recipe_hash = %(recipe_hash)s and used_at < %(before)s returning recipe_hash;

-- mark --
-- Recorded before the first row goes: whoever misses one finds out why.
insert into retention_marks (rule, up_to) values (%(rule)s, %(before)s)
on conflict (rule) do update set up_to = greatest(retention_marks.up_to, excluded.up_to)
returning rule;

-- count --
update retention_marks set deleted = deleted + %(gone)s where rule = %(rule)s returning deleted;

-- tables --
-- The tables of our schema. A day's partition is part of the table that it belongs to.
select relname as name from pg_class
 where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition
 order by relname;

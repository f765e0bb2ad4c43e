-- insert --
insert into workflows (
    job_id, account_id, external_id, request_hash, lane, tags, metadata, price, units, versions
)
values (
    %(job_id)s, %(account_id)s, %(external_id)s, %(request_hash)s, %(lane)s, %(tags)s, %(metadata)s, %(price)s,
    %(units)s, %(versions)s
)
returning *;

-- insert_steps --
insert into workflow_steps (job_id, position, name, operation, family, pictures, picture_price, picture_units, metadata)
select %(job_id)s, position, name, operation, family, pictures, picture_price, picture_units, metadata
  from jsonb_to_recordset(%(steps)s) as step (
           position int, name text, operation text, family text, pictures int, picture_price bigint,
           picture_units double precision, metadata jsonb)
returning position;

-- insert_sources --
-- The stored pictures that it goes on from, of its account, from where `find` in source_pictures.sql finds them; one that
-- was sent counts as used now.
with used as (
    update source_pictures set used_at = now()
     where account_id = %(account_id)s and sha256 = any(%(hashes)s::text[])
    returning sha256, size, width, height
)
insert into workflow_sources (job_id, sha256, size, width, height)
select distinct on (sha256) %(job_id)s, sha256, size, width, height
  from (select * from used
        union all
        select file.sha256, file.size, (file.details ->> 'width')::int, (file.details ->> 'height')::int
          from job_files file join jobs job on job.id = file.job_id
         where file.sha256 = any(%(hashes)s::text[]) and file.role = 'image'
           and job.kind = 'generation' and job.account_id = %(account_id)s
           and file.details ? 'width' and file.details ? 'height'
        union all
        select source.sha256, source.size, source.width, source.height
          from workflow_sources source join workflows workflow on workflow.job_id = source.job_id
         where source.sha256 = any(%(hashes)s::text[]) and workflow.account_id = %(account_id)s) known
 order by sha256
returning sha256;

-- by_external_id --
-- A caller's own name of a workflow, and what it came with.
select job_id, request_hash from workflows
 where account_id = %(account_id)s and external_id = %(external_id)s;

-- get --
select * from workflows where job_id = any(%(job_ids)s::uuid[]);

-- steps --
select * from workflow_steps where job_id = any(%(job_ids)s::uuid[]) order by job_id, position;

-- drawn --
-- How many pictures of each step are stored.
select file.details ->> 'step' as step, count(*) as pictures from job_files file
 where file.job_id = %(job_id)s and file.role = 'image'
 group by 1;

-- adopt_pictures --
-- What a generation of before there were workflows has drawn, as pictures of its only step, so that none is drawn twice.
update job_files
   set name = %(step)s || substr(name, 6),
       details = details || jsonb_build_object(
           'step', %(step)s::text, 'number', substring(name from '^image-([0-9]+)')::int,
           'width', %(width)s::int, 'height', %(height)s::int)
 where job_id = %(job_id)s and role = 'image' and name ~ '^image-[0-9]+[.]png$' and not details ? 'step'
returning name;

-- wanted --
-- Something can be drawn now, and nobody draws. What banned accounts have submitted waits.
select drain_number(%(flow)s, %(lock)s) as number
 where exists (select from jobs job join accounts owner on owner.id = job.account_id and owner.status = 'active'
                 left join workflows workflow on workflow.job_id = job.id
                where job.kind = 'generation' and job.state = 'submitted'
                  and coalesce(workflow.not_before, '-infinity') <= now());

-- due_in --
-- Seconds until the next of those is due that wait for what could draw them.
select extract(epoch from min(workflow.not_before) - now())::double precision as seconds
  from jobs job join workflows workflow on workflow.job_id = job.id
 where job.kind = 'generation' and job.state = 'submitted' and workflow.not_before > now()
having min(workflow.not_before) is not null;

-- next --
-- The workflow that goes next: of the account that has fewest drawn at this moment, so that no lane gives one of them all
-- the places; among accounts that have equally many the first lane, then the oldest. Those of banned accounts wait.
select job.id, job.attempt from jobs job
  join accounts owner on owner.id = job.account_id and owner.status = 'active'
  left join workflows workflow on workflow.job_id = job.id
  left join (select account_id, count(*) as workflows from jobs
              where kind = 'generation' and state in ('running', 'cancelling')
              group by account_id) drawn on drawn.account_id = job.account_id
 where job.kind = 'generation' and job.state = 'submitted' and not job.id = any(%(passed)s::uuid[])
   and coalesce(workflow.not_before, '-infinity') <= now()
 order by coalesce(drawn.workflows, 0), coalesce(workflow.lane, 1), job.sequence
 limit 1
   for update of job skip locked;

-- over_share --
-- Of these that are drawn, the last one of the account that has most, where that is more than its share while one of
-- another account could be drawn that has less.
with drawn as (
    select account_id, count(*) as workflows from jobs where id = any(%(job_ids)s::uuid[]) group by account_id
)
select job.id from jobs job join drawn on drawn.account_id = job.account_id
 where job.id = any(%(job_ids)s::uuid[]) and job.state = 'running' and drawn.workflows > %(share)s
   and exists (select from jobs other
                 join accounts owner on owner.id = other.account_id and owner.status = 'active'
                 left join workflows workflow on workflow.job_id = other.id
                 left join drawn its on its.account_id = other.account_id
                where other.kind = 'generation' and other.state = 'submitted' and other.account_id <> job.account_id
                  and coalesce(workflow.not_before, '-infinity') <= now()
                  and coalesce(its.workflows, 0) < %(share)s)
 order by drawn.workflows desc, job.sequence desc
 limit 1;

-- cancelling --
-- Of these those that their owners have asked to stop.
select id from jobs where id = any(%(job_ids)s::uuid[]) and state = 'cancelling';

-- ahead --
-- What goes before a submitted workflow, and the work in it: those that are drawn, without the steps that they have done,
-- and those before it in their lane. What accounts have drawn at this moment changes with each start, so it is left out.
with going as (
    select job.id from jobs job where job.kind = 'generation' and job.state in ('running', 'cancelling')
), waiting as (
    select workflow.units from jobs job join workflows workflow on workflow.job_id = job.id
     where job.kind = 'generation' and job.state = 'submitted'
       and (workflow.lane, job.sequence) < (%(lane)s::smallint, %(sequence)s::bigint)
)
select (select count(*) from going) + (select count(*) from waiting) as workflows,
       (select coalesce(sum(step.picture_units * step.pictures), 0)
          from going join workflow_steps step on step.job_id = going.id and step.state in ('waiting', 'running'))
       + (select coalesce(sum(units), 0) from waiting) as units;

-- queue --
-- How many workflows wait and how many are drawn, by lane.
select coalesce(workflow.lane, 1) as lane,
       count(*) filter (where job.state = 'submitted') as waiting,
       count(*) filter (where job.state <> 'submitted') as drawing
  from jobs job left join workflows workflow on workflow.job_id = job.id
 where job.kind = 'generation' and job.state in ('submitted', 'running', 'cancelling')
 group by 1
 order by 1;

-- failing --
-- How long, and how often in a row, what could draw it has failed.
select failures, begun, coalesce(extract(epoch from clock_timestamp() - failing_since), 0)::double precision as seconds
  from workflows where job_id = %(job_id)s;

-- postpone --
update workflows
   set not_before = now() + make_interval(secs => %(pause)s),
       failing_since = now() - make_interval(secs => %(seconds)s), failures = %(failures)s, begun = %(begun)s
 where job_id = %(job_id)s
returning job_id;

-- settle --
-- A picture more is kept: what failed before it counts no more.
update workflows set not_before = null, failing_since = null, failures = 0, begun = 0
 where job_id = %(job_id)s
returning job_id;

-- begin_step --
-- The job's row is held: a new attempt begins before or after this, not meanwhile.
with holder as (
    select id from jobs where id = %(job_id)s and attempt = %(attempt)s and state in ('running', 'cancelling') for share
)
update workflow_steps step
   set state = 'running', backend = coalesce(%(backend)s, step.backend), tries = tries + 1,
       started_at = coalesce(step.started_at, now())
  from holder
 where step.job_id = holder.id and step.position = %(position)s and step.state in ('waiting', 'running')
returning step.*;

-- drew --
-- A picture more is stored: the attempt gets on, so silence before it counts no more.
with holder as (
    update jobs set silent_attempts = 0, heartbeat_at = now()
     where id = %(job_id)s and attempt = %(attempt)s and state in ('running', 'cancelling')
    returning id
)
update workflow_steps step set seconds = seconds + %(seconds)s
  from holder
 where step.job_id = holder.id and step.position = %(position)s
returning step.position;

-- end_step --
with holder as (
    select id from jobs where id = %(job_id)s and attempt = %(attempt)s and state in ('running', 'cancelling') for share
)
update workflow_steps step set state = 'succeeded', ended_at = now()
  from holder
 where step.job_id = holder.id and step.position = %(position)s and step.state = 'running'
returning step.*;

-- paces --
-- Seconds that a unit of work took: the median of the newest steps of a family at a backend.
select family, backend, percentile_cont(0.5) within group (order by pace) as seconds_per_unit
  from (select step.family, coalesce(step.backend, '') as backend, step.seconds / (step.picture_units * step.pictures) as pace
          from workflow_steps step
         where step.state = 'succeeded' and step.seconds > 0 and step.picture_units > 0
         order by step.ended_at desc limit 200) newest
 group by family, backend
 order by family, backend;

-- list --
-- One page of an account's generations, newest first, below a sequence number. Without their requests, which are long.
select job.id, job.account_id, job.kind, job.state, '{}'::jsonb as request, job.attempt, job.silent_attempts,
       job.sequence, job.progress, job.flow_run_id, job.tracking_run_id, job.heartbeat_at, job.submitted_at,
       job.started_at, job.ended_at, job.failure_code, job.failure_reason, job.retry_of, job.model_version_id,
       job.recipe_hash, job.data_set_id, job.request_id
  from jobs job left join workflows workflow on workflow.job_id = job.id
 where job.account_id = %(account_id)s and job.kind = 'generation'
   and workflow.deleted_at is null
   and (%(before)s::bigint is null or job.sequence < %(before)s)
   and (%(state)s::text is null or job.state = %(state)s)
   and (%(tags)s::text[] is null or workflow.tags @> %(tags)s::text[])
   and (%(since)s::timestamptz is null or job.submitted_at >= %(since)s)
   and (%(until)s::timestamptz is null or job.submitted_at < %(until)s)
   and not (%(without_failed)s and job.state in ('failed', 'cancelled'))
 order by job.sequence desc
 limit %(limit)s;

-- change --
update workflows
   set tags = coalesce(%(tags)s::text[], tags),
       metadata = coalesce(%(metadata)s::jsonb, metadata)
 where job_id = %(job_id)s and account_id = %(account_id)s
returning *;

-- change_step --
-- The workflow before its steps, as where it ends.
with held as (select job_id from workflows where job_id = %(job_id)s for no key update)
update workflow_steps step set metadata = %(metadata)s
  from held
 where step.job_id = held.job_id and step.name = %(name)s
returning step.*;

-- delete --
update workflows set deleted_at = coalesce(deleted_at, now())
 where job_id = %(job_id)s and account_id = %(account_id)s
returning job_id;

-- untracked --
-- Workflows that ran and ended without a tracking run that we know of, but those that were passed over.
select * from jobs
 where kind = 'generation' and tracking_run_id is null and started_at is not null and ended_at is not null
   and exists (select from workflows where job_id = jobs.id)
   and ended_at > now() - interval '7 days' and not id = any(%(passed)s::uuid[])
 order by sequence
 limit %(limit)s;

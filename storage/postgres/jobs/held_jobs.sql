-- heartbeats --
-- One that is held by somebody waits for the next heartbeat.
with beats as (
    select * from jsonb_to_recordset(%(beats)s) as beat (id uuid, attempt int, progress jsonb)
), free as (
    select job.id, beats.progress from jobs job join beats on beats.id = job.id and beats.attempt = job.attempt
     where job.state in ('running', 'cancelling')
     order by job.id
       for no key update of job skip locked
)
update jobs set heartbeat_at = now(), progress = free.progress
  from free
 where jobs.id = free.id
returning jobs.*;

-- rows --
select * from jobs where id = any(%(job_ids)s::uuid[]);

-- has_to_wait --
with held as (
    select job.id, job.silent_attempts, held.since
      from unnest(%(held)s::uuid[], %(since)s::timestamptz[]) as held (id, since) join jobs job on job.id = held.id
)
select exists (select from held where silent_attempts > 0)
       or (exists (select from jobs where id = %(job_id)s and silent_attempts > 0)
           and exists (select from held
                        where not exists (select from job_files file
                                           where file.job_id = held.id and file.role = 'image'
                                             and file.created_at > held.since))) as waits;

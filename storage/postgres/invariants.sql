-- succeeded_without_version --
-- A training job that succeeded has exactly one model version.
select job.id::text as fault from jobs job
  left join model_versions version on version.job_id = job.id
 where job.kind = 'training' and job.state = 'succeeded' and version.id is distinct from job.model_version_id
    or job.kind = 'training' and job.state = 'succeeded' and version.id is null;

-- version_without_success --
-- A model version belongs to a job that succeeded.
select version.id::text as fault from model_versions version join jobs job on job.id = version.job_id
 where job.state <> 'succeeded';

-- version_without_files --
select version.id::text as fault from model_versions version
 where not exists (select from version_files file where file.version_id = version.id and file.role = 'weights');

-- ended_without_event --
-- Every end of a job is told.
select job.id::text as fault from jobs job
 where job.state in ('succeeded', 'failed', 'cancelled')
   and not exists (select from outbox where subject = 'job:' || job.id and kind = 'job.' || job.state);

-- published_without_event --
select version.id::text as fault from model_versions version
 where not exists (select from outbox
                    where subject = 'model_version:' || version.id and kind = 'model_version.published');

-- overdue_events --
-- Events older than a while that still have had no effect.
select id || ' ' || kind || coalesce(': ' || last_error, '') as fault from outbox
 where done_at is null and created_at < now() - make_interval(secs => %(seconds)s)
 order by id;

-- silent_jobs --
select id::text as fault from jobs
 where state in ('running', 'cancelling') and heartbeat_at < now() - make_interval(secs => %(seconds)s);

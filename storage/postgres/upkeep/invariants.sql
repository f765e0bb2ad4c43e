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
-- What is published can be downloaded.
select version.id::text as fault from model_versions version
 where version.status = 'Published'
   and not exists (select from version_files file
                    where file.version_id = version.id and file.role = 'weights' and file.gone_at is null);

-- misplaced_items --
-- An item stands in the lists exactly when it should, where its counts put it.
select distinct coalesce(place.item_id, key.item_id)::text as fault
  from catalogue_places place
  full join (select * from sort_keys where replaced is null) key
    on (key.list, key.item_id, key.k1, key.k2) = (place.list, place.item_id, place.k1, place.k2)
 where place.list is null or key.list is null;

-- ended_without_event --
-- Every end of a job is reported. Of what ended long ago retention has deleted the event.
select job.id::text as fault from jobs job
 where job.state in ('succeeded', 'failed', 'cancelled')
   and job.ended_at >= coalesce((select up_to from retention_marks where rule = 'outbox'), '-infinity')
   and not exists (select from outbox where subject = 'job:' || job.id and kind = 'job.' || job.state);

-- published_without_event --
select version.id::text as fault from model_versions version
 where version.job_id is not null
   and version.created_at >= coalesce((select up_to from retention_marks where rule = 'outbox'), '-infinity')
   and not exists (select from outbox
                    where subject = 'model_version:' || version.id and kind = 'model_version.published');

-- generation_without_rows --
-- A generation has its workflow and all of its steps, but those of before there were workflows.
with lacking as materialized (
    select job.id, job.request from jobs job
      left join workflows workflow on workflow.job_id = job.id
      left join (select job_id, count(*) as steps from workflow_steps group by job_id) there on there.job_id = job.id
     where job.kind = 'generation' and (workflow.job_id is null or there.steps is null)
)
select id::text as fault from lacking where request ? 'steps' and request ? 'asked';

-- ended_without_charge --
-- What was drawn is charged when a generation ends, and not before.
select job.id::text as fault from jobs job join workflows workflow on workflow.job_id = job.id
 where (job.ended_at is not null) <> (workflow.charged is not null) or workflow.charged > workflow.price;

-- step_of_ended_job --
-- Steps end with their job, and the pictures that they go on from are let go.
select job.id::text as fault from workflow_steps step join jobs job on job.id = step.job_id
 where step.state in ('waiting', 'running') and job.ended_at is not null
 union
select job.id::text from workflow_sources source join jobs job on job.id = source.job_id
 where job.ended_at is not null;

-- overdue_events --
-- Events older than a while that still have had no effect.
select id || ' ' || kind || coalesce(': ' || last_error, '') as fault from outbox
 where done_at is null and created_at < now() - make_interval(secs => %(seconds)s)
 order by id;

-- silent_jobs --
select id::text as fault from jobs
 where state in ('running', 'cancelling') and heartbeat_at < now() - make_interval(secs => %(seconds)s);

-- miscounted_usage --
-- What is counted for an account is what its rows hold. Of many accounts a part is summed, another one with every ten
-- minutes, by the hashes of their ids.
with rounds as (
    select greatest(1, ceil(count(*) / coalesce(%(accounts)s::float8, 'infinity')))::bigint as parts from accounts
), chosen as materialized (
    select id from accounts cross join rounds
     -- hashtext is signed, and mod of a negative number is negative: moved up, every id falls into one of the parts.
     where mod(hashtext(id::text)::bigint + 2147483648, parts) = mod(floor(extract(epoch from now()) / 600)::bigint, parts)
), held as (
    select account_id, sum(size)::bigint as bytes
      from (select owner.account_id, file.size
              from chosen join models owner on owner.account_id = chosen.id
              join model_versions version on version.model_id = owner.id
              join version_files file on file.version_id = version.id
             where file.gone_at is null
            union all select image.account_id, image.size
                        from chosen join images image on image.account_id = chosen.id where image.gone_at is null
            union all select sent.account_id, sent.size
                        from chosen join source_pictures sent on sent.account_id = chosen.id
            union all select owner.account_id, photo.size
                        from chosen join data_sets owner on owner.account_id = chosen.id
                        join data_set_images photo on photo.data_set_id = owner.id
            union all select owner.account_id, file.size
                        from chosen join jobs owner on owner.account_id = chosen.id
                        join job_files file on file.job_id = owner.id
            union all select owner.account_id, kept.size
                        from chosen join jobs owner on owner.account_id = chosen.id
                        join job_checkpoints kept on kept.job_id = owner.id
            union all select owner.account_id, made.size
                        from chosen join jobs owner on owner.account_id = chosen.id
                        join job_stage_blobs made on made.job_id = owner.id) known
     group by account_id
)
select chosen.id::text as fault
  from chosen
  left join account_usage usage on usage.account_id = chosen.id
  left join held on held.account_id = chosen.id
 where coalesce(usage.bytes, 0) <> coalesce(held.bytes, 0);

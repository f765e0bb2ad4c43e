-- page --
-- A page of an account's workflows that have all of these tags and, somewhere in their metadata, these words.
select job.* from jobs job join workflows workflow on workflow.job_id = job.id
 where job.account_id = %(account_id)s and job.kind = 'generation' and workflow.deleted_at is null
   and (%(beyond)s::bigint is null or job.sequence {beyond} %(beyond)s)
   and (%(tags)s::text[] is null or workflow.tags @> %(tags)s::text[])
   and (%(since)s::timestamptz is null or job.submitted_at >= %(since)s)
   and (%(until)s::timestamptz is null or job.submitted_at <= %(until)s)
   and not (%(without_failed)s and job.state in ('failed', 'cancelled'))
   and (%(words)s::text is null
        or exists (select from jsonb_path_query(workflow.metadata, 'strict $.**') as value
                    where jsonb_typeof(value) in ('string', 'number')
                      and position(lower(%(words)s) in lower(value #>> '{}')) > 0))
 order by job.sequence {order}
 limit %(limit)s;

-- find --
-- An account's workflow that it has not deleted, by its id or by the account's own name of it.
select job.* from jobs job join workflows workflow on workflow.job_id = job.id
 where workflow.account_id = %(account_id)s and workflow.deleted_at is null
   and job.id = %(job_id)s;

-- is_named --
select job_id from workflows where account_id = %(account_id)s and external_id = %(external_id)s;

-- hold_job --
-- Before the workflow's row: whoever ends a job locks them in this order, too.
select id from jobs where id = %(job_id)s and account_id = %(account_id)s for update;

-- hold --
-- The row of a workflow until the transaction ends, so that what is read of it is what is changed.
select * from workflows
 where job_id = %(job_id)s and account_id = %(account_id)s and deleted_at is null
   for no key update;

-- hold_step --
-- The workflow's row before the step's, as where a workflow ends: else two would wait for each other.
with held as (
    select job_id from workflows
     where job_id = %(job_id)s and account_id = %(account_id)s and deleted_at is null
       for no key update
)
select step.* from held join workflow_steps step on step.job_id = held.job_id
 where step.name = %(name)s
   for no key update of step;

-- pictures --
-- What these jobs have drawn.
select * from job_files where job_id = any(%(job_ids)s::uuid[]) and role = 'image' order by job_id, name;

-- picture --
select file.* from job_files file join workflows workflow on workflow.job_id = file.job_id
 where workflow.account_id = %(account_id)s and workflow.deleted_at is null
   and file.job_id = %(job_id)s and file.name = %(name)s and file.role = 'image';

-- sent --
-- A picture that an account sent, and whether that account is banned.
select picture.*, owner.status = 'active' as owner_active
  from source_pictures picture join accounts owner on owner.id = picture.account_id
 where picture.account_id = %(account_id)s and picture.sha256 = %(sha256)s;

-- add --
insert into source_pictures (account_id, sha256, width, height, size)
values (%(account_id)s, %(sha256)s, %(width)s, %(height)s, %(size)s)
on conflict (account_id, sha256) do update set used_at = now()
returning *;

-- find --
-- What the account sent, what its generations drew, or what one that has not ended goes on from, which may be deleted
-- meanwhile; but nothing drawn with a model that was taken down. The rows stay until the transaction ends; who only marks
-- one as used is not held up.
with taken_down as (
    select file.sha256
      from job_files file
      join workflows workflow on workflow.job_id = file.job_id
      join model_versions version on version.id = any(workflow.versions)
      join models model on model.id = version.model_id
     where file.sha256 = any(%(hashes)s::text[]) and file.role = 'image'
       and workflow.account_id = %(account_id)s and model.mode = 'TakenDown'
), sent as (
    select sha256, width, height from source_pictures
     where account_id = %(account_id)s and sha256 = any(%(hashes)s::text[])
       for key share
), drawn as (
    select file.sha256, (file.details ->> 'width')::int as width, (file.details ->> 'height')::int as height
      from job_files file join jobs job on job.id = file.job_id
     where file.sha256 = any(%(hashes)s::text[]) and file.role = 'image'
       and job.kind = 'generation' and job.account_id = %(account_id)s
       and file.details ? 'width' and file.details ? 'height'
       and file.sha256 not in (select sha256 from taken_down)
       for key share of file
), kept as (
    select source.sha256, source.width, source.height
      from workflow_sources source join workflows workflow on workflow.job_id = source.job_id
     where source.sha256 = any(%(hashes)s::text[]) and workflow.account_id = %(account_id)s
       and source.sha256 not in (select sha256 from taken_down)
       for key share of source
)
select * from sent union all select * from drawn union all select * from kept;

-- of_account --
select * from source_pictures where account_id = %(account_id)s and sha256 = %(sha256)s;

-- delete --
-- What is counted for the account first, as who sends one takes both.
with held as (select account_id from account_usage where account_id = %(account_id)s for no key update)
delete from source_pictures sent using held
 where sent.account_id = held.account_id and sent.sha256 = %(sha256)s
returning sent.sha256;

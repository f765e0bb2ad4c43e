-- has_power --
-- For a viewer: whether everything of the model's owner is shown and may be changed. Viewer.has_power_over, in SQL.
({moderator} or model.account_id is not distinct from {account_id})

-- seen_model --
(model.visible or model.gone_at is null and {has_power})

-- seen_version --
-- Whether the viewer sees a version of a model.
(model.visible and version.id = any(model.public_versions)
 or version.gone_at is null and model.gone_at is null and {has_power})

-- shown_image --
-- Whether everybody who sees the version sees an image of it: nobody has blocked it or banned who showed it.
(image.nsfw_level <> 32 and exists (select from accounts where id = image.account_id and status = 'active'))

-- notified --
-- Whether a notification may still be read by the account `reader`: what it is about is seen, and the words that it
-- quotes were not deleted, nor their author banned.
(case notification.type
     when 'version_published' then exists (
         select from model_versions version join models model on model.id = version.model_id
          where version.id = (notification.details ->> 'model_version_id')::bigint and {seen_version})
     when 'comment' then exists (
         select from {seen_comments} and comment.id = (notification.details ->> 'comment_id')::bigint)
     when 'mention' then exists (
         select from {seen_comments} and comment.id = (notification.details ->> 'comment_id')::bigint)
     else true end)

-- seen_comments --
-- The comments that the viewer sees: what stands after `from`, up to the last condition but the one that picks some.
comments comment
  join accounts author on author.id = comment.account_id and author.status = 'active'
  left join images image on comment.entity = 'image' and image.id = comment.entity_id
  left join model_versions version
    on version.id = case comment.entity when 'image' then image.version_id when 'version' then comment.entity_id end
  join models model on model.id = case comment.entity when 'model' then comment.entity_id else version.model_id end
 where comment.deleted_at is null and case when version.id is null then {seen_model} else {seen_version} end
   and (image.id is null or {seen_image})

-- seen_image --
-- Whether the viewer sees an image of a version that they see.
(image.gone_at is null and ({shown_image} or {has_power}))

-- version_facts --
owner.id as owner_id, owner.status = 'active' as owner_active, model.id as model_id, model.status, model.availability,
model.mode, model.published_at is not null as was_published, model.gone_at is not null as gone, model.gone_reason,
cardinality(model.public_versions) > 0 as has_public_version, version.id as version_id,
version.status as version_status, version.availability as version_availability,
version.published_at is not null as version_was_published, version.gone_at is not null as version_gone,
version.gone_reason as version_gone_reason, version.id = any(model.public_versions) as has_public_file,
version.require_auth, version.usage_control

-- link_reader --
-- The account that a signed link was made for, if it was for one.
to_jsonb(reader) as reader

-- file_by_id --
-- A file behind a link, with what decides about it.
select file.*, '{}'::jsonb as hashes, {version_facts}, 'file' as thing, file.id as file_id,
       file.gone_at is not null as file_gone, version.nsfw_level as level, {link_reader}
  from version_files file
  join model_versions version on version.id = file.version_id
  join models model on model.id = version.model_id
  join accounts owner on owner.id = model.account_id
  left join accounts reader on reader.number = %(reader)s::bigint
 where file.id = %(id)s;

-- file_by_path --
-- The file that a version has at a path, with what decides about it; without a file, what decides about the version.
select file.*, '{}'::jsonb as hashes, {version_facts},
       case when file.id is null then 'model version' else 'file' end as thing,
       coalesce(file.id, 0) as file_id, coalesce(file.visibility, 'Public') as visibility,
       version.nsfw_level as level
  from model_versions version
  join models model on model.id = version.model_id
  join accounts owner on owner.id = model.account_id
  left join version_files file on file.version_id = version.id and file.path = %(path)s and file.gone_at is null
 where version.id = %(version_id)s;

-- image --
-- An image, gone ones too, with what decides about it.
select image.*, {version_facts}, 'image' as thing, image.id as image_id, image.nsfw_level as image_level,
       image.gone_at is not null as image_gone, image.nsfw_level as level, shown_by.status = 'active' as shown_by_active,
       {link_reader}
  from images image
  join accounts shown_by on shown_by.id = image.account_id
  join model_versions version on version.id = image.version_id
  join models model on model.id = version.model_id
  join accounts owner on owner.id = model.account_id
  left join accounts reader on reader.number = %(reader)s::bigint
 where image.id = %(id)s and (%(sha256)s::text is null or image.sha256 = %(sha256)s::text);

-- job_file --
-- A file of a job by its bytes, whether its owner is banned, why a model that the job made, or drew with, was taken
-- down, if one was, and whether what it shows was deleted: the model that the job made, or for a grid, which shows the
-- photos too, its data set.
select file.*, job.account_id as owner_id, owner.status = 'active' as owner_active,
       (select model.gone_reason
          from model_versions version join models model on model.id = version.model_id
         where model.mode = 'TakenDown'
           and version.id = any(array(
               select job.model_version_id
                union all
               -- Of before there were workflows. The request of one is long, so it is not read.
               select case when workflow.job_id is null then (job.request ->> 'model_version_id')::bigint end
                union all
               -- Models and adapters of all steps of a workflow: a picture of one goes into another.
               select unnest(workflow.versions)))
         order by version.id limit 1) as taken_down,
       exists (select from model_versions version join models model on model.id = version.model_id
                where version.id = job.model_version_id and (version.gone_at is not null or model.gone_at is not null))
       or file.role = 'grid' and exists (
           select from data_sets where id = job.data_set_id and deleted_at is not null) as deleted
  from job_files file
  join jobs job on job.id = file.job_id
  join accounts owner on owner.id = job.account_id
  left join workflows workflow on workflow.job_id = job.id
 where file.job_id = %(job_id)s and file.sha256 = %(sha256)s
 -- The same bytes may be files of one job under several names: a grid among them decides.
 order by file.role = 'grid' desc limit 1;

-- hold_names --
-- Held while an account's model gets a name, so that two never get the same one.
select id from accounts where id = %(account_id)s for no key update;

-- insert_files --
-- Files with their hashes, upper-case once and for all.
with given as (
    select * from jsonb_to_recordset(%(files)s)
        as file (path text, role text, sha256 text, size bigint, type text, format text, size_kind text, fp text,
                 quant_type text, checked text, hashes jsonb)
), made as (
    insert into version_files (version_id, path, role, sha256, size, type, format, size_kind, fp, quant_type, checked)
    select %(version_id)s, path, role, sha256, size, type, format, size_kind, fp, quant_type, checked from given
    returning id, path, role
)
insert into file_hashes (file_id, kind, hash)
select made.id, known.kind, upper(known.hash)
  from made join given using (path),
       lateral (values ('SHA256', given.sha256), ('AutoV2', left(given.sha256, 10))
                union select * from jsonb_each_text(given.hashes)) known (kind, hash)
 -- Members of the diffusers folder are no files that clients look up by a hash.
 where made.role = 'weights' and known.hash is not null
on conflict do nothing
returning file_id;

-- insert_images --
insert into images (version_id, account_id, position, sha256, size, media_type, width, height, blurhash, nsfw_level,
                    meta)
select %(version_id)s, %(account_id)s,
       (select coalesce(max(position), 0) from images where version_id = %(version_id)s) + row_number() over (),
       sha256, size, media_type, width, height, blurhash, nsfw_level, meta
  from jsonb_to_recordset(%(images)s)
    as image (sha256 text, size bigint, media_type text, width int, height int, blurhash text, nsfw_level int,
              meta jsonb)
returning id;

-- model --
select * from models where id = %(id)s and account_id = %(account_id)s and status <> 'Deleted';

-- list_models --
select * from models
 where account_id = %(account_id)s and status <> 'Deleted' and (%(before)s::bigint is null or id < %(before)s)
 order by id desc
 limit %(limit)s;

-- versions --
select * from model_versions
 where model_id = any(%(model_ids)s) and gone_at is null
 order by model_id, position desc;

-- version --
select version.* from model_versions version join models model on model.id = version.model_id
 where version.id = %(id)s and model.account_id = %(account_id)s and version.gone_at is null;

-- version_by_id --
select * from model_versions where id = %(id)s;

-- model_by_id --
select * from models where id = %(id)s;

-- version_of_job --
select * from model_versions where job_id = %(job_id)s;

-- files --
select file.*,
       coalesce((select jsonb_object_agg(kind, hash) from file_hashes where file_id = file.id), '{}') as hashes
  from version_files file
 where file.version_id = any(%(version_ids)s) and file.gone_at is null
 -- Descending: 'weights' comes before 'folder'.
 order by file.version_id, file.role desc, file.path;

-- models_by_id --
-- Models in the order of their ids' list.
select model.* from unnest(%(ids)s::bigint[]) with ordinality as asked (id, place) join models model using (id)
 order by asked.place;

-- revisions --
-- Which models stand in lists, and as of which revision, in the order of their ids' list.
select model.id, model.revision, (select epoch from catalogue_home) as epoch, model.nsfw_level
  from unnest(%(ids)s::bigint[]) with ordinality as asked (id, place) join models model using (id)
 where model.listed
 order by asked.place;

-- versions_by_id --
select * from model_versions where id = any(%(ids)s);

-- model_stats --
select * from model_stats where model_id = any(%(ids)s);

-- version_stats --
select * from version_stats where version_id = any(%(ids)s);

-- unregistered --
-- Trained versions that MLflow's registry does not have yet, as far as we know.
select version.* from model_versions version join models model on model.id = version.model_id
 where version.registered_as is null and version.job_id is not null
   and version.gone_at is null and model.gone_at is null
 order by version.id
 limit %(limit)s;

-- withdrawn --
-- Versions that MLflow's registry still has although they were deleted, or their models taken down.
select version.* from model_versions version join models model on model.id = version.model_id
 where version.registered_as is not null and (version.gone_at is not null or model.gone_at is not null)
 order by version.id
 limit %(limit)s;

-- note_registered --
update model_versions set registered_as = %(registered_as)s where id = %(id)s returning id;

-- hold_names --
-- Held while an account's model gets a name, so that two never get the same one.
select id from accounts where id = %(account_id)s for no key update;

-- ensure_model --
-- The account's model of this name, made when new. What is private has no date of publication. A version for everybody
-- publishes a draft of that name, and a model of fine-tunes that was never published; a model that its owner or a
-- moderator has hidden stays hidden, and a private version changes nothing of its model.
insert into models (account_id, name, status, availability, published_at, upload_type, checkpoint_type)
values (%(account_id)s, %(name)s, 'Published', %(availability)s,
        case when %(availability)s::text <> 'Private' then now() end, 'Trained', 'Trained')
on conflict (account_id, lower(name)) where status <> 'Deleted' do update
   set (status, availability, published_at) =
       (select case when opens and models.status = 'Draft' then 'Published' else models.status end,
               case when opens and unseen then excluded.availability else models.availability end,
               coalesce(models.published_at,
                        case when opens and (unseen or models.status = 'Draft' and models.availability <> 'Private')
                             then now() end)
          from (select excluded.availability <> 'Private' as opens,
                       models.availability = 'Private' and models.upload_type = 'Trained'
                       and models.status = 'Published' and models.published_at is null as unseen) as known)
returning *;

-- insert_version --
-- The next version of a model. Publishing one job twice is refused by the unique job_id.
insert into model_versions (model_id, position, name, job_id, base_model, trained_words, recipe, evaluation, steps,
                            status, availability, upload_type, published_at)
select %(model_id)s, next.position, 'v' || next.position, %(job_id)s, %(base_model)s, %(trained_words)s, %(recipe)s,
       %(evaluation)s, %(steps)s, 'Published', %(availability)s, 'Trained',
       case when %(availability)s::text <> 'Private' then now() end
  from (select coalesce(max(position), 0) + 1 as position from model_versions where model_id = %(model_id)s) next
returning *;

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
 order by file.version_id, file.role desc, file.path;

-- models_by_id --
-- Models in the order of their ids' list.
select model.* from unnest(%(ids)s::bigint[]) with ordinality as asked (id, place) join models model using (id)
 order by asked.place;

-- revisions --
-- Which models stand in lists, and as of which revision, in the order of their ids' list.
select model.id, model.revision, model.nsfw_level
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
select * from model_versions
 where registered_as is null and job_id is not null and gone_at is null
 order by id
 limit %(limit)s;

-- note_registered --
update model_versions set registered_as = %(registered_as)s where id = %(id)s returning id;

-- ensure_model --
-- The account's model of this name, made when new.
insert into models (account_id, name) values (%(account_id)s, %(name)s)
on conflict (account_id, lower(name)) do update set name = models.name
returning *;

-- insert_version --
-- The next version of a model. Publishing one job twice is refused by the unique job_id.
insert into model_versions (model_id, position, name, job_id, base_model, trained_words, recipe, evaluation)
select %(model_id)s, next.position, 'v' || next.position, %(job_id)s, %(base_model)s, %(trained_words)s, %(recipe)s,
       %(evaluation)s
  from (select coalesce(max(position), 0) + 1 as position from model_versions where model_id = %(model_id)s) next
returning *;

-- insert_files --
insert into version_files (version_id, path, role, sha256, size, hashes)
select %(version_id)s, path, role, sha256, size, hashes
  from jsonb_to_recordset(%(files)s) as file (path text, role text, sha256 text, size bigint, hashes jsonb);

-- model --
select * from models where id = %(id)s and account_id = %(account_id)s;

-- list_models --
select * from models
 where account_id = %(account_id)s and (%(before)s::bigint is null or id < %(before)s)
 order by id desc
 limit %(limit)s;

-- versions --
select * from model_versions where model_id = any(%(model_ids)s) order by model_id, position desc;

-- version --
select version.* from model_versions version join models model on model.id = version.model_id
 where version.id = %(id)s and model.account_id = %(account_id)s;

-- version_by_id --
select * from model_versions where id = %(id)s;

-- model_by_id --
select * from models where id = %(id)s;

-- version_of_job --
select * from model_versions where job_id = %(job_id)s;

-- files --
select * from version_files where version_id = %(version_id)s order by role desc, path;

-- unregistered --
-- Versions that MLflow's registry does not have yet, as far as we know.
select * from model_versions where registered_as is null order by id limit %(limit)s;

-- note_registered --
update model_versions set registered_as = %(registered_as)s where id = %(id)s returning id;

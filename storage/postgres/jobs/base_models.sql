-- insert --
-- A base model under a name; no row when the name is taken.
insert into base_models (name, folder_hash, facts) values (%(name)s, %(folder_hash)s, %(facts)s)
on conflict (name) do nothing
returning *;

-- forget_same --
-- The same folder was replaced before: its name is needed once more, and the row that comes has equal files.
delete from base_models replaced using base_models base
 where base.id = %(id)s and replaced.name = base.name || '@' || left(base.folder_hash, 12)
returning replaced.name;

-- retire --
-- The name becomes free.
update base_models set name = name || '@' || left(folder_hash, 12), retired_at = now()
 where id = %(id)s
returning name;

-- insert_files --
insert into base_model_files (base_model_id, path, sha256, size)
select %(base_model_id)s, path, sha256, size
  from jsonb_to_recordset(%(files)s) as file (path text, sha256 text, size bigint);

-- by_name --
select * from base_models where name = %(name)s and retired_at is null;

-- hold_by_name --
-- Two that replace the same folder wait for each other.
select * from base_models where name = %(name)s and retired_at is null for update;

-- by_hash --
-- A folder may be registered under two names; the bytes are the same, so any of them will do. One that was replaced may
-- go, so it comes last.
select * from base_models where folder_hash = %(folder_hash)s order by retired_at desc nulls first, created_at limit 1;

-- hold_by_hash --
-- Retention passes over a row that is held: a job that is made in this transaction will name it.
select * from base_models where folder_hash = %(folder_hash)s
 order by retired_at desc nulls first, created_at limit 1 for share;

-- list --
select * from base_models where retired_at is null order by name;

-- list_replaced --
select * from base_models where retired_at is not null order by name;

-- files --
select * from base_model_files where base_model_id = %(base_model_id)s order by path;

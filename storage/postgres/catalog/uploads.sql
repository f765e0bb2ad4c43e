-- create --
insert into model_uploads (id, account_id, version_id, name, type, length, expected_sha256, metadata, expires_at)
values (%(id)s, %(account_id)s, %(version_id)s, %(name)s, %(type)s, %(length)s, %(sha256)s, %(metadata)s,
        now() + %(hours)s * interval '1 hour')
returning *;

-- get --
select *, expires_at <= now() as expired from model_uploads where id = %(id)s;

-- receive --
-- More bytes are on the disk; the upload may rest as long as a new one again. Never for one that is finished.
update model_uploads
   set received = %(received)s, expires_at = now() + %(hours)s * interval '1 hour'
 where id = %(id)s and file_id is null
returning *;

-- finish --
-- The last bytes are received together with what all of them became.
update model_uploads set received = length, file_id = %(file_id)s where id = %(id)s and file_id is null
returning *;

-- delete --
delete from model_uploads where id = %(id)s returning id;

-- expired --
select id from model_uploads where expires_at <= now() order by expires_at limit 1000;

-- known --
select id from model_uploads where id = any(%(ids)s);

-- file_of_name --
-- The file that stands at a path of a version.
select file.*,
       coalesce((select jsonb_object_agg(kind, hash) from file_hashes where file_id = file.id), '{}') as hashes
  from version_files file
 where file.version_id = %(version_id)s and file.path = %(path)s and file.gone_at is null;

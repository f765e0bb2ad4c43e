-- insert --
insert into data_sets (id, account_id, name, content_hash)
values (%(id)s, %(account_id)s, %(name)s, %(content_hash)s)
returning *, 0 as image_count;

-- insert_images --
insert into data_set_images (data_set_id, position, name, sha256, size, width, height, caption, repeats, whole_prompt)
select %(data_set_id)s, position, name, sha256, size, width, height, caption, repeats, whole_prompt
  from jsonb_to_recordset(%(images)s)
    as image (position int, name text, sha256 text, size bigint, width int, height int, caption text,
              repeats int, whole_prompt boolean);

-- get --
select *, (select count(*) from data_set_images where data_set_id = id) as image_count
  from data_sets
 where id = %(id)s and account_id = %(account_id)s and deleted_at is null;

-- list --
select *, (select count(*) from data_set_images where data_set_id = id) as image_count
  from data_sets
 where account_id = %(account_id)s and deleted_at is null
   and (%(before)s::timestamptz is null or (created_at, id) < (%(before)s, %(before_id)s))
 order by created_at desc, id desc
 limit %(limit)s;

-- images --
select * from data_set_images where data_set_id = %(data_set_id)s order by position;

-- known_photos --
select distinct sha256 from data_set_images where sha256 = any(%(sha256s)s);

-- lock --
-- Held while a job is submitted for a data set or the set is deleted, so that the two never cross.
-- "for update", although jobs refer to the row: a reference alone does not keep it from being marked as deleted.
select id from data_sets where id = %(id)s and account_id = %(account_id)s and deleted_at is null for update;

-- jobs_using --
select id from jobs where data_set_id = %(id)s and state in ('submitted', 'running', 'cancelling') limit 1;

-- delete --
-- The row stays, because jobs refer to it; only its photos go.
update data_sets set deleted_at = now()
 where id = %(id)s and account_id = %(account_id)s and deleted_at is null
returning id;

-- delete_images --
delete from data_set_images where data_set_id = %(id)s returning sha256;

-- delete_grids --
-- The evaluation's picture of each job that learned from the photos: they stand in its first row.
delete from job_files using jobs
 where job_files.job_id = jobs.id and role = 'grid'
   and jobs.data_set_id = %(id)s and jobs.account_id = %(account_id)s
returning job_files.sha256;

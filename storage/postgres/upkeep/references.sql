-- referenced --
-- Which of these hashes any row names.
select hash from unnest(%(hashes)s::text[]) as asked (hash)
 where exists (select from data_set_images where sha256 = hash)
    or exists (select from base_model_files where sha256 = hash)
    or exists (select from version_files where sha256 = hash and gone_at is null)
    or exists (select from images where sha256 = hash and gone_at is null)
    or exists (select from job_checkpoints where sha256 = hash)
    or exists (select from job_files where sha256 = hash)
    or exists (select from job_stage_blobs where sha256 = hash)
    or exists (select from sampled_images where sha256 = hash)
    or exists (select from source_pictures where sha256 = hash)
    or exists (select from workflow_sources where sha256 = hash);

-- naming --
-- The first few rows that name a hash, in words.
select what from (
    (select format('image %%s of version %%s', id, version_id) as what from images
      where sha256 = %(hash)s and gone_at is null limit %(limit)s)
    union all
    (select format('file %%s of version %%s', path, version_id) from version_files
      where sha256 = %(hash)s and gone_at is null limit %(limit)s)
    union all
    (select format('data set %%s', data_set_id) from data_set_images where sha256 = %(hash)s limit %(limit)s)
    union all
    (select format('file %%s of job %%s', name, job_id) from job_files where sha256 = %(hash)s limit %(limit)s)
    union all
    (select format('checkpoint %%s of job %%s', step, job_id) from job_checkpoints
      where sha256 = %(hash)s limit %(limit)s)
    union all
    (select format('a result of the stage %%s of job %%s', stage, job_id) from job_stage_blobs
      where sha256 = %(hash)s limit %(limit)s)
    union all
    (select format('file %%s of base model %%s', path, (select name from base_models where id = base_model_id))
       from base_model_files where sha256 = %(hash)s limit %(limit)s)
    union all
    (select format('image %%s of sampled set %%s', position, recipe_hash) from sampled_images
      where sha256 = %(hash)s limit %(limit)s)
    union all
    (select format('a picture that account %%s sent for generations', account_id) from source_pictures
      where sha256 = %(hash)s limit %(limit)s)
    union all
    (select format('a picture that job %%s goes on from', job_id) from workflow_sources
      where sha256 = %(hash)s limit %(limit)s)
) named
 limit %(limit)s;

-- page --
-- The next hashes between two that any row names, in order, with their sizes. Each table returns as many as are asked for,
-- so none is passed over.
-- Bytes of one hash have one size; max only picks it.
select sha256, max(size) as size from (
    (select distinct on (sha256) sha256, size from data_set_images
      where sha256 > %(low)s and sha256 < %(high)s order by sha256 limit %(limit)s)
    union all
    (select distinct on (sha256) sha256, size from base_model_files
      where sha256 > %(low)s and sha256 < %(high)s order by sha256 limit %(limit)s)
    union all
    (select distinct on (sha256) sha256, size from version_files
      where sha256 > %(low)s and sha256 < %(high)s and gone_at is null order by sha256 limit %(limit)s)
    union all
    (select distinct on (sha256) sha256, size from images
      where sha256 > %(low)s and sha256 < %(high)s and gone_at is null order by sha256 limit %(limit)s)
    union all
    (select distinct on (sha256) sha256, size from job_checkpoints
      where sha256 > %(low)s and sha256 < %(high)s order by sha256 limit %(limit)s)
    union all
    (select distinct on (sha256) sha256, size from job_files
      where sha256 > %(low)s and sha256 < %(high)s order by sha256 limit %(limit)s)
    union all
    (select distinct on (sha256) sha256, size from job_stage_blobs
      where sha256 > %(low)s and sha256 < %(high)s order by sha256 limit %(limit)s)
    union all
    (select distinct on (sha256) sha256, size from sampled_images
      where sha256 > %(low)s and sha256 < %(high)s order by sha256 limit %(limit)s)
    union all
    (select distinct on (sha256) sha256, size from source_pictures
      where sha256 > %(low)s and sha256 < %(high)s order by sha256 limit %(limit)s)
    union all
    (select distinct on (sha256) sha256, size from workflow_sources
      where sha256 > %(low)s and sha256 < %(high)s order by sha256 limit %(limit)s)
) named
 group by sha256
 order by sha256
 limit %(limit)s;

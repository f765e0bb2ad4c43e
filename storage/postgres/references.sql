-- referenced --
-- Which of these hashes any row names.
select hash from unnest(%(hashes)s::text[]) as asked (hash)
 where exists (select from data_set_images where sha256 = hash)
    or exists (select from base_model_files where sha256 = hash)
    or exists (select from version_files where sha256 = hash and gone_at is null)
    or exists (select from images where sha256 = hash and gone_at is null)
    or exists (select from job_checkpoints where sha256 = hash)
    or exists (select from job_files where sha256 = hash)
    or exists (select from sampled_images where sha256 = hash);

-- page --
-- The next hashes between two that any row names, in order, with their sizes. Each table gives as many as are asked for,
-- so none is passed over.
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
    (select distinct on (sha256) sha256, size from sampled_images
      where sha256 > %(low)s and sha256 < %(high)s order by sha256 limit %(limit)s)
) named
 group by sha256
 order by sha256
 limit %(limit)s;

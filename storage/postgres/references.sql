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

-- all --
-- Every hash that any row names, with its size.
select distinct sha256, size from (
    select sha256, size from data_set_images
    union all select sha256, size from base_model_files
    union all select sha256, size from version_files where gone_at is null
    union all select sha256, size from images where gone_at is null
    union all select sha256, size from job_checkpoints
    union all select sha256, size from job_files
    union all select sha256, size from sampled_images
) named;

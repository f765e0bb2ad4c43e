-- lookup --
-- Which version each hash names, for a viewer: one that may be seen before one that may not, then the earliest
-- published, then the smallest id. AutoV1 of a file that ends before its window is everybody's, so it finds nothing.
select distinct on (known.hash) known.hash, version.id as version_id, version.model_id
  from file_hashes known
  join version_files file on file.id = known.file_id
  join model_versions version on version.id = file.version_id
  join models model on model.id = version.model_id
 where known.hash = any(%(hashes)s)
   -- AUTO_V1_END of storage/blobs/hashing.py: the end of the window that AutoV1 is taken from.
   and (known.kind <> 'AutoV1' or file.size >= 1114112)
   and (file.visibility = 'Public' or {has_power})
   -- A file that was deleted by itself is nobody's; one deleted with its version is found as a version that is gone.
   and (file.gone_at is null or version.gone_at is not null)
 order by known.hash,
          {seen_version} desc,
          (model.gone_at is not null or version.gone_at is not null) desc,
          version.published_at nulls last,
          version.id;

-- change --
-- What is not among the changes stays.
update version_files file
   set (type, size_kind, fp, visibility, override_name) =
       (select type, size_kind, fp, visibility, override_name from jsonb_populate_record(file, %(changes)s))
 where id = %(id)s and gone_at is null
returning id;

-- delete --
-- The row and its hashes stay, as those of a deleted version do; the bytes are swept.
update version_files set gone_at = now() where id = %(id)s and gone_at is null returning id;

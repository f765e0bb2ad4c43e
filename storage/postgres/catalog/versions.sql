-- create --
-- A draft behind the model's other versions; the caller holds the model.
insert into model_versions (model_id, position, name, description, availability, base_model, base_model_type,
                            trained_words, steps, epochs, clip_skip)
select %(model_id)s,
       (select coalesce(max(position), 0) + 1 from model_versions where model_id = %(model_id)s),
       name, description, availability, base_model, base_model_type, trained_words, steps, epochs, clip_skip
  from jsonb_populate_record(null::model_versions, %(fields)s)
returning *;

-- change --
-- What is not among the changes stays. What is published and private no more is published now, if it never was before.
update model_versions version
   set (name, description, availability, base_model, base_model_type, trained_words, steps, epochs, clip_skip,
        updated_at, published_at) =
       (select name, description, availability, base_model, base_model_type, trained_words, steps, epochs, clip_skip,
               now(),
               case when version.status = 'Published' and availability <> 'Private'
                    then coalesce(version.published_at, now()) else version.published_at end
          from jsonb_populate_record(version, %(changes)s))
 where id = %(id)s
returning *;

-- with_files --
-- A model's versions that can be downloaded once they are published, newest first.
select version.* from model_versions version
 where version.model_id = %(model_id)s and version.gone_at is null
   and exists (select from version_files file
                where file.version_id = version.id and file.role = 'weights' and file.visibility = 'Public'
                  -- The same rule as in the trigger that derives public_versions: the two have to agree.
                  and file.type <> 'Training Data' and file.gone_at is null)
 order by version.position desc;

-- publish --
-- Now, or at a later date; its owner opens a private one to everybody. The first date of publication is never moved.
-- What stays private has none.
update model_versions
   set status = case when %(at)s::timestamptz > now() then 'Scheduled' else 'Published' end,
       scheduled_for = case when %(at)s::timestamptz > now() then %(at)s end,
       availability = case when %(opens)s and availability = 'Private' then 'Public' else availability end,
       published_at = case when %(at)s::timestamptz > now() or availability = 'Private' and not %(opens)s
                           then published_at else coalesce(published_at, now()) end,
       updated_at = now()
 where id = %(id)s
returning *;

-- publish_due --
-- What was scheduled and whose time has come.
update model_versions
   set status = 'Published', scheduled_for = null,
       published_at = case when availability = 'Private' then published_at else coalesce(published_at, scheduled_for) end
 where status = 'Scheduled' and scheduled_for <= now()
returning id;

-- unpublish --
update model_versions set status = %(status)s, scheduled_for = null, updated_at = now() where id = %(id)s returning *;

-- delete --
-- The row stays as a tombstone: its id, reason and date, and nothing of its content. A training job's row still names it.
update model_versions
   set status = 'Deleted', name = 'deleted', description = '', trained_words = '{}', scheduled_for = null,
       gone_at = now(), gone_reason = %(reason)s
 where id = %(id)s
returning *;

-- delete_files --
-- Their hashes stay, so that who looks a local file up learns that it is gone; their bytes are swept.
update version_files set gone_at = now() where version_id = %(id)s and gone_at is null returning sha256;

-- delete_images --
update images set gone_at = now() where version_id = %(id)s and gone_at is null returning sha256;

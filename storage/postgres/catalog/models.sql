-- create --
-- A draft. No row when the account has a model of that name.
insert into models (account_id, name, type, description, availability, checkpoint_type, upload_type, nsfw, poi, minor,
                    sfw_only, allow_no_credit, allow_commercial_use, allow_derivatives, allow_different_license)
select %(account_id)s, name, type, description, availability, checkpoint_type, upload_type, nsfw, poi, minor, sfw_only,
       allow_no_credit, allow_commercial_use, allow_derivatives, allow_different_license
  from jsonb_populate_record(null::models, %(fields)s)
-- The condition of the partial unique index, which Postgres recognises by it: a deleted model's name is free again.
on conflict (account_id, lower(name)) where status <> 'Deleted' do nothing
returning *;

-- lock --
-- Held while a model or a version of it moves, so that rules and moves see the same rows.
select * from models where id = %(id)s for update;

-- same_name --
select id from models
 where account_id = %(account_id)s and lower(name) = lower(%(name)s) and status <> 'Deleted' and id <> %(id)s;

-- change --
-- What is not among the changes stays. What is published and private no more is published now, if it never was before.
update models model
   set (name, type, description, availability, mode, checkpoint_type, nsfw, poi, minor, sfw_only, allow_no_credit,
        allow_commercial_use, allow_derivatives, allow_different_license, published_at) =
       (select name, type, description, availability, mode, checkpoint_type, nsfw, poi, minor, sfw_only,
               allow_no_credit, allow_commercial_use, allow_derivatives, allow_different_license,
               case when model.status = 'Published' and availability <> 'Private'
                    then coalesce(model.published_at, now()) else model.published_at end
          from jsonb_populate_record(model, %(changes)s))
 where id = %(id)s
returning *;

-- make_tags --
-- In the order of names, so that two that make the same tags do not wait for each other.
insert into tags (name) select distinct name from unnest(%(names)s::text[]) as wanted (name) order by name
on conflict (name) do nothing
returning id;

-- drop_tags --
delete from model_tags
 where model_id = %(id)s and tag_id not in (select id from tags where name = any(%(names)s))
returning tag_id;

-- add_tags --
insert into model_tags (model_id, tag_id)
select %(id)s, id from tags where name = any(%(names)s)
on conflict do nothing
returning tag_id;

-- publish --
-- Now, or at a later date; its owner opens a private one to everybody. The first date of publication is never moved:
-- nobody becomes new again by hiding first. What stays private has none.
update models
   set status = case when %(at)s::timestamptz > now() then 'Scheduled' else 'Published' end,
       scheduled_for = case when %(at)s::timestamptz > now() then %(at)s end,
       availability = case when %(opens)s and availability = 'Private' then 'Public' else availability end,
       published_at = case when %(at)s::timestamptz > now() or availability = 'Private' and not %(opens)s
                           then published_at else coalesce(published_at, now()) end
 where id = %(id)s
returning *;

-- hold_due --
-- The models that publish_due moves, themselves or by a version: held first and in order, as all who write them do.
select id from models
 where id in (select id from models where status = 'Scheduled' and scheduled_for <= now()
              union
              select model_id from model_versions where status = 'Scheduled' and scheduled_for <= now())
 order by id
   for update;

-- publish_due --
-- What was scheduled and whose time has come.
update models
   set status = 'Published', scheduled_for = null,
       published_at = case when availability = 'Private' then published_at else coalesce(published_at, scheduled_for) end
 where status = 'Scheduled' and scheduled_for <= now()
returning id;

-- unpublish --
update models set status = %(status)s, scheduled_for = null where id = %(id)s returning *;

-- delete --
-- The row stays as a tombstone: its id, reason, date and revision, and nothing of its content.
update models
   set status = 'Deleted', mode = null, name = 'deleted', description = '', scheduled_for = null, gone_at = now(),
       gone_reason = %(reason)s
 where id = %(id)s
returning *;

-- take_down --
update models set mode = 'TakenDown', gone_at = now(), gone_reason = %(reason)s where id = %(id)s returning *;

-- restore --
update models set mode = null, gone_at = null, gone_reason = null where id = %(id)s and status <> 'Deleted' returning *;

-- tags_of --
select model_id, array_agg(tag.name order by tag.name) as names
  from model_tags join tags tag on tag.id = tag_id
 where model_id = any(%(model_ids)s)
 group by model_id;

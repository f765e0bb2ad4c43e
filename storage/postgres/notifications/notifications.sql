-- add --
-- An event worth a notification, once for its key. One that nobody has asked for and nobody is notified of by default is left out.
insert into notifications (key, type, details, audience, readers)
select %(key)s, %(type)s, %(details)s, %(audience)s, %(readers)s
 where %(default)s
    or exists (select from notification_preferences
                where type = %(type)s and frequency <> 'never'
                  and (%(audience)s = 'everyone' or reader = any(%(readers)s)))
on conflict (key) do nothing
returning id;

-- moderators --
select number from accounts where role = 'moderator' and status = 'active' order by number;

-- add_published --
-- The newest public version of each of these models, announced to the followers of its owner when it is new.
insert into notifications (key, type, details, audience, readers)
select 'version_published:' || version.id, 'version_published',
       jsonb_build_object('model_id', model.id, 'model_name', model.name, 'model_version_id', version.id,
                          'version_name', version.name, 'by', owner.name),
       'followers', array[owner.number]
  from models model
  join model_versions version on version.id = model.public_versions[1]
  join accounts owner on owner.id = model.account_id
 where model.id = any(%(ids)s) and model.listed
   -- An old version that becomes the newest one again, because a later one was hidden, is no news.
   and version.published_at > now() - interval '1 day'
   and exists (select from follows where followed_id = owner.id)
 order by version.id
on conflict (key) do nothing
returning id;

-- add_milestones --
-- The highest milestone that each of these models has reached, announced to its owner once.
insert into notifications (key, type, details, audience, readers)
select counted.type || ':' || model.id || ':' || max(milestone), counted.type,
       jsonb_build_object('model_id', model.id, 'model_name', model.name, 'count', max(milestone)),
       'accounts', array[owner.number]
  from models model
  join accounts owner on owner.id = model.account_id
  join model_stats stats on stats.model_id = model.id
 cross join lateral (values ('download_milestone', stats.download_count),
                            ('reaction_milestone', stats.thumbs_up_count)) as counted (type, count)
  join unnest(%(milestones)s::bigint[]) as milestone on milestone <= counted.count
 where model.id = any(%(ids)s) and model.listed
 group by model.id, model.name, owner.number, counted.type
 order by model.id, counted.type
on conflict (key) do nothing
returning id;

-- commented_on --
-- Whose a model, version or image is, and what it is called.
select owner.number, owner.id as account_id, found.name, found.model_id
  from (select account_id, name, id as model_id from models where %(entity)s = 'model' and id = %(id)s
        union all
        select model.account_id, model.name, model.id
          from model_versions version join models model on model.id = version.model_id
         where %(entity)s = 'version' and version.id = %(id)s
        union all
        select account_id, 'an image', null from images where %(entity)s = 'image' and id = %(id)s) found
  join accounts owner on owner.id = found.account_id;

-- waiting --
-- The oldest notification that is not delivered to all of its readers yet.
select id, key, type, details, audience, readers, created_at from notifications
 where done_at is null
 order by id
 limit 1;

-- begin --
-- Its text, before anybody can read it.
update notifications set title = %(title)s, text = %(text)s, path = %(path)s where id = %(id)s returning id;

-- fail --
-- It cannot be delivered; nothing waits for it.
update notifications set error = %(error)s, done_at = now() where id = %(id)s and done_at is null returning id;

-- lock --
-- One chunk at a time is written: ids of deliveries come into sight in their order.
select pg_advisory_xact_lock(%(lock)s);

-- reached --
-- How far a notification has come; no row when it is done.
select reached from notifications where id = %(id)s and done_at is null;

-- chunk_end --
-- The last of the next readers; null when there is none.
select max(number) as last
  from (select number
          from readers_between(%(audience)s, %(readers)s::bigint[], %(reached)s, 9223372036854775807) as reader (number)
         order by number limit %(limit)s) chunk;

-- chunk_end_of_all --
-- The same for everybody, from the index alone: where a chunk ends, banned accounts count too.
select max(number) as last
  from (select number from accounts where number > %(reached)s order by number limit %(limit)s) chunk;

-- notify_in_app --
-- Those who want it in the list, at once; who opted out is never written.
insert into deliveries (notification_id, reader, channel, state, frequency)
select %(id)s, reader.number, 'in_app', 'sent', 'now'
  from readers_between(%(audience)s, %(readers)s::bigint[], %(reached)s, %(last)s) as reader (number)
  left join notification_preferences preference
    on preference.type = %(type)s and preference.channel = 'in_app' and preference.reader = reader.number
   -- The join implies it, but Postgres derives no ranges from it: so the index is read for this chunk's readers alone.
   and preference.reader > %(reached)s and preference.reader <= %(last)s
 where coalesce(preference.frequency, %(default)s) <> 'never'
 order by reader.number
on conflict (reader, channel, notification_id) do nothing;

-- notify_outward --
-- Those who have an address that works on another channel and want it there.
insert into deliveries (notification_id, reader, channel, state, frequency, due_at)
select %(id)s, endpoint.reader, endpoint.channel, 'waiting', wanted.frequency, now()
  from readers_between(%(audience)s, %(readers)s::bigint[], %(reached)s, %(last)s) as reader (number)
  join endpoints endpoint
    on endpoint.reader = reader.number and endpoint.state = 'active'
   and endpoint.reader > %(reached)s and endpoint.reader <= %(last)s
  join unnest(%(channels)s::text[], %(frequencies)s::text[]) as by_type (channel, frequency)
    on by_type.channel = endpoint.channel
  left join notification_preferences preference
    on preference.type = %(type)s and preference.channel = endpoint.channel and preference.reader = endpoint.reader
 cross join lateral (select coalesce(preference.frequency, by_type.frequency) as frequency) wanted
 where wanted.frequency <> 'never'
 order by endpoint.reader, endpoint.channel
on conflict (reader, channel, notification_id) do nothing;

-- announce --
-- Whose lists have grown: each reader by name when they are few, else everybody who follows. Who sends is woken too.
select pg_notify('deliveries', '')
union all
select pg_notify('in_app', 'reader:' || delivery.reader)
  from deliveries delivery
 where %(few)s and delivery.notification_id = %(id)s and delivery.channel = 'in_app'
   and delivery.reader = any(array(select unnest(readers) from notifications where id = %(id)s))
union all
select pg_notify('in_app', 'readers') where not %(few)s;

-- advance --
-- Commits with the chunk's rows, so a crash repeats a whole chunk or none of it.
update notifications set reached = %(last)s where id = %(id)s returning id;

-- done --
update notifications set done_at = now() where id = %(id)s and done_at is null returning id;

-- fan_out_wanted --
select drain_number(%(flow)s, %(lock)s) as number where exists (select from notifications where done_at is null);

-- lag --
-- Notifications that are not delivered to all, the age of the oldest, and those that cannot be delivered.
select count(*) filter (where done_at is null) as waiting,
       coalesce(extract(epoch from now() - min(created_at) filter (where done_at is null)), 0)::float8 as oldest_seconds,
       count(*) filter (where error is not null) as failed
  from notifications
 where done_at is null or error is not null;

-- failed --
select id, key, type, error, created_at from notifications where error is not null order by id desc limit %(limit)s;

-- old --
-- The oldest that are fanned out and not forgotten, as far as they are old: the look stops at the first that is not.
select id from (select id, done_at from notifications
                 where done_at is not null and not forgotten
                 order by id limit %(limit)s) oldest
 where done_at < now() - make_interval(days => %(days)s);

-- forget_deliveries --
-- Locked first: one that is read at this moment is gone all the same.
delete from deliveries
 where ctid = any(array(select ctid from deliveries
                         where notification_id = any(%(ids)s::bigint[]) limit %(limit)s for update))
returning id;

-- forget --
-- Only the key stays. An empty list of readers would be none.
update notifications
   -- The row stays for its key, which keeps an event that comes again from a second notification.
   set forgotten = true, details = '{}', readers = readers[1:1], title = '', text = '', path = '', error = null
 where id = any(%(ids)s::bigint[])
returning id;

-- forget_sendings --
delete from sendings
 where id = any(array(select id from sendings
                       where ended_at < now() - make_interval(days => %(days)s)
                       order by ended_at limit %(limit)s))
returning id;

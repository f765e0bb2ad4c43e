-- add --
-- An event worth telling, once for its key. One that nobody has asked for and nobody is told of by default is left out.
insert into notifications (key, type, details, audience, readers)
select %(key)s, %(type)s, %(details)s, %(audience)s, %(readers)s
 where %(usual)s
    or exists (select from notification_preferences
                where type = %(type)s and frequency <> 'never'
                  and (%(audience)s = 'everyone' or reader = any(%(readers)s)))
on conflict (key) do nothing
returning id;

-- waiting --
-- The oldest notification that is not told to all of its readers yet.
select id, key, type, details, audience, readers, created_at from notifications
 where done_at is null
 order by id
 limit 1;

-- begin --
-- Its words, before anybody can read it.
update notifications set title = %(title)s, text = %(text)s, path = %(path)s where id = %(id)s returning id;

-- fail --
-- It cannot be told; nothing waits for it.
update notifications set error = %(error)s, done_at = now() where id = %(id)s and done_at is null returning id;

-- lock --
-- One chunk at a time is written: ids of deliveries come into sight in their order.
select pg_advisory_xact_lock(%(lock)s);

-- chunk --
-- The next readers of a notification: from above `reached` up to `last`. No row when it is done.
select reached, last from notifications notification,
       lateral (select max(number) as last
                  from (select number from accounts
                         where number > reached and (audience = 'everyone' or number = any(readers))
                         order by number limit %(limit)s) chunk) chunk
 where notification.id = %(id)s and done_at is null;

-- tell_in_app --
-- Those who want it in the list, at once; who opted out is never written. Banned accounts are told nothing.
insert into deliveries (notification_id, reader, channel, state, frequency)
select notification.id, account.number, 'in_app', 'sent', 'now'
  from notifications notification
  join accounts account
    on account.number > %(reached)s and account.number <= %(last)s
   and (notification.audience = 'everyone' or account.number = any(notification.readers))
  left join notification_preferences said
    on said.type = notification.type and said.channel = 'in_app' and said.reader = account.number
   and said.reader > %(reached)s and said.reader <= %(last)s
 where notification.id = %(id)s
   and account.status = 'active'
   and coalesce(said.frequency, %(usual)s) <> 'never'
 order by account.number
on conflict (reader, channel, notification_id) do nothing;

-- tell_outward --
-- Those who have an address that works on another channel and want it there.
insert into deliveries (notification_id, reader, channel, state, frequency, due_at)
select notification.id, endpoint.reader, endpoint.channel, 'waiting', wanted.frequency, now()
  from notifications notification
  join endpoints endpoint
    on endpoint.state = 'active' and endpoint.reader > %(reached)s and endpoint.reader <= %(last)s
   and (notification.audience = 'everyone' or endpoint.reader = any(notification.readers))
  join accounts account on account.number = endpoint.reader and account.status = 'active'
  join unnest(%(channels)s::text[], %(usual)s::text[]) as usual (channel, frequency)
    on usual.channel = endpoint.channel
  left join notification_preferences said
    on said.type = notification.type and said.channel = endpoint.channel and said.reader = endpoint.reader
 cross join lateral (select coalesce(said.frequency, usual.frequency) as frequency) wanted
 where notification.id = %(id)s
   and wanted.frequency <> 'never'
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
-- Notifications that are not told to all, the age of the oldest, and those that cannot be told.
select count(*) filter (where done_at is null) as waiting,
       coalesce(extract(epoch from now() - min(created_at) filter (where done_at is null)), 0)::float8 as oldest_seconds,
       count(*) filter (where error is not null) as failed
  from notifications
 where done_at is null or error is not null;

-- failed --
select id, key, type, error, created_at from notifications where error is not null order by id desc limit %(limit)s;

-- gather_alone --
-- Whether this transaction alone gathers: two at once could tear a digest in two.
select pg_try_advisory_xact_lock(%(lock)s) as alone;

-- due --
-- What is due, with all that decides whether and when it is sent. What belongs into one digest stands together. What is
-- on a channel that this release does not know is left to one that does: so everywhere below.
select delivery.id, delivery.reader, delivery.channel, delivery.due_at, delivery.frequency, delivery.folds,
       delivery.created_at, notification.type,
       coalesce(preference.frequency = 'never', false) as unwanted,
       account.status = 'banned' as banned,
       coalesce(endpoint.state, 'missing') as endpoint,
       coalesce(clocks.zone, 'UTC') as zone, clocks.quiet_from, clocks.quiet_to
  from (select * from deliveries
         where due_at <= %(now)s and channel = any(%(channels)s)
           and channel not in (select channel from channel_pauses)
         order by due_at, reader, channel, id
         limit %(limit)s) delivery
  join notifications notification on notification.id = delivery.notification_id
  join accounts account on account.number = delivery.reader
  left join notification_preferences preference
    on preference.type = notification.type and preference.channel = delivery.channel and preference.reader = delivery.reader
  left join endpoints endpoint on endpoint.reader = delivery.reader and endpoint.channel = delivery.channel
  left join notification_readers clocks on clocks.reader = delivery.reader
 -- Again: a join does not keep the order of what it joins.
 order by delivery.due_at, delivery.reader, delivery.channel, delivery.id;

-- settling --
-- When what waits a moment for others of its kind is sent, for some readers and channels.
select delivery.reader, delivery.channel, notification.type, min(delivery.due_at) as due_at
  from unnest(%(readers)s::bigint[], %(channels)s::text[]) as asked (reader, channel)
  join deliveries delivery on delivery.reader = asked.reader and delivery.channel = asked.channel
  join notifications notification on notification.id = delivery.notification_id
 where delivery.folds and delivery.due_at > %(now)s and delivery.frequency = 'now'
 group by delivery.reader, delivery.channel, notification.type;

-- postpone --
update deliveries delivery set due_at = later.until, folds = true
  from unnest(%(due_ats)s::timestamptz[], %(readers)s::bigint[], %(channels)s::text[], %(ids)s::bigint[],
              %(moments)s::timestamptz[]) as later (due_at, reader, channel, id, until)
 -- The whole key of the index deliveries_due, not the id alone, which no index begins with.
 where (delivery.due_at, delivery.reader, delivery.channel, delivery.id)
       = (later.due_at, later.reader, later.channel, later.id)
returning delivery.id;

-- suppress --
update deliveries delivery set state = 'suppressed', due_at = null, reason = unwanted.reason
  from unnest(%(due_ats)s::timestamptz[], %(readers)s::bigint[], %(channels)s::text[], %(ids)s::bigint[],
              %(reasons)s::text[]) as unwanted (due_at, reader, channel, id, reason)
 where (delivery.due_at, delivery.reader, delivery.channel, delivery.id)
       = (unwanted.due_at, unwanted.reader, unwanted.channel, unwanted.id)
returning delivery.id;

-- add_sendings --
insert into sendings (id, purpose, reader, channel)
select id, 'notify', reader, channel
  from unnest(%(sendings)s::uuid[], %(readers)s::bigint[], %(channels)s::text[]) as made (id, reader, channel)
returning id;

-- put_into --
update deliveries delivery set sending_id = put.sending_id, due_at = null
  from unnest(%(due_ats)s::timestamptz[], %(readers)s::bigint[], %(channels)s::text[], %(ids)s::bigint[],
              %(sendings)s::uuid[]) as put (due_at, reader, channel, id, sending_id)
 where (delivery.due_at, delivery.reader, delivery.channel, delivery.id)
       = (put.due_at, put.reader, put.channel, put.id)
returning delivery.id;

-- wanted --
-- Something can be delivered now, and nobody is doing it.
select drain_number(%(flow)s, %(lock)s) as number
 where exists (select from deliveries
                where due_at <= now() and channel = any(%(channels)s)
                  and channel not in (select channel from channel_pauses))
    or exists (select from sendings
                where state = 'due' and next_attempt_at <= now() and channel = any(%(channels)s)
                  and channel not in (select channel from channel_pauses));

-- next_due --
select extract(epoch from least(
           (select min(due_at) from deliveries
             where due_at is not null and channel = any(%(channels)s)
               and channel not in (select channel from channel_pauses)),
           (select min(next_attempt_at) from sendings
             where state = 'due' and channel = any(%(channels)s)
               and channel not in (select channel from channel_pauses))) - now())::float8 as seconds;

-- lag --
-- What could be delivered by now and is not, the age of the oldest in seconds, what was given up, and what only another
-- release can deliver.
with late as (select due_at, channel = any(%(channels)s) as known from deliveries where due_at <= now()),
     due as (select next_attempt_at, channel = any(%(channels)s) as known from sendings where state = 'due')
select (select count(*) from late where known) as waiting,
       (select count(*) from due where known) as sendings,
       greatest(coalesce((select extract(epoch from now() - min(due_at)) from late where known), 0),
                coalesce((select extract(epoch from now() - min(next_attempt_at)) from due
                           where known and next_attempt_at <= now()), 0))::float8 as oldest_seconds,
       (select count(*) from sendings where state = 'dead') as dead_letters,
       (select count(*) from late where not known) + (select count(*) from due where not known and next_attempt_at <= now()) as of_other_releases;

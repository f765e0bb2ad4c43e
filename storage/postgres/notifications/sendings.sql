-- add --
-- A call that carries no delivery: it confirms or tests an address.
insert into sendings (id, purpose, reader, channel, endpoint_id)
values (%(id)s, %(purpose)s, %(reader)s, %(channel)s, %(endpoint_id)s)
returning *;

-- recent --
-- Calls that a reader has itself asked for in the last minute.
select count(*) as recent from sendings
 where reader = %(reader)s and purpose <> 'notify' and created_at > now() - interval '1 minute';

-- claim --
-- The longest due sending of a channel that is not paused, for one worker; others skip it. The next try is set before
-- the call, so that a worker that dies in it does not hold the sending for ever.
update sendings
   set attempts = attempts + 1, claims = claims + 1,
       next_attempt_at = now() + make_interval(secs => %(claim_seconds)s)
 where id = (select id from sendings
              where state = 'due' and next_attempt_at <= now() and channel = any(%(channels)s)
                and channel not in (select channel from channel_pauses)
              order by next_attempt_at, id
              limit 1
                for update skip locked)
returning *;

-- items --
-- What may be delivered of it by now.
select notification.id, notification.type, notification.title, notification.text, notification.path,
       notification.details, delivery.created_at
  from deliveries delivery
  join notifications notification on notification.id = delivery.notification_id
  join accounts reader on reader.number = delivery.reader
 where delivery.sending_id = %(id)s and {notified}
 order by delivery.id;

-- end --
-- Only the claim that is the newest may say how it went.
update sendings set state = %(state)s, ended_at = now(), last_error = %(error)s
 where id = %(id)s and state = 'due' and claims = %(claims)s
returning *;

-- end_deliveries --
-- One alone is sent, several were folded into one call.
update deliveries
   set state = case when %(state)s <> 'sent' then %(state)s
                    when (select count(*) from deliveries other where other.sending_id = %(id)s) > 1 then 'folded'
                    else 'sent' end,
       reason = %(error)s
 where sending_id = %(id)s and state = 'waiting'
returning id;

-- again --
update sendings set next_attempt_at = now() + make_interval(secs => %(pause)s), last_error = %(error)s
 where id = %(id)s and state = 'due' and claims = %(claims)s
returning *;

-- dead --
-- Sendings that were given up, the newest first; of one reader if asked.
select * from sendings
 where state = 'dead' and channel = any(%(channels)s) and (%(reader)s::bigint is null or reader = %(reader)s::bigint)
   and (%(before)s::timestamptz is null or ended_at < %(before)s::timestamptz)
 order by ended_at desc, id
 limit %(limit)s;

-- replay --
-- Given up before, and due again with the same id. Its claims of before stay old ones.
update sendings set state = 'due', attempts = 0, next_attempt_at = now(), ended_at = null
 where id = %(id)s and state = 'dead' and channel = any(%(channels)s)
   and (%(reader)s::bigint is null or reader = %(reader)s::bigint)
returning *;

-- replay_deliveries --
update deliveries set state = 'waiting', reason = null where sending_id = %(id)s and state = 'dead' returning id;

-- pause --
insert into channel_pauses (channel) values (%(channel)s) on conflict (channel) do nothing returning channel;

-- resume --
delete from channel_pauses where channel = %(channel)s returning channel;

-- wake --
select pg_notify('deliveries', '');

-- paused --
select channel from channel_pauses where channel = any(%(channels)s) order by channel;

-- add --
-- One row for an id however often it changes; the most urgent lane counts, and the time of the first change.
insert into search_queue as waiting (kind, id, lane, due_at)
select %(kind)s, id, %(lane)s, now() + make_interval(secs => %(delay)s) from unnest(%(ids)s::bigint[]) id
 -- In one order for all who add, so that two of them cannot deadlock.
 order by id
on conflict (kind, id) do update
   set lane = least(waiting.lane, excluded.lane),
       changes = waiting.changes + 1,
       due_at = least(waiting.due_at, excluded.due_at)
returning id;

-- changed_images --
-- The images that changed: these, those of models, those that accounts showed. What is gone changes no more.
select unnest(%(ids)s::bigint[]) as id
 union
select image.id from images image join model_versions version on version.id = image.version_id
 where version.model_id = any(%(model_ids)s::bigint[]) and image.gone_at is null
 union
select image.id from images image join accounts account on account.id = image.account_id
 where account.number = any(%(account_numbers)s::bigint[]) and image.gone_at is null;

-- add_every --
insert into search_queue (kind, id, lane) select %(kind)s, id, 2 from {listings} where listed order by id
on conflict (kind, id) do nothing
returning id;

-- due --
-- The most urgent lane first, then the longest waiting.
select kind, id, lane, changes, now() as read_at from search_queue
 where due_at <= now()
 order by lane, due_at, kind, id
 limit %(limit)s;

-- hold_done --
-- In the order in which changes come, so that neither waits for the other for ever.
select waiting.id from search_queue waiting
  join unnest(%(kinds)s::text[], %(ids)s::bigint[]) as done (kind, id)
    on waiting.kind = done.kind and waiting.id = done.id
 order by waiting.kind, waiting.id
   for update of waiting;

-- done --
-- What was not changed again meanwhile has been written.
delete from search_queue waiting
 using unnest(%(kinds)s::text[], %(ids)s::bigint[], %(changes)s::bigint[]) as done (kind, id, changes)
 where waiting.kind = done.kind and waiting.id = done.id and waiting.changes = done.changes
returning waiting.id;

-- done_but_changed --
-- What was changed again: those changes are from after it was read, so a row that never rests looks no older than that
-- and lets others go first. Counts wait for more again.
update search_queue waiting
   set queued_at = done.read_at,
       due_at = done.read_at + case waiting.lane when 3 then make_interval(secs => %(delay)s) else '0' end
  from unnest(%(kinds)s::text[], %(ids)s::bigint[], %(changes)s::bigint[], %(read_at)s::timestamptz[])
       as done (kind, id, changes, read_at)
 where waiting.kind = done.kind and waiting.id = done.id and waiting.changes <> done.changes
returning waiting.id;

-- bury --
insert into search_dead_letters (kind, id, revision, error)
values (%(kind)s, %(id)s, %(revision)s, %(error)s)
on conflict (kind, id) do update
   set revision = excluded.revision, error = excluded.error, failed_at = now()
returning id;

-- revive --
delete from search_dead_letters where kind = %(kind)s and id = any(%(ids)s) returning id;

-- dead_letters --
select kind, id, revision, error, failed_at from search_dead_letters order by failed_at, kind, id limit %(limit)s;

-- lag --
-- Changes that searches do not show yet, also those whose event still waits for the relay.
select (select count(*) from search_queue) as waiting,
       greatest(coalesce((select extract(epoch from now() - min(queued_at)) from search_queue where lane < 3), 0),
                coalesce((select extract(epoch from now() - min(created_at)) from outbox
                           where done_at is null and kind = any(%(changes)s) and payload ->> 'lane' <> 'counts'), 0)
               )::float8 as oldest_seconds,
       coalesce((select extract(epoch from now() - min(queued_at)) from search_queue where lane = 3), 0)::float8
           as oldest_counts_seconds,
       (select count(*) from search_dead_letters) as dead_letters;

-- waiting_since --
-- Whether anything that came to the queue before `moment` still waits to be written, counts aside.
select exists (select from search_queue where lane < 3 and queued_at <= %(moment)s) as waiting;

-- on_their_way_since --
-- Whether any change from before `moment` has not come to the queue, counts aside.
select exists (select from outbox
                where done_at is null and dead_at is null and kind = any(%(changes)s) and created_at <= %(moment)s
                  and payload ->> 'lane' <> 'counts') as waiting;

-- waiting_ids --
select id from search_queue where kind = %(kind)s;

-- events_waiting --
select exists (select from outbox where done_at is null and dead_at is null and kind = any(%(changes)s)) as waiting;

-- now --
select clock_timestamp() as moment;

-- next_due --
select extract(epoch from min(due_at) - now())::float8 as seconds from search_queue;

-- drain_wanted --
-- Rows are due and nobody is draining them; returns the number of the run that should.
select drain_number(%(flow)s, %(lock)s) as number where exists (select from search_queue where due_at <= now());

-- append --
-- A fact, committed with what it is about.
insert into outbox (kind, subject, payload) values (%(kind)s, %(subject)s, %(payload)s) returning id;

-- claim --
-- The oldest due events among the kinds the relay acts on, held until the transaction ends; others skip them.
-- A later try is set and the failure counted before the work, so that an event at which a relay dies is not held, nor
-- tried, for ever. Jobs of the held kinds keep their place. Without `kinds` any event is claimed but those of `without`.
-- An event waits while an earlier one of its subject does, so that each subject's order is kept; of what is `merged` the
-- order does not matter. One that was given up holds up nobody.
update outbox
   set attempts = attempts + 1,
       failures = failures + 1,
       -- 5, 10, 20, 40 and then 60 s: ten tries take some six minutes. The power is bounded before the product, so that
       -- it cannot overflow.
       next_attempt_at = now() + make_interval(secs => least(60, 5 * power(2, least(failures, 6))))
 where id in (select id from outbox
               where done_at is null and dead_at is null and next_attempt_at <= now()
                 and (%(kinds)s::text[] is null or kind = any(%(kinds)s::text[]))
                 and kind <> all(%(without)s::text[])
                 and id <> all(%(passed)s::bigint[])
                 and not (kind = 'job.submitted'
                          and exists (select from jobs
                                       where jobs.id = (outbox.payload ->> 'job_id')::uuid
                                         and jobs.kind = any(%(held)s::text[])))
                 and (kind = any(%(merged)s::text[])
                      or not exists (select from outbox as earlier
                                      where earlier.subject = outbox.subject and earlier.id < outbox.id
                                        and earlier.done_at is null and earlier.dead_at is null))
               order by id
               limit %(limit)s
                 for update skip locked)
returning id, kind, subject, payload, created_at, attempts;

-- done --
-- Acknowledged by row, never by cursor: transactions commit out of sequence order.
update outbox set done_at = now(), last_error = null where id = any(%(ids)s::bigint[]) and done_at is null returning id;

-- failed --
-- The effect did not happen. After so many failures the event is given up; returns whether it was.
update outbox
   set last_error = %(error)s, dead_at = case when failures >= %(maximum)s then now() end
 where id = %(id)s and done_at is null
returning dead_at is not null as dead;

-- give_up_deadly --
-- Events at which relays died so often that they were never reported as failed.
update outbox
   set dead_at = now(), last_error = coalesce(last_error, 'the relay died each time it tried')
 -- Not while its last try may still be under way at another relay.
 where done_at is null and dead_at is null and failures >= %(maximum)s and next_attempt_at <= now()
returning id;

-- wait_no_longer --
-- The events could not be tried at all (the other side was unavailable, or a disk full): they are due again at once, so that order is kept.
update outbox set next_attempt_at = created_at, failures = greatest(0, failures - 1), last_error = %(error)s
 where id = any(%(ids)s::bigint[]) and done_at is null
returning id;

-- dead_events --
-- Events that were given up, the oldest first.
select id, kind, subject, failures, last_error, created_at, dead_at
  from outbox
 where done_at is null and dead_at is not null
 order by id;

-- in_trouble --
-- Events that were given up, and those that wait and have failed or were refused, the oldest first.
select id, kind, subject, failures, last_error, created_at, dead_at
  from outbox
 where done_at is null and (dead_at is not null or last_error is not null)
 order by id;

-- replay --
-- An event that waits or was given up is due again, with all its tries before it.
update outbox
   set dead_at = null, failures = 0, next_attempt_at = now()
 where id = %(id)s and done_at is null
returning id, pg_notify('outbox', subject);

-- discard --
-- An event that waits or was given up is discarded; its error stays to be read.
update outbox set done_at = now() where id = %(id)s and done_at is null returning id;

-- of_subject --
-- A subject's events after an id, oldest first.
select id, kind, subject, payload, created_at, attempts from outbox
 where subject = %(subject)s and id > %(after)s
 order by id;

-- backlog --
-- How many events wait, how long the oldest has, and how many were given up.
select count(*) filter (where dead_at is null) as waiting,
       coalesce(extract(epoch from now() - min(created_at) filter (where dead_at is null)), 0)::float8
           as oldest_seconds,
       count(*) filter (where dead_at is not null) as dead
  from outbox where done_at is null;

-- append --
-- A fact, committed with what it is about.
insert into outbox (kind, subject, payload) values (%(kind)s, %(subject)s, %(payload)s) returning id;

-- claim --
-- The oldest due events among the kinds the relay acts on, held until the transaction ends; others skip them.
-- A later try is set before the work, so that a relay that dies mid-way does not hold the event for ever. Jobs of the
-- held kinds keep their place. Without `kinds` any event is claimed.
update outbox
   set attempts = attempts + 1,
       next_attempt_at = now() + make_interval(secs => least(60, 5 * power(2, least(attempts, 6))))
 where id in (select id from outbox
               where done_at is null and next_attempt_at <= now()
                 and (%(kinds)s::text[] is null or kind = any(%(kinds)s::text[]))
                 and not (kind = 'job.submitted'
                          and exists (select from jobs
                                       where jobs.id = (outbox.payload ->> 'job_id')::uuid
                                         and jobs.kind = any(%(held)s::text[])))
               order by id
               limit %(limit)s
                 for update skip locked)
returning id, kind, subject, payload, created_at, attempts;

-- done --
-- Acknowledged by row, never by cursor: transactions commit out of sequence order.
update outbox set done_at = now(), last_error = null where id = any(%(ids)s::bigint[]) and done_at is null returning id;

-- failed --
update outbox set last_error = %(error)s where id = %(id)s and done_at is null returning id;

-- wait_no_longer --
-- The event could not be tried at all (the other side was away): it is due again at once, so that order is kept.
update outbox set next_attempt_at = created_at, last_error = %(error)s
 where id = %(id)s and done_at is null
returning id;

-- of_subject --
-- A subject's events after an id, oldest first.
select id, kind, subject, payload, created_at, attempts from outbox
 where subject = %(subject)s and id > %(after)s
 order by id;

-- backlog --
-- How many events wait, and how long the oldest has.
select count(*) as waiting, coalesce(extract(epoch from now() - min(created_at)), 0)::float8 as oldest_seconds
  from outbox where done_at is null;

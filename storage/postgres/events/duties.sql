-- begin --
-- A relay begins, and duties that are no more are forgotten. A duty that has succeeded since the start before has failed
-- in nothing yet; one that has not is as late as it was: a relay that dies again and again is late too.
with gone as (
    delete from relay_duties where name <> all(%(names)s::text[])
)
insert into relay_duties (name, every_seconds)
select name, every_seconds
  from unnest(%(names)s::text[], %(paces)s::float8[]) as duty (name, every_seconds)
 order by name
on conflict (name) do update
   set every_seconds = excluded.every_seconds,
       started_at = case when relay_duties.succeeded_at >= relay_duties.started_at then now()
                         else relay_duties.started_at end,
       failures = case when relay_duties.succeeded_at >= relay_duties.started_at then 0 else relay_duties.failures end,
       error = case when relay_duties.succeeded_at >= relay_duties.started_at then null else relay_duties.error end
returning name;

-- succeeded --
update relay_duties set succeeded_at = now(), failures = 0, error = null where name = %(name)s returning name;

-- failed --
update relay_duties set failures = failures + 1, error = %(error)s where name = %(name)s returning failures;

-- every --
select name,
       every_seconds,
       succeeded_at,
       failures,
       error,
       extract(epoch from now() - greatest(started_at, succeeded_at))::float8 as silent_seconds
  from relay_duties
 order by name;

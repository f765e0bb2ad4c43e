-- other_home --
-- The rows are of another time: lists and cached responses may not compare their transaction numbers with later ones.
-- What the schema's own migration step does with a database that has come from another cluster, it does here too.
delete from catalogue_home returning epoch;

-- move_on --
-- Every sequence goes on above any number that may have been given out since: a number used twice would let an old
-- link, tag or cursor mean something else.
select format('%%I.%%I', schemaname, sequencename) as name,
       setval(format('%%I.%%I', schemaname, sequencename)::regclass,
              -- setval refuses a number above the sequence's largest.
              least(max_value, coalesce(last_value, start_value)
                               + greatest(%(jump)s, coalesce(last_value, 0) / 10))) as last
  from pg_sequences
 where schemaname not in ('pg_catalog', 'information_schema')
 order by 1;

-- wake_again --
-- Part of the keys under which Prefect knows the runs that empty queues.
update drain_wakeups set number = number + greatest(%(jump)s, number / 10) returning flow;

-- forget_searches --
-- The indexes are not in a backup, nor what waits to be written into them: everything is written again.
with builds as (delete from search_builds returning id),
     waiting as (delete from search_queue returning id),
     refused as (delete from search_dead_letters returning id),
     windows as (delete from search_windows returning id)
select (select count(*) from builds) as builds, (select count(*) from waiting) as waiting,
       (select count(*) from refused) as refused, (select count(*) from windows) as windows;

-- forget_uploads --
-- The bytes of unfinished uploads are not in a backup: their senders begin again.
delete from model_uploads where file_id is null returning id;

-- due --
-- What waits to be sent outside the platform.
select (select count(*) from deliveries where state = 'waiting' and channel <> 'in_app') as deliveries,
       (select count(*) from sendings where state = 'due') as sendings;

-- hold --
insert into channel_pauses (channel) select unnest(%(channels)s::text[]) on conflict (channel) do nothing
returning channel;

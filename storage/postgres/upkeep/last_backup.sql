-- finished --
insert into last_backup (name, place, finished_at) values (%(name)s, %(place)s, %(finished_at)s)
-- The table has one row: `one` is always true.
on conflict (one) do update set name = excluded.name, place = excluded.place, finished_at = excluded.finished_at
returning 1;

-- newest --
select name, place, finished_at from last_backup;

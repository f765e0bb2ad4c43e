-- open --
-- The unfinished backfill of these days, made when there is none.
insert into backfills (flow, first, last) values (%(flow)s, %(first)s, %(last)s)
-- Changes nothing, and returns the row: a command that broke off goes on with its own backfill.
on conflict (flow, first, last) where finished_at is null do update set last = excluded.last
returning id;

-- list_days --
insert into backfill_days (backfill_id, day)
select %(id)s, day::date from generate_series(%(first)s::date, %(last)s::date, interval '1 day') day
on conflict do nothing
returning day;

-- left --
select day from backfill_days where backfill_id = %(id)s and finished_at is null order by day;

-- finish_day --
update backfill_days set finished_at = now() where backfill_id = %(id)s and day = %(day)s returning day;

-- finish --
update backfills set finished_at = now() where id = %(id)s returning id;

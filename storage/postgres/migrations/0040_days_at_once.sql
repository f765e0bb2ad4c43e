-- Several days can be built at once without a deadlock: until its tables are ready, a build locks tables of its own day
-- only. Dropping a partition locks the parent until the transaction ends; leader boards also read days before hours.

-- Whether a day has sums. Asked of the day's own table: a look at activity_days would keep a lock on the parent, for
-- which the other builds then wait, while they hold what this one needs next.
create function activity_has_sums(asked date) returns boolean language plpgsql as $$
declare
    day_table text := 'activity_days_' || to_char(asked, 'YYYYMMDD');
    found_any boolean := false;
begin
    if to_regclass(day_table) is not null then
        execute format('select exists (select from %I)', day_table) into found_any;
    end if;
    return found_any;
end $$;

-- Build a whole day beside what is read, index it, and put it in the place of the old one. Gives how many acts and cells
-- there are. Raises no_data_found where the day's activity was dropped: its sums are all that is left of it.
create or replace function activity_build_day(built date, out activities bigint, out hour_cells bigint, out day_cells bigint)
language plpgsql as $$
declare
    suffix text := to_char(built, 'YYYYMMDD');
    grain record;
begin
    if to_regclass('activity_' || suffix) is null then
        raise exception 'the activity of % is not kept (any more)', built using errcode = 'no_data_found';
    end if;
    execute format('select count(*) from %I', 'activity_' || suffix) into activities;
    execute format(
        'create table %I as
         select date_bin(interval ''1 hour'', occurred_at, timestamptz ''2000-01-01 00:00+00'') as hour, entity_id,
                entity, metric, sum(amount)::bigint as amount
           from %I group by 1, 2, 3, 4', 'built_hours_' || suffix, 'activity_' || suffix);
    get diagnostics hour_cells = row_count;
    execute format(
        'create table %I as
         select %L::date as day, entity_id, entity, metric, sum(amount)::bigint as amount
           from %I group by 2, 3, 4', 'built_days_' || suffix, built, 'built_hours_' || suffix);
    get diagnostics day_cells = row_count;
    for grain in select * from (values ('hours', 'hour', ' 00:00+00'), ('days', 'day', '')) as grains (name, at, midnight)
    loop
        -- The check says what the attaching would else read the whole table for.
        execute format(
            'alter table %1$I add primary key (%2$I, entity_id, entity, metric), alter column amount set not null,
                 add constraint of_the_day check (%2$I >= %3$L and %2$I < %4$L)',
            'built_' || grain.name || '_' || suffix, grain.at, built || grain.midnight, (built + 1) || grain.midnight);
    end loop;
    -- The order of the rows counts: it is that in which the parents are locked.
    for grain in select * from (values ('days', ''), ('hours', ' 00:00+00')) as grains (name, midnight)
    loop
        execute format('drop table if exists %I', 'activity_' || grain.name || '_' || suffix);
        execute format('alter table %I rename to %I', 'built_' || grain.name || '_' || suffix,
                       'activity_' || grain.name || '_' || suffix);
        execute format('alter table %I attach partition %I for values from (%L) to (%L)', 'activity_' || grain.name,
                       'activity_' || grain.name || '_' || suffix, built || grain.midnight,
                       (built + 1) || grain.midnight);
        execute format('alter table %I drop constraint of_the_day', 'activity_' || grain.name || '_' || suffix);
    end loop;
end $$;

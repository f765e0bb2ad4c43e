-- Roll-ups of activity: sums per entity and metric, by the hour, by the day, and for the usual periods; when each
-- partition was finished; and alarms.

create table activity_hours (
    hour      timestamptz not null,
    entity_id bigint not null,
    entity    activity_entity not null,
    metric    activity_metric not null,
    amount    bigint not null,
    primary key (hour, entity_id, entity, metric)
) partition by range (hour);

create table activity_days (
    day       date not null,
    entity_id bigint not null,
    entity    activity_entity not null,
    metric    activity_metric not null,
    amount    bigint not null,
    primary key (day, entity_id, entity, metric)
) partition by range (day);

-- The last 7, 30 and 365 UTC days, the last of them rollup_state.as_of, and all time. What that day itself has stands in
-- activity_days. Rows are updated in place, for which their pages have room.
create table activity_totals (
    entity_id bigint not null,
    entity    activity_entity not null,
    metric    activity_metric not null,
    week      bigint not null,
    month     bigint not null,
    year      bigint not null,
    all_time  bigint not null,
    primary key (entity_id, entity, metric)
) with (fillfactor = 60);

-- `as_of` is the day that totals are of. `stale`: a day was built whole since they were, so they are to be made anew.
create table rollup_state (
    here  boolean primary key default true check (here),
    as_of date,
    stale boolean not null default false
);
insert into rollup_state default values;

-- Build a whole day beside what is read, index it, and put it in the place of the old one. Gives how many acts and cells
-- there are. Raises no_data_found where the day's activity was dropped: its sums are all that is left of it.
create function activity_build_day(built date, out activities bigint, out hour_cells bigint, out day_cells bigint)
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
    -- Without statistics Postgres takes a day of a table of one day for a few of its rows.
    execute format('analyze %I', 'built_days_' || suffix);
    for grain in select * from (values ('hours', ' 00:00+00'), ('days', '')) as grains (name, midnight)
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

-- Index built_totals and put it in the place of the totals that are read.
create function activity_swap_totals() returns void language plpgsql as $$
begin
    alter table built_totals
        add primary key (entity_id, entity, metric),
        alter column week set not null,
        alter column month set not null,
        alter column year set not null,
        alter column all_time set not null;
    drop table activity_totals;
    alter table built_totals rename to activity_totals;
end $$;

-- The totals of a day, made anew from every day.
create function activity_build_totals(today date) returns void language plpgsql as $$
begin
    create table built_totals with (fillfactor = 60) as
    select entity_id, entity, metric,
           coalesce(sum(amount) filter (where day > today - 7 and day <= today), 0)::bigint as week,
           coalesce(sum(amount) filter (where day > today - 30 and day <= today), 0)::bigint as month,
           coalesce(sum(amount) filter (where day > today - 365 and day <= today), 0)::bigint as year,
           sum(amount)::bigint as all_time
      from activity_days
     group by entity_id, entity, metric;
    perform activity_swap_totals();
end $$;

-- The totals of the day `was` become those of `today`: what enters a period is added, what leaves it is taken off.
-- `moved` are the days that do; all that the day `begun` has is new. Most entities are touched when a day begins, so
-- the totals are written anew beside those that are read; this costs what there are entities, not what was counted.
create function activity_turn_totals(was date, today date, moved date[], begun date) returns void language plpgsql as $$
begin
    create table built_totals with (fillfactor = 60) as
    select entity_id, entity, metric,
           coalesce(old.week, 0) + coalesce(change.week, 0) as week,
           coalesce(old.month, 0) + coalesce(change.month, 0) as month,
           coalesce(old.year, 0) + coalesce(change.year, 0) as year,
           coalesce(old.all_time, 0) + coalesce(change.all_time, 0) as all_time
      from activity_totals old
      full join (
           select entity_id, entity, metric,
                  sum(amount * ((now_ago between 0 and 6)::int - (was_ago between 0 and 6)::int))::bigint as week,
                  sum(amount * ((now_ago between 0 and 29)::int - (was_ago between 0 and 29)::int))::bigint as month,
                  sum(amount * ((now_ago between 0 and 364)::int - (was_ago between 0 and 364)::int))::bigint as year,
                  (sum(amount) filter (where day = begun))::bigint as all_time
             from activity_days cell,
                  lateral (select today - cell.day as now_ago,
                                  case when cell.day is distinct from begun then was - cell.day else -1 end as was_ago) ages
            where day = any(moved || begun)
            group by entity_id, entity, metric) change
        using (entity_id, entity, metric);
    perform activity_swap_totals();
end $$;

-- Which partitions of which flow were finished, and when last. `started` begins what is expected of a flow.
create table flow_partitions (
    flow        text not null,
    day         date not null,
    finished_at timestamptz not null,
    runs        int not null default 1,
    primary key (flow, day)
);
create table watched_flows (
    flow       text primary key,
    started_at timestamptz not null default now()
);
insert into watched_flows (flow) values ('roll-up-metrics');

create table alarms (
    id         bigint generated always as identity primary key,
    name       text not null,
    detail     text not null,
    raised_at  timestamptz not null default now(),
    cleared_at timestamptz
);
create unique index alarms_raised on alarms (name) where cleared_at is null;

create table backfills (
    id          bigint generated always as identity primary key,
    flow        text not null,
    first       date not null,
    last        date not null check (last >= first),
    created_at  timestamptz not null default now(),
    finished_at timestamptz
);
create unique index backfills_unfinished on backfills (flow, first, last) where finished_at is null;
create table backfill_days (
    backfill_id bigint not null references backfills (id),
    day         date not null,
    finished_at timestamptz,
    primary key (backfill_id, day)
);

-- alone --
-- Held by whoever moves totals; lock numbers are those of the advisory locks of a database.
select pg_advisory_xact_lock(%(lock)s);

-- beside --
-- Held by whoever builds a day, several at once.
select pg_advisory_xact_lock_shared(%(lock)s);

-- room --
-- A whole day or all totals may take longer than a statement usually may, and sort more than one usually does.
select set_config('statement_timeout', '1h', true), set_config('work_mem', '256MB', true),
       set_config('maintenance_work_mem', '256MB', true);

-- state --
select as_of, stale from rollup_state;

-- waiting_days --
select distinct (hour at time zone 'UTC')::date as day from activity_pending order by day;

-- is_begun --
-- Whether anything was ever rolled up into a day.
select to_regclass('activity_days_' || to_char(%(day)s::date, 'YYYYMMDD')) is not null as begun;

-- span --
-- The first and the last hour of a day that wait.
select min(hour) as first, max(hour) as last from activity_pending
 where hour >= %(day)s::date::timestamp at time zone 'UTC'
   and hour < (%(day)s::date + 1)::timestamp at time zone 'UTC';

-- roll_up_hours --
-- Take what waits, and sum again every cell that it touches. Taking and summing see the same moment: what commits later
-- waits still. Only cells that differ are written. Nobody else writes them: the lock is held.
with taken as (
    delete from activity_pending where hour between %(first)s and %(last)s returning hour, batch_id
), batches as (
    select distinct batch_id from taken
), cells as (
    select date_bin(interval '1 hour', act.occurred_at, timestamptz '2000-01-01 00:00+00') as hour,
           act.entity_id, act.entity, act.metric, sum(act.amount)::bigint as amount,
           count(batches.batch_id) as brought
      from activity act left join batches using (batch_id)
     where act.occurred_at >= %(first)s and act.occurred_at < %(last)s::timestamptz + interval '1 hour'
       and date_bin(interval '1 hour', act.occurred_at, timestamptz '2000-01-01 00:00+00') in (select hour from taken)
     group by 1, 2, 3, 4
    having count(batches.batch_id) > 0
), changed as (
    select new.*, old.amount as was
      from cells new
      left join activity_hours old
        on (old.hour, old.entity_id, old.entity, old.metric) = (new.hour, new.entity_id, new.entity, new.metric)
       -- The join implies it, but Postgres leaves out partitions only by a condition on the column itself.
       and old.hour between %(first)s and %(last)s
     where old.amount is distinct from new.amount
), updated as (
    update activity_hours cell set amount = changed.amount
      from changed
     where (cell.hour, cell.entity_id, cell.entity, cell.metric)
           = (changed.hour, changed.entity_id, changed.entity, changed.metric)
       and cell.hour between %(first)s and %(last)s and changed.was is not null
), inserted as (
    insert into activity_hours (hour, entity_id, entity, metric, amount)
    select hour, entity_id, entity, metric, amount from changed
     where was is null
     order by hour, entity_id, entity, metric
)
select (select count(*) from batches) as batches,
       (select coalesce(sum(brought), 0)::bigint from cells) as activities,
       (select count(*) from changed) as hour_cells,
       array(select distinct entity_id from changed) as entities;

-- roll_up_days --
-- The sums of a day from its hours, for entities that changed, and by as much the totals of the periods that hold it.
with sums as (
    select entity_id, entity, metric, sum(amount)::bigint as amount
      from activity_hours
     where hour >= %(day)s::date::timestamp at time zone 'UTC'
       and hour < (%(day)s::date + 1)::timestamp at time zone 'UTC'
       and entity_id in (select unnest(%(entities)s::bigint[]))
     group by entity_id, entity, metric
), changed as (
    select new.*, old.amount as was, new.amount - coalesce(old.amount, 0) as change
      from sums new
      left join activity_days old
        on (old.entity_id, old.entity, old.metric) = (new.entity_id, new.entity, new.metric) and old.day = %(day)s
     where old.amount is distinct from new.amount
), updated as (
    update activity_days cell set amount = changed.amount
      from changed
     where (cell.entity_id, cell.entity, cell.metric) = (changed.entity_id, changed.entity, changed.metric)
       and cell.day = %(day)s and changed.was is not null
), inserted as (
    insert into activity_days (day, entity_id, entity, metric, amount)
    select %(day)s, entity_id, entity, metric, amount from changed where was is null order by entity_id, entity, metric
), moved as (
    update activity_totals total
       set week = total.week + changed.change * (%(ago)s::int between 0 and 6)::int,
           month = total.month + changed.change * (%(ago)s::int between 0 and 29)::int,
           year = total.year + changed.change * (%(ago)s::int between 0 and 364)::int,
           all_time = total.all_time + changed.change
      from changed
     where (total.entity_id, total.entity, total.metric) = (changed.entity_id, changed.entity, changed.metric)
       and changed.change <> 0
), begun as (
    insert into activity_totals (entity_id, entity, metric, week, month, year, all_time)
    select entity_id, entity, metric, change * (%(ago)s::int between 0 and 6)::int,
           change * (%(ago)s::int between 0 and 29)::int, change * (%(ago)s::int between 0 and 364)::int, change
      from changed
     where was is null
       and not exists (select from activity_totals total
                        where (total.entity_id, total.entity, total.metric)
                              = (changed.entity_id, changed.entity, changed.metric))
     order by entity_id, entity, metric
)
select (select count(*) from changed) as day_cells,
       array(select distinct entity_id from changed where entity = 'model') as models,
       array(select distinct entity_id from changed where entity = 'version') as versions,
       array(select distinct entity_id from changed where entity = 'image') as images;

-- entities_of_day --
select array(select distinct entity_id from activity_days where day = %(day)s and entity = 'model') as models,
       array(select distinct entity_id from activity_days where day = %(day)s and entity = 'version') as versions,
       array(select distinct entity_id from activity_days where day = %(day)s and entity = 'image') as images;

-- turn_totals --
select activity_turn_totals(%(was)s::date, %(today)s::date, %(moved)s::date[], %(begun)s::date);

-- note_as_of --
update rollup_state set as_of = %(today)s;

-- note_stale --
update rollup_state set stale = true;

-- take_day --
-- What waits for a day that is about to be summed whole.
delete from activity_pending
 where hour >= %(day)s::date::timestamp at time zone 'UTC'
   and hour < (%(day)s::date + 1)::timestamp at time zone 'UTC'
returning batch_id;

-- make_source --
-- A day that has no sums may have had no activity at all. One that has is left to its sums.
select day_partition('activity', %(day)s) where not activity_has_sums(%(day)s);

-- build_day --
select activities, hour_cells, day_cells from activity_build_day(%(day)s);

-- build_totals --
select activity_build_totals(%(today)s);

-- note_fresh --
update rollup_state set as_of = %(today)s, stale = false;

-- model_stats --
-- What a model and its versions have been given in all, where that is not what is noted. No ids: every model.
with wanted as (
    select id from models where %(models)s::bigint[] is null or id = any(%(models)s::bigint[])
    union
    select model_id from model_versions where id = any(%(versions)s::bigint[])
), counted as (
    select wanted.id as model_id, total.metric, total.all_time
      from wanted join activity_totals total on total.entity = 'model' and total.entity_id = wanted.id
    union all
    select wanted.id, total.metric, total.all_time
      from wanted join model_versions version on version.model_id = wanted.id
      join activity_totals total on total.entity = 'version' and total.entity_id = version.id
), sums as (
    select model_id,
           coalesce(sum(all_time) filter (where metric = 'download'), 0)::bigint as download_count,
           coalesce(sum(all_time) filter (where metric = 'thumbs_up'), 0)::bigint as thumbs_up_count,
           coalesce(sum(all_time) filter (where metric = 'thumbs_down'), 0)::bigint as thumbs_down_count,
           coalesce(sum(all_time) filter (where metric = 'comment'), 0)::bigint as comment_count,
           coalesce(sum(all_time) filter (where metric = 'tip'), 0)::bigint as tipped_amount_count,
           coalesce(sum(all_time) filter (where metric = 'generation'), 0)::bigint as generation_count
      from counted group by model_id
)
insert into model_stats (model_id, download_count, thumbs_up_count, thumbs_down_count, comment_count,
                         tipped_amount_count, generation_count)
select new.* from sums new left join model_stats old using (model_id)
 where (new.download_count, new.thumbs_up_count, new.thumbs_down_count, new.comment_count, new.tipped_amount_count,
        new.generation_count)
       <> (coalesce(old.download_count, 0), coalesce(old.thumbs_up_count, 0), coalesce(old.thumbs_down_count, 0),
        coalesce(old.comment_count, 0), coalesce(old.tipped_amount_count, 0), coalesce(old.generation_count, 0))
 order by new.model_id
on conflict (model_id) do update
   set download_count = excluded.download_count,
       thumbs_up_count = excluded.thumbs_up_count,
       thumbs_down_count = excluded.thumbs_down_count,
       comment_count = excluded.comment_count,
       tipped_amount_count = excluded.tipped_amount_count,
       generation_count = excluded.generation_count
returning model_id;

-- version_stats --
with sums as (
    select version.id as version_id,
           coalesce(sum(all_time) filter (where metric = 'download'), 0)::bigint as download_count,
           coalesce(sum(all_time) filter (where metric = 'thumbs_up'), 0)::bigint as thumbs_up_count,
           coalesce(sum(all_time) filter (where metric = 'thumbs_down'), 0)::bigint as thumbs_down_count,
           coalesce(sum(all_time) filter (where metric = 'generation'), 0)::bigint as generation_count
      from model_versions version
      join activity_totals total on total.entity = 'version' and total.entity_id = version.id
     where %(versions)s::bigint[] is null or version.id = any(%(versions)s::bigint[])
     group by version.id
)
insert into version_stats (version_id, download_count, thumbs_up_count, thumbs_down_count, generation_count)
select new.* from sums new left join version_stats old using (version_id)
 where (new.download_count, new.thumbs_up_count, new.thumbs_down_count, new.generation_count)
       <> (coalesce(old.download_count, 0), coalesce(old.thumbs_up_count, 0), coalesce(old.thumbs_down_count, 0),
        coalesce(old.generation_count, 0))
 order by new.version_id
on conflict (version_id) do update
   set download_count = excluded.download_count,
       thumbs_up_count = excluded.thumbs_up_count,
       thumbs_down_count = excluded.thumbs_down_count,
       generation_count = excluded.generation_count
returning version_id;

-- image_stats --
with sums as (
    select image.id as image_id,
           coalesce(sum(all_time) filter (where metric = 'cry'), 0)::bigint as cry_count,
           coalesce(sum(all_time) filter (where metric = 'laugh'), 0)::bigint as laugh_count,
           coalesce(sum(all_time) filter (where metric = 'like'), 0)::bigint as like_count,
           coalesce(sum(all_time) filter (where metric = 'dislike'), 0)::bigint as dislike_count,
           coalesce(sum(all_time) filter (where metric = 'heart'), 0)::bigint as heart_count,
           coalesce(sum(all_time) filter (where metric = 'comment'), 0)::bigint as comment_count
      from images image
      join activity_totals total on total.entity = 'image' and total.entity_id = image.id
     where %(images)s::bigint[] is null or image.id = any(%(images)s::bigint[])
     group by image.id
)
insert into image_stats (image_id, cry_count, laugh_count, like_count, dislike_count, heart_count, comment_count)
select new.* from sums new left join image_stats old using (image_id)
 where (new.cry_count, new.laugh_count, new.like_count, new.dislike_count, new.heart_count, new.comment_count)
       <> (coalesce(old.cry_count, 0), coalesce(old.laugh_count, 0), coalesce(old.like_count, 0),
        coalesce(old.dislike_count, 0), coalesce(old.heart_count, 0), coalesce(old.comment_count, 0))
 order by new.image_id
on conflict (image_id) do update
   set cry_count = excluded.cry_count,
       laugh_count = excluded.laugh_count,
       like_count = excluded.like_count,
       dislike_count = excluded.dislike_count,
       heart_count = excluded.heart_count,
       comment_count = excluded.comment_count
returning image_id;

-- try_alone --
select pg_try_advisory_xact_lock(%(lock)s) as held;

-- next_sample --
-- The next entities in the round: those after `first` up to `last`, the whole rest when few are left.
-- 9223372036854775807, the largest bigint: nothing comes after it, and note_compared takes it for the end of a round.
select first, case when found < %(entities)s then 9223372036854775807 else last end as last
  from (select state.compared_to as first, count(sample.entity_id) as found, max(sample.entity_id) as last
          from rollup_state state
          left join lateral (select distinct entity_id from activity_totals where entity_id > state.compared_to
                              order by entity_id limit %(entities)s) sample on true
         group by state.compared_to) next;

-- correct_totals --
-- Totals of some entities rebuilt from their days, where they differ.
with sums as (
    select entity_id, entity, metric,
           coalesce(sum(amount) filter (where day > as_of - 7 and day <= as_of), 0)::bigint as week,
           coalesce(sum(amount) filter (where day > as_of - 30 and day <= as_of), 0)::bigint as month,
           coalesce(sum(amount) filter (where day > as_of - 365 and day <= as_of), 0)::bigint as year,
           sum(amount)::bigint as all_time
      from activity_days cross join rollup_state
     where entity_id > %(first)s and entity_id <= %(last)s
     group by entity_id, entity, metric
), known as (
    select * from activity_totals where entity_id > %(first)s and entity_id <= %(last)s
), differing as (
    select entity_id, entity, metric,
           array[known.week, known.month, known.year, known.all_time] as was,
           array[coalesce(sums.week, 0), coalesce(sums.month, 0), coalesce(sums.year, 0),
                 coalesce(sums.all_time, 0)] as now
      from sums full join known using (entity_id, entity, metric)
     where (coalesce(sums.week, 0), coalesce(sums.month, 0), coalesce(sums.year, 0), coalesce(sums.all_time, 0))
           is distinct from (known.week, known.month, known.year, known.all_time)
), written as (
    insert into activity_totals (entity_id, entity, metric, week, month, year, all_time)
    select entity_id, entity, metric, now[1], now[2], now[3], now[4] from differing
        on conflict (entity_id, entity, metric) do update
       set week = excluded.week, month = excluded.month, year = excluded.year, all_time = excluded.all_time
)
select entity, entity_id, metric, was, now from differing
 -- A row of zeros that was missing is written, but is no difference that anybody could have seen.
 where was[4] is not null or now <> array[0, 0, 0, 0]::bigint[]
 order by entity_id, entity, metric;

-- entities_between --
select array(select distinct entity_id from activity_totals
              where entity_id > %(first)s and entity_id <= %(last)s and entity = 'model') as models,
       array(select distinct entity_id from activity_totals
              where entity_id > %(first)s and entity_id <= %(last)s and entity = 'version') as versions,
       array(select distinct entity_id from activity_totals
              where entity_id > %(first)s and entity_id <= %(last)s and entity = 'image') as images;

-- note_compared --
update rollup_state set compared_to = case when %(last)s = 9223372036854775807 then 0 else %(last)s end;

-- totals --
-- The sums of an entity by metric, of a model together with those of its versions, and the day that they are of. One
-- statement: another day's sums never stand under it.
with asked as (
    select %(entity)s::activity_entity as entity, %(entity_id)s::bigint as entity_id
    union all
    select 'version', id from model_versions where %(with_versions)s and model_id = %(entity_id)s
), sums as (
    select total.metric, coalesce(sum(today.amount), 0)::bigint as day, sum(total.week)::bigint as week,
           sum(total.month)::bigint as month, sum(total.year)::bigint as year, sum(total.all_time)::bigint as all_time
      from asked join activity_totals total using (entity, entity_id)
      left join activity_days today
        on (today.entity_id, today.entity, today.metric) = (total.entity_id, total.entity, total.metric)
       and today.day = (select as_of from rollup_state)
     group by total.metric
)
select as_of, coalesce((select jsonb_object_agg(metric, to_jsonb(sums)) from sums), '{}') as metrics from rollup_state;

-- is_kept --
select to_regclass('activity_' || to_char(%(day)s::date, 'YYYYMMDD')) is not null as kept;

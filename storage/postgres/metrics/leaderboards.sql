-- room --
-- A month of a busy catalogue may take longer than a statement usually may, and sort more than one usually does.
select set_config('statement_timeout', '15min', true), set_config('work_mem', '256MB', true);

-- is_counted --
-- Whether a roll-up has finished since a time on that day or a later one: then it took whatever had come before.
select exists (select from flow_partitions
                where flow = %(roll_up)s and day >= %(until)s::date and finished_at >= %(until)s) as counted;

-- lost_hours --
-- Of two days those that were counted and whose sums by the hour are not kept any more.
select day from unnest(%(days)s::date[]) day
 where exists (select from activity_days cell where cell.day = day.day)
   and to_regclass('activity_hours_' || to_char(day.day, 'YYYYMMDD')) is null
 order by day;

-- clear --
-- What a run that died has left.
delete from leaderboard_editions where board = %(board)s and day = %(day)s and published_at is null returning id;

-- open --
insert into leaderboard_editions (board, day, since, until, definition)
values (%(board)s, %(day)s, %(since)s, %(until)s, %(definition)s)
returning id;

-- rank --
-- The places of an edition. Whole days come from the sums of days, the day at either end from its hours. Works count for
-- who made them while everybody finds them; a creator has at least one. Equal scores: who joined first.
with cells as (
    select entity, entity_id, metric, amount from activity_days
     where day > %(first_day)s and day < %(last_day)s
    union all
    select entity, entity_id, metric, amount from activity_hours
     -- A window may begin and end within a day, and sums of days cannot be cut.
     where hour >= %(since)s and hour < %(first_midnight)s
    union all
    select entity, entity_id, metric, amount from activity_hours
     where hour >= %(last_midnight)s and hour < %(until)s
), sums as materialized (
    select entity, entity_id, metric, sum(amount)::bigint as amount, (sum(amount) * min(points))::bigint as points
      from cells
      join unnest(%(entities)s::activity_entity[], %(metrics)s::activity_metric[], %(points)s::bigint[])
           as rule (entity, metric, points) using (entity, metric)
     group by entity, entity_id, metric
), owned as (
    select model.account_id, acts.*
      from sums acts join models model on model.id = acts.entity_id
     where acts.entity = 'model' and model.listed
    union all
    select model.account_id, acts.*
      from sums acts join model_versions version on version.id = acts.entity_id
      join models model on model.id = version.model_id
     where acts.entity = 'version' and model.listed and version.id = any(model.public_versions)
    union all
    select image.account_id, acts.*
      from sums acts join images image on image.id = acts.entity_id
      join model_versions version on version.id = image.version_id
      join models model on model.id = version.model_id
     where acts.entity = 'image' and image.gone_at is null and model.listed and version.id = any(model.public_versions)
    union all
    select account.id, acts.*
      from sums acts join accounts account on account.number = acts.entity_id
     where acts.entity = 'user'
), works as (
    select account_id, sum(points)::bigint as points,
           -- Equal works in a fixed order, so that a board that is made again has the same places.
           row_number() over (partition by account_id order by sum(points) desc, entity, entity_id) as nth
      from owned
     group by account_id, entity, entity_id
), scores as (
    select account_id,
           (sum(points * case when %(weights)s::int[] is null then %(whole)s::int
                              else coalesce((%(weights)s::int[])[nth], 0) end)::bigint / %(whole)s::int)::bigint as score
      from works
     group by account_id
), winners as (
    select account.id as account_id, score
      from scores join accounts account on account.id = scores.account_id
     where score > 0 and account.status = 'active'
       and (%(joined_since)s::timestamptz is null or account.created_at >= %(joined_since)s::timestamptz)
       and exists (select from models model where model.account_id = account.id and model.listed)
     order by score desc, account.number
     limit %(places)s
), counts as (
    select account_id, jsonb_object_agg(metric, amount) as counts
      from (select account_id, metric, sum(amount)::bigint as amount
              from owned join winners using (account_id)
             group by account_id, metric) of_metric
     group by account_id
)
insert into leaderboard_places (edition_id, account_id, score, counts)
select %(edition_id)s, account_id, score, counts from winners join counts using (account_id)
returning account_id;

-- replace --
-- What the editions that are about to be published stand in the place of.
delete from leaderboard_editions old using leaderboard_editions new
 where new.id = any(%(editions)s::bigint[]) and (old.board, old.day) = (new.board, new.day)
   and old.id <> all(%(editions)s::bigint[])
returning old.id;

-- publish --
update leaderboard_editions set published_at = %(now)s
 where id = any(%(editions)s::bigint[]) and day = %(day)s and published_at is null
returning id;

-- published --
-- Of each board the first and the latest day, up to today.
select board, min(day) as first, max(day) as latest
  from leaderboard_editions
 where published_at is not null and day <= %(today)s
 group by board;

-- show --
-- The board of a day, or the latest up to it, with some of its places. One statement: an edition that is published
-- meanwhile is shown whole or not at all. Ranks are those among the accounts that are not banned now, on both days.
with edition as (
    select * from leaderboard_editions
     where board = %(board)s and published_at is not null and day <= %(day)s and (%(latest)s or day = %(day)s)
     order by day desc
     limit 1
), before as (
    select id, day from leaderboard_editions
     where board = %(board)s and published_at is not null and day = (select day from edition) - 1
), ranked as (
    select place.edition_id, place.score, place.counts, account.number, account.name, account.image,
           rank() over (partition by place.edition_id order by place.score desc) as rank
      from leaderboard_places place
      join accounts account on account.id = place.account_id and account.status = 'active'
     where place.edition_id in (select id from edition union all select id from before)
), page as (
    select now.rank, was.rank as previous_rank, now.score, now.counts, now.number, now.name, now.image
      from ranked now
      left join ranked was on was.number = now.number and was.edition_id = (select id from before)
     where now.edition_id = (select id from edition)
     order by now.rank, now.number
    offset %(offset)s
     limit %(limit)s
)
select board, day, since, until, definition, published_at, (select day from before) as previous_day,
       (select count(*) from ranked where edition_id = edition.id) as total,
       coalesce((select jsonb_agg(to_jsonb(page) order by rank, number) from page), '[]') as places
  from edition;

-- open_batch --
insert into activity_batches (source, account_id) values (%(source)s, %(account_id)s) returning id;

-- stage --
copy activity_staging (batch_id, position, key, key_text, entity, entity_id, metric, amount, occurred_at) from stdin;

-- make_days --
-- The tables of the days that staged acts fall on, as far as they can be counted.
select day_partition('activity', day)
  from (select distinct (occurred_at at time zone 'UTC')::date as day from activity_staging
         where batch_id = %(batch_id)s
           and occurred_at between %(now)s::timestamptz - %(oldest)s::interval and %(now)s::timestamptz + %(earliest)s::interval) staged
 -- Asked here, since the function would take its lock for each day that is there already.
 where to_regclass('activity_' || to_char(day, 'YYYYMMDD')) is null
 order by day;

-- rejected --
-- What cannot be counted: of what the caller does not see, as of what is not there. An act that was counted before is not judged again: it is a repetition, however late.
with judged as (
    select distinct on (staged.key) staged.*,
           case when staged.occurred_at < %(now)s::timestamptz - %(oldest)s::interval then 'too_old'
                when staged.occurred_at > %(now)s::timestamptz + %(earliest)s::interval then 'too_early'
                when not case staged.entity
                    when 'model' then exists (
                        select from models model
                         where model.id = staged.entity_id and model.gone_at is null and (%(checked)s or {seen_model}))
                    when 'version' then exists (
                        select from model_versions version join models model on model.id = version.model_id
                         where version.id = staged.entity_id and version.gone_at is null and model.gone_at is null
                           and (%(checked)s or {seen_version}))
                    when 'image' then exists (
                        select from images image join model_versions version on version.id = image.version_id
                          join models model on model.id = version.model_id
                         where image.id = staged.entity_id and image.gone_at is null and version.gone_at is null
                           and model.gone_at is null and (%(checked)s or {seen_version} and {seen_image}))
                    when 'comment' then exists (select from {seen_comments} and comment.id = staged.entity_id)
                        or %(checked)s and exists (
                            select from comments where id = staged.entity_id and deleted_at is null)
                    else exists (select from accounts where number = staged.entity_id) end then 'no_entity'
           end as reason
      from activity_staging staged
     where staged.batch_id = %(batch_id)s and not exists (select from activity_keys known where known.key = staged.key)
     order by staged.key, staged.position
)
insert into activity_rejected (batch_id, key, key_text, reason, entity, entity_id, metric, amount, occurred_at)
select batch_id, key, key_text, reason, entity, entity_id, metric, amount, occurred_at from judged
 where reason is not null
 order by key
-- An act that is refused again is listed once, with the call that brought it last.
on conflict (key, reason) do update set batch_id = excluded.batch_id
returning key_text, reason;

-- count_new --
-- Each key once, whoever else brings it at the same time: the database decides. Its hour waits to be rolled up.
with fresh as (
    insert into activity_keys (key, occurred_at)
    select distinct on (staged.key) staged.key, staged.occurred_at
      from activity_staging staged
     where staged.batch_id = %(batch_id)s
       and not exists (select from activity_rejected rejected
                        where rejected.batch_id = %(batch_id)s and rejected.key = staged.key)
     -- By key: calls that bring the same keys insert them in one order, and cannot deadlock. Of two acts with one key
     -- in this call the first counts.
     order by staged.key, staged.position
    on conflict (key) do nothing
    returning key
), counted as (
    insert into activity (occurred_at, entity_id, amount, batch_id, entity, metric)
    select distinct on (staged.key) staged.occurred_at, staged.entity_id, staged.amount, staged.batch_id,
           staged.entity, staged.metric
      from activity_staging staged join fresh using (key)
     where staged.batch_id = %(batch_id)s
     order by staged.key, staged.position
    returning occurred_at
), waiting as (
    insert into activity_pending (hour, batch_id)
    -- date_trunc would go by the session's time zone.
    select distinct date_bin(interval '1 hour', occurred_at, timestamptz '2000-01-01 00:00+00'), %(batch_id)s::bigint
      from counted
)
select count(*) as accepted from counted;

-- contradictions --
-- Keys that were counted with another time, before or in this very call.
insert into activity_rejected (batch_id, key, key_text, reason, entity, entity_id, metric, amount, occurred_at)
select distinct on (staged.key) staged.batch_id, staged.key, staged.key_text, 'other_time', staged.entity,
       staged.entity_id, staged.metric, staged.amount, staged.occurred_at
  from activity_staging staged join activity_keys known using (key)
 where staged.batch_id = %(batch_id)s and staged.occurred_at <> known.occurred_at
 order by staged.key, staged.position
on conflict (key, reason) do update set batch_id = excluded.batch_id, occurred_at = excluded.occurred_at
returning key_text, reason;

-- close_batch --
with emptied as (
    delete from activity_staging where batch_id = %(batch_id)s returning 1
)
update activity_batches
   set accepted = %(accepted)s::int, rejected = %(rejected)s::int,
       repeated = (select count(*) from emptied) - %(accepted)s::int - %(rejected)s::int
 where id = %(batch_id)s
returning id, accepted, repeated, rejected;

-- make_today --
select day_partition('activity', today)
  from (select (now() at time zone 'UTC')::date as today) this
 where to_regclass('activity_' || to_char(today, 'YYYYMMDD')) is null;

-- count_one --
-- An act of our own, counted in the transaction that it happens in: no key is needed.
with batch as (
    insert into activity_batches (source, accepted) values (%(source)s, 1) returning id
), counted as (
    insert into activity (occurred_at, entity_id, amount, batch_id, entity, metric)
    select now(), %(entity_id)s::bigint, %(amount)s::int, id, %(entity)s::activity_entity, %(metric)s::activity_metric
      from batch
)
insert into activity_pending (hour, batch_id)
select date_bin(interval '1 hour', now(), timestamptz '2000-01-01 00:00+00'), id from batch
returning batch_id;

-- list_rejected --
-- What was not counted, newest first, before an id; of one account or of all.
select rejected.id, rejected.batch_id, rejected.key_text, rejected.reason, rejected.entity, rejected.entity_id, rejected.metric,
       rejected.amount, rejected.occurred_at, rejected.noted_at
  from activity_rejected rejected join activity_batches batch on batch.id = rejected.batch_id
 where (%(before)s::bigint is null or rejected.id < %(before)s)
   and (%(account_id)s::uuid is null or batch.account_id = %(account_id)s::uuid)
 order by rejected.id desc
 limit %(limit)s;

-- make_days_ahead --
-- As far back as an act may come late, and ahead of midnight, when everybody would need the new table at once.
select day_partition('activity', (now() at time zone 'UTC')::date + days) from generate_series(-7, 2) days;

-- drop_old_days --
-- None while acts of those days wait to be summed: their sums are what stays of them.
select drop_days_before('activity', first) + drop_days_before('activity_hours', first) as dropped
  from (select (now() at time zone 'UTC')::date - %(days)s::int as first) limits
 where not exists (select from activity_pending where hour < first::timestamp at time zone 'UTC');

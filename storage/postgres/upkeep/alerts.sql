-- renew --
-- What raised alerts say now.
update alerts set detail = renewed.detail
  from unnest(%(names)s::text[], %(details)s::text[]) as renewed (name, detail)
 where alerts.name = renewed.name and cleared_at is null and alerts.detail <> renewed.detail
returning alerts.name;

-- raise --
insert into alerts (name, detail)
select name, detail from unnest(%(names)s::text[], %(details)s::text[]) as raised (name, detail)
on conflict (name) where cleared_at is null do nothing
returning name;

-- clear --
update alerts set cleared_at = now() where cleared_at is null and name <> all(%(names)s::text[]) returning name;

-- raised --
select name, detail, raised_at from alerts where cleared_at is null order by raised_at;

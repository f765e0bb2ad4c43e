-- note --
-- What is deployed from now on. What was missing stays so until the relay finds it.
with gone as (
    delete from flow_deployments where flow <> all(%(flows)s::text[])
)
insert into flow_deployments (flow) select unnest(%(flows)s::text[]) on conflict (flow) do nothing returning flow;

-- want --
insert into flow_deployments (flow) select unnest(%(flows)s::text[]) on conflict (flow) do nothing returning flow;

-- compare --
update flow_deployments
   set missing_since = case when flow = any(%(present)s::text[]) then null else coalesce(missing_since, now()) end,
       missing_at = case when flow = any(%(present)s::text[]) then null else now() end
 where flow <> all(%(present)s::text[]) or missing_since is not null
returning flow, missing_since;

-- miss --
insert into flow_deployments as known (flow, missing_since, missing_at) values (%(flow)s, now(), now())
on conflict (flow) do update set missing_since = coalesce(known.missing_since, now()), missing_at = now()
returning flow;

-- absent --
select flow from flow_deployments where missing_since is not null;

-- missing --
-- Missed at two looks at least: while everything is being deployed for the first time something may be missing once.
select flow, missing_since, missing_at
  from flow_deployments
 where missing_at > missing_since
 order by flow;

-- missing_since --
-- Whether anything was missed at two looks at least, the last of them after a time.
select exists (select from flow_deployments where missing_at > missing_since and missing_at > %(since)s);

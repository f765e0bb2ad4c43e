-- add --
-- A flow is paused, since when it was first; a pause of ours outlasts one in Prefect's pages.
insert into flow_pauses as pause (flow, paused_in) values (%(flow)s, %(paused_in)s)
-- `paused_at` is left as it is: since when it was first.
on conflict (flow) do update set paused_in = 'darkroom' where excluded.paused_in = 'darkroom'
returning flow;

-- remove --
delete from flow_pauses where flow = %(flow)s returning flow;

-- wake --
-- The relay starts what has waited.
select pg_notify('outbox', 'flow:' || %(flow)s::text);

-- is_paused --
select exists (select from flow_pauses where flow = %(flow)s) as paused;

-- every --
select flow, paused_in, paused_at from flow_pauses order by flow;

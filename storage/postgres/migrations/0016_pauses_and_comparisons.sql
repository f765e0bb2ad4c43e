-- Flows that an operator has paused, and where. What `darkroom pause` paused, only `darkroom resume` resumes; what was
-- paused in Prefect's pages goes on when it is resumed there. A deployment has the name of its flow.
create table flow_pauses (
    flow      text primary key,
    paused_in text not null check (paused_in in ('darkroom', 'prefect')),
    paused_at timestamptz not null default now()
);

-- As before, and none while the flow is paused: its queue waits.
create or replace function drain_number(wanted_flow text, flow_lock bigint) returns bigint language sql as $$
    insert into drain_wakeups (flow) select wanted_flow
     where not exists (select from flow_pauses where flow = wanted_flow)
       and not exists (select from pg_locks
                        where locktype = 'advisory' and objsubid = 1 and granted
                          and database = (select oid from pg_database where datname = current_database())
                          and (classid::bigint << 32 | objid::bigint) = flow_lock)
    on conflict (flow) do update set number = drain_wakeups.number
    returning number;
$$;

-- The entity up to which totals have been compared with their days in this round; 0: a round begins.
alter table rollup_state add column compared_to bigint not null default 0;

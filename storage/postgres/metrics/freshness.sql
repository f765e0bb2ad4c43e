-- finished --
-- Who waits for a day is woken when this commits.
with finished as (
    insert into flow_partitions as partition (flow, day, finished_at) values (%(flow)s, %(day)s, %(at)s)
    on conflict (flow, day) do update set finished_at = excluded.finished_at, runs = partition.runs + 1
    returning flow, day
)
select day, pg_notify('flow_partitions', flow || ' ' || day) from finished;

-- finished_at --
select finished_at from flow_partitions where flow = %(flow)s and day = %(day)s;

-- flows --
select flow, started_at, paused_at from watched_flows left join flow_pauses using (flow) order by flow;

-- partitions --
select day, finished_at from flow_partitions where flow = %(flow)s and day >= %(since)s;

-- waiting --
-- Batches that no roll-up has taken, and when the oldest of them came.
select count(*) as waiting, min(received_at) as oldest
  from activity_batches
 where id in (select batch_id from activity_pending);

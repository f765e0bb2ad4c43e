-- advance --
-- The run of this number has begun or died: the next one has another key.
insert into drain_wakeups (flow, number) values (%(flow)s, 2)
on conflict (flow) do update set number = drain_wakeups.number + 1
returning number;

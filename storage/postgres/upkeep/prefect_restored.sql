-- delete_scheduled --
-- Prefect's database: runs that schedules made ahead. Its scheduler makes them again, from now on.
delete from flow_run where auto_scheduled and state_type = 'SCHEDULED' returning id;

-- crash_unfinished --
-- Prefect's database: what ran or waited when the backup was made ran on a machine that is gone.
with crashed as (
    insert into flow_run_state (id, flow_run_id, type, name, message, "timestamp", state_details)
    select gen_random_uuid(), id, 'CRASHED', 'Crashed', 'Restored from a backup: the machine that ran it is gone.', now(),
           '{}'
      from flow_run
     where state_type in ('SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING')
    returning id, flow_run_id
)
update flow_run set state_id = crashed.id, state_type = 'CRASHED', state_name = 'Crashed', state_timestamp = now(),
       end_time = now()
  from crashed where flow_run.id = crashed.flow_run_id
returning flow_run.id;

-- free_slots --
-- Prefect's database: places under a concurrency limit that those held.
-- Prefect releases a slot by its own rules when a run changes its state; a state that is written by SQL passes none
-- of them.
update concurrency_limit_v2 set active_slots = 0 returning id;

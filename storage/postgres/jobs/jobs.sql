-- insert --
-- A new job, submitted, first attempt.
insert into jobs (id, account_id, kind, request, recipe_hash, data_set_id, retry_of, request_id)
values (
    %(id)s, %(account_id)s, %(kind)s, %(request)s, %(recipe_hash)s, %(data_set_id)s, %(retry_of)s, %(request_id)s
)
returning *;

-- reserve_key --
-- Tie an Idempotency-Key to a job; no row when the key is already tied. Waits for a concurrent first use to end.
insert into idempotency_keys (account_id, key, request_hash, job_id)
values (%(account_id)s, %(key)s, %(request_hash)s, %(job_id)s)
on conflict (account_id, key) do nothing
returning job_id;

-- recall_key --
-- What an Idempotency-Key was used for.
select request_hash, job_id from idempotency_keys where account_id = %(account_id)s and key = %(key)s;

-- get --
select * from jobs where id = %(id)s;

-- get_for_account --
select * from jobs where id = %(id)s and account_id = %(account_id)s;

-- lock --
-- The job's row, held until the transaction ends.
select * from jobs where id = %(id)s for update;

-- list_for_account --
-- One page of an account's jobs, newest first, below a sequence number.
select * from jobs
 where account_id = %(account_id)s
   and (%(before)s::bigint is null or sequence < %(before)s)
   and (%(kind)s::text is null or kind = %(kind)s)
   and (%(state)s::text is null or state = %(state)s)
 order by sequence desc
 limit %(limit)s;

-- hold_account --
-- One submission of an account at a time counts and adds, so that its limit holds. References to it are not held up.
select id from accounts where id = %(account_id)s for no key update;

-- unfinished --
-- How many jobs of an account have not ended.
select count(*) as unfinished from jobs
 where account_id = %(account_id)s and state in ('submitted', 'running', 'cancelling');

-- queue_position --
-- How many jobs of its kind go before a submitted job.
select count(*) as ahead from jobs
 where kind = %(kind)s
   and ((state = 'submitted' and sequence < %(sequence)s) or state in ('running', 'cancelling'));

-- claim --
-- Move a submitted job to running for exactly one flow run of this attempt; no row if someone else has it.
update jobs
   set state = 'running',
       flow_run_id = %(flow_run_id)s,
       heartbeat_at = now(),
       -- The first attempt's start stays: what a job took is all of its attempts.
       started_at = coalesce(started_at, now())
 where id = %(id)s and attempt = %(attempt)s and state = 'submitted'
returning *;

-- resolve --
-- What a recipe leaves open until a worker claims the job; in the transaction of the claim.
update jobs set request = %(request)s, recipe_hash = %(recipe_hash)s where id = %(id)s returning *;

-- heartbeat --
-- Say that this attempt is alive and how far it is; no row once the job is no longer this attempt's.
update jobs
   -- A heartbeat of a phase that measures nothing keeps the progress that was shown.
   set heartbeat_at = now(), progress = coalesce(%(progress)s, progress)
 where id = %(id)s and attempt = %(attempt)s and state in ('running', 'cancelling')
returning *;

-- note_flow_run --
-- The flow run that Prefect made for a attempt.
update jobs set flow_run_id = %(flow_run_id)s
 where id = %(id)s and attempt = %(attempt)s and state = 'submitted'
returning id;

-- untracked --
-- Training jobs that ran and ended without a tracking run that we know of.
select * from jobs
 where kind = 'training' and tracking_run_id is null and started_at is not null and ended_at is not null
 order by sequence
 limit %(limit)s;

-- note_tracking_run --
-- In any state, the last ones too: reconcile makes the run of a job during which MLflow was unavailable.
update jobs set tracking_run_id = %(tracking_run_id)s
 where id = %(id)s and attempt = %(attempt)s
returning id;

-- succeed --
update jobs set state = 'succeeded', ended_at = now(), model_version_id = %(model_version_id)s
 where id = %(id)s and attempt = %(attempt)s and state = 'running'
returning *;

-- fail --
-- From running by the flow that holds it, or by the relay for a attempt it judged.
update jobs set state = 'failed', ended_at = now(), failure_code = %(code)s, failure_reason = %(reason)s
 where id = %(id)s and attempt = %(attempt)s and state in ('running', 'submitted')
returning *;

-- end_cancelling --
-- The flow stopped, or fell silent, after the owner asked.
update jobs set state = 'cancelled', ended_at = now()
 where id = %(id)s and attempt = %(attempt)s and state = 'cancelling'
returning *;

-- cancel_submitted --
update jobs set state = 'cancelled', ended_at = now()
 where id = %(id)s and account_id = %(account_id)s and state = 'submitted'
returning *;

-- cancel_running --
update jobs set state = 'cancelling'
 where id = %(id)s and account_id = %(account_id)s and state = 'running'
returning *;

-- submit_again --
-- Give a job to a new flow run: a higher attempt number makes every write of the old one miss.
update jobs
   set state = 'submitted', attempt = attempt + 1, silent_attempts = silent_attempts + %(silent)s, flow_run_id = null
 where id = %(id)s and attempt = %(attempt)s and state in ('running', 'submitted')
returning *;

-- silent --
-- Jobs whose flow has sent no heartbeat for too long. While Postgres itself was unavailable none could be recorded, so
-- it must have been up for as long.
select * from jobs
 where state in ('running', 'cancelling')
   and heartbeat_at < now() - make_interval(secs => %(seconds)s)
   and pg_postmaster_start_time() < now() - make_interval(secs => %(seconds)s)
 order by sequence
   -- A row that somebody holds is being moved at this moment, so it is not silent.
   for update skip locked;

-- waiting_with_flow_run --
-- Submitted jobs that a flow run was made for, longer ago than a start takes.
select * from jobs
 where state = 'submitted' and flow_run_id is not null and submitted_at < now() - make_interval(secs => %(seconds)s)
 order by sequence;

-- newest_retry --
-- Of a job, its retries and theirs the one that was submitted last; the job itself where it has none.
-- All of one account, whose jobs an index finds.
with recursive family (id, account_id, sequence) as (
    select id, account_id, sequence from jobs where id = %(id)s
    union
    select retry.id, retry.account_id, retry.sequence
      from jobs retry join family on retry.account_id = family.account_id and retry.retry_of = family.id
)
select * from jobs where id = (select id from family order by sequence desc limit 1);

-- succeeded_in --
-- Jobs that succeeded in a flow run.
select * from jobs where flow_run_id = %(flow_run_id)s and state = 'succeeded' order by sequence;

-- alive --
-- Every job that has not ended.
select * from jobs where state in ('submitted', 'running', 'cancelling') order by sequence;

-- What each stage of a job has made, under a hash of what it was made from: a later attempt, and a retry of the job, go on
-- behind it. `made_by` is the job that made it, `peak_bytes` the most memory that it took.
create table job_stages (
    job_id     uuid not null references jobs (id),
    stage      text not null,
    key        text not null,
    result     jsonb not null,
    made_by    uuid not null references jobs (id),
    attempt    int not null,
    seconds    double precision not null,
    peak_bytes bigint not null,
    ended_at   timestamptz not null default now(),
    primary key (job_id, stage)
);
-- The table is new, and nobody writes to it yet.
-- squawk-ignore require-concurrent-index-creation
create index job_stages_by_maker on job_stages (made_by);

-- Bytes that a result names and no other row yet: until they are published, this one keeps them.
create table job_stage_blobs (
    job_id uuid not null,
    stage  text not null,
    sha256 text not null,
    size   bigint not null,
    primary key (job_id, stage, sha256),
    foreign key (job_id, stage) references job_stages (job_id, stage) on delete cascade
);
-- The table is new, and nobody writes to it yet.
-- squawk-ignore require-concurrent-index-creation
create index job_stage_blobs_by_sha256 on job_stage_blobs (sha256);

-- As in 0034. What jobs write again is not what an account does, stages no less than checkpoints.
create or replace function count_usage() returns trigger language plpgsql as $$
declare
    changed text := case tg_op when 'INSERT' then 'select *, 1 as sign from added'
                               when 'DELETE' then 'select *, -1 as sign from removed'
                               else 'select *, 1 as sign from added union all select *, -1 as sign from removed' end;
begin
    execute format('with change as (select owner.account_id, sum(changed.sign * changed.size) as bytes
                                      from (%s) changed %s
                                     group by owner.account_id having sum(changed.sign * changed.size) <> 0),
                    released as (insert into released_bytes (account_id, bytes)
                                 select account_id, -bytes from change where bytes < 0 and not %L)
                    insert into account_usage as usage (account_id, bytes)
                    select account_id, bytes from change order by account_id
                    on conflict (account_id) do update set bytes = usage.bytes + excluded.bytes',
                   changed, tg_argv[0], tg_table_name in ('job_checkpoints', 'job_stage_blobs'));
    return null;
end $$;

create trigger job_stage_blobs_usage_added after insert on job_stage_blobs referencing new table as added
    for each statement execute function count_usage('join jobs owner on owner.id = changed.job_id');
create trigger job_stage_blobs_usage_removed after delete on job_stage_blobs referencing old table as removed
    for each statement execute function count_usage('join jobs owner on owner.id = changed.job_id');

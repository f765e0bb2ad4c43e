-- What a generation job has besides its row: a workflow of steps. lane: 0 goes first. price in credits, if everything is
-- drawn; charged is what was, known when the job has ended. units: the work of everything. request_hash: of what came with
-- an external_id, to distinguish a repeat from another request under the same one. versions: models and adapters of all
-- steps, since what is drawn with one goes where that goes. not_before: what could draw it did not respond, and is asked
-- again then; it has failed since failing_since, so many times in a row, and began so many of them.
create table workflows (
    job_id        uuid primary key references jobs (id),
    account_id    uuid not null references accounts (id),
    external_id   text,
    request_hash  text not null,
    lane          smallint not null default 1,
    tags          text[] not null default '{}',
    metadata      jsonb not null default '{}',
    price         bigint not null check (price >= 0),
    charged       bigint check (charged >= 0),
    units         double precision not null,
    versions      bigint[] not null default '{}',
    not_before    timestamptz,
    failing_since timestamptz,
    failures      int not null default 0,
    begun         int not null default 0,
    deleted_at    timestamptz
);
-- The tables are new, and nobody writes to them yet.
-- squawk-ignore require-concurrent-index-creation
create unique index workflows_by_external_id on workflows (account_id, external_id) where external_id is not null;

create table workflow_steps (
    job_id         uuid not null references workflows (job_id),
    position       int not null,
    name           text not null,
    operation      text not null,
    family         text not null,
    state          text not null default 'waiting'
                   check (state in ('waiting', 'running', 'succeeded', 'failed', 'cancelled')),
    pictures       int not null,
    picture_price  bigint not null check (picture_price >= 0),
    picture_units  double precision not null,
    backend        text,
    tries          int not null default 0,
    seconds        double precision not null default 0,
    started_at     timestamptz,
    ended_at       timestamptz,
    failure_code   text,
    failure_reason text,
    metadata       jsonb not null default '{}',
    primary key (job_id, position),
    unique (job_id, name),
    check ((state in ('succeeded', 'failed', 'cancelled')) = (ended_at is not null))
);
-- squawk-ignore require-concurrent-index-creation
create index workflow_steps_paced on workflow_steps (ended_at) where state = 'succeeded';

-- Stored pictures that steps go on from: their bytes stay while the workflow has not ended, whatever is deleted meanwhile.
create table workflow_sources (
    job_id uuid not null references workflows (job_id),
    sha256 text not null,
    size   bigint not null,
    width  int not null,
    height int not null,
    primary key (job_id, sha256)
);
-- squawk-ignore require-concurrent-index-creation
create index workflow_sources_by_sha256 on workflow_sources (sha256);

-- However a generation ends, its steps end with it, and what was drawn is charged: once, since an ended job never
-- changes, and never more than its price. A file of a job has the name of the step that drew it. Of a job that failed the
-- step that was drawn has failed, or the first one that was not.
create function end_workflow() returns trigger language plpgsql as $$
begin
    -- The workflow before its steps, as everybody takes them who changes both.
    update workflows
       set charged = (select coalesce(sum(step.picture_price * least(step.pictures, drawn.pictures)), 0)
                        from workflow_steps step
                       cross join lateral (select count(*) as pictures from job_files file
                                            where file.job_id = step.job_id and file.role = 'image'
                                              and file.details ->> 'step' = step.name) drawn
                       where step.job_id = new.id)
     where job_id = new.id and charged is null;
    update workflow_steps step
       set state = ending.state,
           ended_at = now(),
           failure_code = case when ending.state = 'failed' then new.failure_code end,
           failure_reason = case when ending.state = 'failed' then new.failure_reason end
      from (select position, case when new.state = 'failed' and (state = 'running' or position = min(position) over ())
                                  then 'failed' else 'cancelled' end as state
              from workflow_steps where job_id = new.id and state in ('waiting', 'running')) ending
     where step.job_id = new.id and step.position = ending.position and step.state in ('waiting', 'running');
    delete from workflow_sources where job_id = new.id;
    return null;
end $$;
create trigger jobs_end_workflow after update of state on jobs for each row
    when (new.kind = 'generation' and new.state in ('succeeded', 'failed', 'cancelled') and old.state <> new.state)
    execute function end_workflow();

-- A step of a workflow that waits for another attempt is not drawn; `backend` still names what had it.
create function release_workflow() returns trigger language plpgsql as $$
begin
    update workflow_steps set state = 'waiting' where job_id = new.id and state = 'running';
    return null;
end $$;
create trigger jobs_release_workflow after update of state on jobs for each row
    when (new.kind = 'generation' and new.state = 'submitted' and old.state <> new.state)
    execute function release_workflow();

-- A workflow that can be drawn, or that is to stop, is announced to the run that draws.
create function announce_workflow() returns trigger language plpgsql as $$
begin
    perform pg_notify('workflows', '');
    return null;
end $$;
create trigger jobs_announce_new_workflow after insert on jobs for each row
    when (new.kind = 'generation') execute function announce_workflow();
create trigger jobs_announce_workflow after update of state on jobs for each row
    when (new.kind = 'generation' and new.state in ('submitted', 'cancelling') and old.state <> new.state)
    execute function announce_workflow();

-- Pictures that steps go on from, of the account that sent them. used_at: when a workflow last named it.
create table source_pictures (
    account_id uuid not null references accounts (id),
    sha256     text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    width      int not null,
    height     int not null,
    size       bigint not null,
    created_at timestamptz not null default now(),
    used_at    timestamptz not null default now(),
    primary key (account_id, sha256)
);
-- squawk-ignore require-concurrent-index-creation
create index source_pictures_by_sha256 on source_pictures (sha256);
-- squawk-ignore require-concurrent-index-creation
create index source_pictures_by_use on source_pictures (used_at);
create trigger source_pictures_usage_added after insert on source_pictures referencing new table as added
    for each statement execute function count_usage('cross join lateral (select changed.account_id) owner');
create trigger source_pictures_usage_removed after delete on source_pictures referencing old table as removed
    for each statement execute function count_usage('cross join lateral (select changed.account_id) owner');

-- What is known of each backend: what it can do, whether it responds.
create table generation_backends (
    name         text primary key,
    version      text not null default '',
    capabilities jsonb not null default '{}',
    failures     int not null default 0,
    failed_at    timestamptz,
    reason       text,
    drawing      int not null default 0,
    looked_at    timestamptz not null default now(),
    responded_at timestamptz
);

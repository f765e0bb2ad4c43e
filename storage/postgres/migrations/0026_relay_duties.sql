-- What each duty of the relay did last: the API shows it, and a duty that has not succeeded for too long is an alert.
create table relay_duties (
    name          text primary key,
    every_seconds double precision not null check (every_seconds >= 0),
    started_at    timestamptz not null default now(),
    succeeded_at  timestamptz,
    failures      integer not null default 0 check (failures >= 0), -- in a row
    error         text
);

-- What was deployed into Prefect, and since when the relay has missed it there.
create table flow_deployments (
    flow          text primary key,
    missing_since timestamptz,
    missing_at    timestamptz, -- when it was looked for in vain last
    check ((missing_since is null) = (missing_at is null))
);

-- Tries that failed; `attempts` counts also those that the other side's absence ended. After ten the event is set aside.
alter table outbox add column failures integer not null default 0;
alter table outbox add column set_aside_at timestamptz;

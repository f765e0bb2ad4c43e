-- The spine: accounts, data sets, base models, jobs, the outbox, the catalogue.

create table accounts (
    id         uuid primary key default gen_random_uuid(),
    name       text not null unique check (name <> ''),
    created_at timestamptz not null default now()
);

create table api_keys (
    id          text primary key,
    account_id  uuid not null references accounts (id),
    name        text not null,
    secret_hash bytea not null check (length(secret_hash) = 32),
    scopes      text[] not null,
    created_at  timestamptz not null default now(),
    expires_at  timestamptz,
    revoked_at  timestamptz
);

create table data_sets (
    id           uuid primary key default gen_random_uuid(),
    account_id   uuid not null references accounts (id),
    name         text not null,
    content_hash text not null check (content_hash ~ '^[0-9a-f]{64}$'),
    created_at   timestamptz not null default now(),
    deleted_at   timestamptz
);
create index data_sets_by_account on data_sets (account_id, created_at desc) where deleted_at is null;

create table data_set_images (
    data_set_id uuid not null references data_sets (id) on delete cascade,
    position    int not null check (position >= 0),
    name        text not null,
    sha256      text not null,
    size        bigint not null,
    width       int not null,
    height      int not null,
    primary key (data_set_id, position)
);
create index data_set_images_by_sha256 on data_set_images (sha256);

create table base_models (
    id          uuid primary key default gen_random_uuid(),
    name        text not null unique,
    folder_hash text not null,
    facts       jsonb not null,
    created_at  timestamptz not null default now(),
    retired_at  timestamptz
);

create table base_model_files (
    base_model_id uuid not null references base_models (id) on delete cascade,
    path          text not null,
    sha256        text not null,
    size          bigint not null,
    primary key (base_model_id, path)
);
create index base_model_files_by_sha256 on base_model_files (sha256);

create table models (
    id         bigint generated always as identity primary key,
    account_id uuid not null references accounts (id),
    name       text not null check (name <> ''),
    type       text not null default 'Checkpoint',
    created_at timestamptz not null default now()
);
create unique index models_by_name on models (account_id, lower(name));

create table model_versions (
    id            bigint generated always as identity primary key,
    model_id      bigint not null references models (id),
    position      int not null,
    name          text not null,
    job_id        uuid not null unique,
    base_model    text not null,
    trained_words text[] not null,
    recipe        jsonb not null,
    evaluation    jsonb,
    published_at  timestamptz not null default now(),
    registered_as text,
    unique (model_id, position)
);

create table version_files (
    version_id bigint not null references model_versions (id),
    path       text not null,
    role       text not null check (role in ('weights', 'folder')),
    sha256     text not null,
    size       bigint not null,
    hashes     jsonb not null default '{}',
    primary key (version_id, path)
);
create index version_files_by_sha256 on version_files (sha256);

create sequence job_sequence;
create table jobs (
    id               uuid primary key default gen_random_uuid(),
    account_id       uuid not null references accounts (id),
    kind             text not null check (kind in ('training', 'generation')),
    state            text not null default 'submitted'
                     check (state in ('submitted', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')),
    request          jsonb not null,
    recipe_hash      text not null,
    data_set_id      uuid references data_sets (id),
    hand_out         int not null default 1 check (hand_out >= 1),
    silent_hand_outs int not null default 0 check (silent_hand_outs >= 0),
    sequence         bigint not null default nextval('job_sequence'),
    progress         jsonb,
    flow_run_id      uuid,
    tracking_run_id  text,
    heartbeat_at     timestamptz,
    submitted_at     timestamptz not null default now(),
    started_at       timestamptz,
    ended_at         timestamptz,
    failure_code     text,
    failure_reason   text,
    retry_of         uuid references jobs (id),
    model_version_id bigint references model_versions (id),
    check ((state in ('succeeded', 'failed', 'cancelled')) = (ended_at is not null)),
    check ((state = 'failed') = (failure_code is not null)),
    check (state not in ('running', 'cancelling') or heartbeat_at is not null)
);
alter table model_versions add foreign key (job_id) references jobs (id);
create index jobs_by_account on jobs (account_id, sequence desc);
create index jobs_waiting on jobs (kind, sequence) where state = 'submitted';
create index jobs_alive on jobs (heartbeat_at) where state in ('running', 'cancelling');
create index jobs_by_data_set on jobs (data_set_id) where state in ('submitted', 'running', 'cancelling');

create function refuse_unwritten_job_moves() returns trigger language plpgsql as $$
begin
    if old.state = new.state and old.state not in ('succeeded', 'failed', 'cancelled') then
        return new;
    end if;
    if (old.state, new.state) in (
        ('submitted', 'running'), ('submitted', 'cancelled'), ('submitted', 'failed'),
        ('running', 'succeeded'), ('running', 'failed'), ('running', 'submitted'), ('running', 'cancelling'),
        ('cancelling', 'cancelled')
    ) then
        return new;
    end if;
    if old.state = new.state and to_jsonb(old) - 'tracking_run_id' = to_jsonb(new) - 'tracking_run_id' then
        return new;
    end if;
    raise exception 'job % cannot move from % to %', old.id, old.state, new.state
        using errcode = 'check_violation', constraint = 'job_moves';
end $$;
create trigger job_moves before update on jobs for each row execute function refuse_unwritten_job_moves();

create table idempotency_keys (
    account_id   uuid not null references accounts (id),
    key          text not null check (length(key) between 1 and 255),
    request_hash text not null,
    job_id       uuid not null references jobs (id) deferrable initially deferred,
    created_at   timestamptz not null default now(),
    primary key (account_id, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);

create table job_checkpoints (
    job_id     uuid not null references jobs (id),
    step       int not null check (step > 0),
    sha256     text not null,
    size       bigint not null,
    created_at timestamptz not null default now(),
    primary key (job_id, step)
);
create index job_checkpoints_by_sha256 on job_checkpoints (sha256);

create table job_files (
    job_id     uuid not null references jobs (id),
    name       text not null,
    role       text not null check (role in ('sample', 'grid', 'metrics', 'evaluation', 'weights', 'image')),
    sha256     text not null,
    size       bigint not null,
    media_type text not null,
    step       int,
    details    jsonb not null default '{}',
    created_at timestamptz not null default now(),
    primary key (job_id, name)
);
create index job_files_by_sha256 on job_files (sha256);

create table sampled_sets (
    recipe_hash text primary key,
    recipe      jsonb not null,
    images      int not null,
    created_at  timestamptz not null default now()
);

create table sampled_images (
    recipe_hash text not null references sampled_sets (recipe_hash),
    position    int not null,
    sha256      text not null,
    size        bigint not null,
    primary key (recipe_hash, position)
);
create index sampled_images_by_sha256 on sampled_images (sha256);

create table outbox (
    id              bigint generated always as identity primary key,
    kind            text not null,
    subject         text not null,
    payload         jsonb not null default '{}',
    created_at      timestamptz not null default now(),
    done_at         timestamptz,
    attempts        int not null default 0,
    next_attempt_at timestamptz not null default now(),
    last_error      text
);
create index outbox_due on outbox (next_attempt_at, id) where done_at is null;
create index outbox_by_subject on outbox (subject, id);

create function announce_event() returns trigger language plpgsql as $$
begin
    perform pg_notify('outbox', new.subject);
    return null;
end $$;
create trigger outbox_announced after insert on outbox for each row execute function announce_event();


-- Search: the builds of each index, what waits to be written into them, what could not be, and the vectors of texts.
-- The embedded engine keeps each build in tables of its own (storage/search/embedded.sql).

create table search_builds (
    id         bigint generated always as identity primary key,
    kind       text not null check (kind in ('models', 'images', 'creators')),
    engine     text not null check (engine in ('embedded', 'elasticsearch')),
    encoder    text,
    dimensions int,
    state      text not null default 'preparing' check (state in ('preparing', 'building', 'live', 'retired')),
    created_at timestamptz not null default now(),
    retired_at timestamptz,
    check ((state = 'retired') = (retired_at is not null)),
    check ((encoder is null) = (dimensions is null))
);
-- The alias: searches of a kind read the one live build.
create unique index search_builds_live on search_builds (kind, engine) where state = 'live';

-- Ids whose rows changed since they were last written. `changes` tells a drain whether one changed again meanwhile.
create table search_queue (
    kind      text not null check (kind in ('models', 'images', 'creators')),
    id        bigint not null,
    lane      smallint not null check (lane between 1 and 3),
    changes   bigint not null default 1,
    queued_at timestamptz not null default now(),
    due_at    timestamptz not null default now(),
    primary key (kind, id)
);
create index search_queue_due on search_queue (lane, due_at);

create function announce_search_queue() returns trigger language plpgsql as $$
begin
    perform pg_notify('search_queue', '');
    return null;
end $$;
create trigger search_queue_announced after insert or update on search_queue
    for each statement execute function announce_search_queue();

create table search_dead_letters (
    kind      text not null,
    id        bigint not null,
    revision  bigint not null,
    error     text not null,
    failed_at timestamptz not null default now(),
    primary key (kind, id)
);

-- Vectors are float32, little-endian, of length 1. A rebuild reads them and encodes nothing.
create table search_vectors (
    encoder    text not null,
    text_hash  bytea not null check (length(text_hash) = 32),
    vector     bytea not null,
    created_at timestamptz not null default now(),
    primary key (encoder, text_hash)
);

-- How a document's words meet what was asked for. The queries of each asked word stand together, the best first, so
-- the first that matches is what the word is worth.
create function search_score(words tsvector, queries tsquery[], numbers int[], scores int[]) returns int
language plpgsql immutable parallel safe as $$
declare
    total int := 0;
    counted int := 0;
begin
    for at in 1 .. cardinality(queries) loop
        if numbers[at] <> counted and words @@ queries[at] then
            total := total + scores[at];
            counted := numbers[at];
        end if;
    end loop;
    return total;
end $$;

-- The number of the next run of a flow that drains a queue: part of its idempotency key in Prefect, raised by the run
-- itself when it begins, so that one wake-up makes one run and the next makes another.
create table drain_wakeups (
    flow   text primary key,
    number bigint not null default 1
);

-- Ranked ids of searches that have more than one page, for ten minutes. A crash of the server may empty it.
create unlogged table search_windows (
    id         uuid primary key default gen_random_uuid(),
    asked      text not null,
    ids        bigint[] not null,
    total      bigint not null,
    facets     jsonb not null,
    degraded   text[] not null,
    created_at timestamptz not null default now()
);
create index search_windows_by_age on search_windows (created_at);

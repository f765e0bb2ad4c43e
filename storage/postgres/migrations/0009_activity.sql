-- Activity: counted acts, in one table a day. What counted them once is a key; what brought them is a batch.

create type activity_entity as enum ('model', 'version', 'image', 'comment', 'user');
create type activity_metric as enum ('view', 'download', 'generation', 'thumbs_up', 'thumbs_down', 'like', 'dislike',
                                     'laugh', 'cry', 'heart', 'comment', 'follow', 'tip');

create table activity_batches (
    id          bigint generated always as identity primary key,
    source      text not null check (source <> ''),
    account_id  uuid references accounts (id),
    received_at timestamptz not null default now(),
    accepted    int not null default 0 check (accepted >= 0),
    repeated    int not null default 0 check (repeated >= 0),
    set_aside   int not null default 0 check (set_aside >= 0)
);
create index activity_batches_by_age on activity_batches (received_at);

-- The hours of each batch that no roll-up has taken: a row goes in the transaction that counts it. There is no cursor
-- over batches or times, because transactions commit out of order and a cursor skips.
create table activity_pending (
    hour     timestamptz not null,
    batch_id bigint not null references activity_batches (id),
    primary key (hour, batch_id)
);
create index activity_pending_by_batch on activity_pending (batch_id);

-- `amount` is 1, or -1 for an act that was taken back; of a tip it is how much. Rows of a day arrive in about the order
-- of their time, so the small index finds the rows of an hour.
create table activity (
    occurred_at timestamptz not null,
    entity_id   bigint not null,
    amount      int not null,
    batch_id    bigint not null,
    entity      activity_entity not null,
    metric      activity_metric not null
) partition by range (occurred_at);
create index activity_by_time on activity using brin (occurred_at) with (pages_per_range = 32);

-- Keys of acts that came from outside, for as long as one could come again.
create table activity_keys (
    key         uuid primary key,
    occurred_at timestamptz not null
);
create index activity_keys_by_age on activity_keys using brin (occurred_at);

-- What a call brings, between COPY and its judgement; empty after every transaction.
create unlogged table activity_staging (
    batch_id    bigint not null,
    position    int not null,
    key         uuid not null,
    key_text    text not null,
    entity      activity_entity not null,
    entity_id   bigint not null,
    metric      activity_metric not null,
    amount      int not null,
    occurred_at timestamptz not null
);

-- What was not counted, and why.
create table activity_set_aside (
    id          bigint generated always as identity primary key,
    batch_id    bigint not null references activity_batches (id),
    key         uuid not null,
    key_text    text not null,
    reason      text not null check (reason in ('too_old', 'too_early', 'no_entity', 'other_time')),
    entity      activity_entity not null,
    entity_id   bigint not null,
    metric      activity_metric not null,
    amount      int not null,
    occurred_at timestamptz not null,
    noted_at    timestamptz not null default now(),
    unique (key, reason)
);
create index activity_set_aside_by_batch on activity_set_aside (batch_id);

-- The table of one UTC day of a table that is parted by days, made when it is missing. It is made beside and attached,
-- which disturbs nobody who reads or writes the other days.
create function day_partition(parent text, day date) returns text language plpgsql as $$
declare
    child text := parent || '_' || to_char(day, 'YYYYMMDD');
    parent_schema oid := (select relnamespace from pg_class where oid = parent::regclass);
begin
    if to_regclass(child) is null then
        perform pg_advisory_xact_lock(hashtextextended('day_partition ' || parent, 0));
        -- Asked of the table itself: to_regclass may still remember that there was none before the lock was waited for.
        if not exists (select from pg_class where relname = child and relnamespace = parent_schema) then
            execute format('create table %I (like %I including all)', child, parent);
            execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, child,
                           day::text || ' 00:00+00', (day + 1)::text || ' 00:00+00');
        end if;
    end if;
    return child;
end $$;

-- Drop the tables of days before `first`; gives how many.
create function drop_days_before(parent text, first date) returns int language plpgsql as $$
declare
    child text;
    dropped int := 0;
begin
    for child in select inhrelid::regclass::text from pg_inherits where inhparent = parent::regclass loop
        if right(child, 8) < to_char(first, 'YYYYMMDD') then
            execute format('drop table %I', child);
            dropped := dropped + 1;
        end if;
    end loop;
    return dropped;
end $$;

-- A key that allowed everything there was still does.
update api_keys set scopes = scopes || array['activity:read', 'activity:write']
 where scopes @> array['data-sets:read', 'data-sets:write', 'jobs:read', 'jobs:write', 'models:read', 'models:write',
                       'keys:read', 'keys:write', 'social:read', 'social:write'];

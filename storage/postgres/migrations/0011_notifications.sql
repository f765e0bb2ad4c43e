-- Notifications: events worth telling, whom they are told to on which channel, and the calls that carry them out.

-- A key that allowed everything there was still does.
update api_keys set scopes = scopes || array['notifications:read', 'notifications:write']
 where scopes @> array['data-sets:read', 'data-sets:write', 'jobs:read', 'jobs:write', 'models:read', 'models:write',
                       'keys:read', 'keys:write'];

-- One row for an event worth telling: `key` makes repeating it harmless. The fan-out writes its words, then its
-- deliveries in chunks of readers; `reached` is the number of the last account that it has come to.
create table notifications (
    id         bigint generated always as identity primary key,
    key        text not null unique,
    type       text not null,
    details    jsonb not null default '{}',
    audience   text not null check (audience in ('accounts', 'everyone')),
    readers    bigint[] not null default '{}',
    title      text,
    text       text,
    path       text not null default '',
    reached    bigint not null default 0,
    created_at timestamptz not null default now(),
    done_at    timestamptz,
    error      text,
    check (audience = 'everyone' or cardinality(readers) > 0),
    check (done_at is null or error is not null or title is not null)
);
create index notifications_waiting on notifications (id) where done_at is null;
create index notifications_failed on notifications (id) where error is not null;

create function announce_notification() returns trigger language plpgsql as $$
begin
    perform pg_notify('notifications', '');
    return null;
end $$;
create trigger notification_announced after insert on notifications
    for each statement execute function announce_notification();

-- What a reader said; who said nothing has the type's own default.
create table notification_preferences (
    type       text not null,
    channel    text not null check (channel in ('in_app', 'email', 'webhook')),
    reader     bigint not null references accounts (number),
    frequency  text not null check (frequency in ('now', 'hourly', 'daily', 'never')),
    check (channel <> 'in_app' or frequency in ('now', 'never')),
    primary key (type, channel, reader)
);
create table notification_readers (
    reader     bigint primary key references accounts (number),
    zone       text not null default 'UTC',
    quiet_from time,
    quiet_to   time,
    check ((quiet_from is null) = (quiet_to is null))
);

-- Where a reader is told outside the platform: one address for each channel. `address` and the secrets are sealed.
create table endpoints (
    id             uuid primary key default gen_random_uuid(),
    reader         bigint not null references accounts (number),
    channel        text not null check (channel in ('email', 'webhook')),
    state          text not null check (state in ('unconfirmed', 'active', 'suspended')),
    reason         text,
    address        bytea not null,
    shown          text not null,
    secret         bytea,
    old_secret     bytea,
    old_until      timestamptz,
    created_at     timestamptz not null default now(),
    check ((state = 'suspended') = (reason is not null)),
    check ((channel = 'webhook') = (secret is not null)),
    check ((old_secret is null) = (old_until is null)),
    unique (reader, channel)
);

create table channel_pauses (
    channel   text primary key check (channel in ('email', 'webhook')),
    paused_at timestamptz not null default now()
);

-- One call: it carries deliveries, or it confirms or tests an address. Its id is what receivers tell repeats by.
create table sendings (
    id              uuid primary key,
    purpose         text not null check (purpose in ('tell', 'confirm', 'test')),
    reader          bigint not null references accounts (number),
    channel         text not null check (channel in ('email', 'webhook')),
    state           text not null default 'due' check (state in ('due', 'sent', 'suppressed', 'dead')),
    attempts        int not null default 0,
    next_attempt_at timestamptz not null default now(),
    last_error      text,
    created_at      timestamptz not null default now(),
    ended_at        timestamptz,
    check ((state = 'due') = (ended_at is null))
);
create index sendings_due on sendings (next_attempt_at, id) where state = 'due';
create index sendings_dead on sendings (ended_at, id) where state = 'dead';

-- One notification for one reader on one channel. A million are written at once, so nothing here asks another table:
-- accounts and notifications are never deleted. Whoever writes ids holds a lock until commit (fan_out_lock), so a
-- reader's ids grow in the order in which they can be seen, and a stream that remembers the last one misses none.
create table deliveries (
    id              bigint generated always as identity,
    notification_id bigint not null,
    reader          bigint not null,
    channel         text not null check (channel in ('in_app', 'email', 'webhook')),
    state           text not null check (state in ('waiting', 'sent', 'folded', 'suppressed', 'dead')),
    frequency       text not null check (frequency in ('now', 'hourly', 'daily')),
    due_at          timestamptz,
    sending_id      uuid,
    created_at      timestamptz not null default now(),
    read_at         timestamptz,
    reason          text,
    primary key (reader, channel, notification_id),
    check (due_at is null or (state = 'waiting' and sending_id is null))
);
create index deliveries_in_app on deliveries (reader, id) where channel = 'in_app';
create index deliveries_unread on deliveries (reader, id) where channel = 'in_app' and read_at is null;
-- What is due of one reader on one channel at one time stands together: that is what a digest carries.
create index deliveries_due on deliveries (due_at, reader, channel, id) where due_at is not null;
create index deliveries_by_sending on deliveries (sending_id) where sending_id is not null;

create function refuse_unwritten_delivery_moves() returns trigger language plpgsql as $$
begin
    if old.state = 'waiting' or (old.state = 'dead' and new.state = 'waiting') then
        return new;
    end if;
    raise exception 'delivery % cannot move from % to %', old.id, old.state, new.state
        using errcode = 'check_violation', constraint = 'delivery_moves';
end $$;
create trigger delivery_moves before update of state on deliveries
    for each row when (old.state is distinct from new.state) execute function refuse_unwritten_delivery_moves();

create function announce_due_deliveries() returns trigger language plpgsql as $$
begin
    perform pg_notify('deliveries', '');
    return null;
end $$;
create trigger sendings_announced after insert on sendings
    for each statement execute function announce_due_deliveries();

-- The number of the run that should drain for a flow; none while somebody holds its lock. Raised when that run begins.
create function drain_number(wanted_flow text, flow_lock bigint) returns bigint language sql as $$
    insert into drain_wakeups (flow) select wanted_flow
     where not exists (select from pg_locks
                        where locktype = 'advisory' and objsubid = 1 and granted
                          and database = (select oid from pg_database where datname = current_database())
                          and (classid::bigint << 32 | objid::bigint) = flow_lock)
    on conflict (flow) do update set number = drain_wakeups.number
    returning number;
$$;

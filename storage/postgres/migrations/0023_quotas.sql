-- What each account holds in bytes, kept by triggers: a submission looks it up under the row's lock, so that any number
-- of them together stay within the quota. Bytes that are on their way are reserved. Nothing here refuses a write: what a
-- running job makes is counted and kept. What accounts held before is summed in a file of its own (0033), while writers
-- go on.

create table account_usage (
    account_id uuid primary key references accounts (id),
    bytes      bigint not null default 0
);

create table byte_reservations (
    id         uuid primary key,
    account_id uuid not null references accounts (id),
    bytes      bigint not null check (bytes >= 0),
    expires_at timestamptz not null
);
-- The table is new.
-- squawk-ignore require-concurrent-index-creation
create index byte_reservations_by_account on byte_reservations (account_id);

-- The argument says whose a changed row is, and which rows count. Accounts in order, so that two writers never wait for
-- each other.
create function count_usage() returns trigger language plpgsql as $$
declare
    changed text := case tg_op when 'INSERT' then 'select *, 1 as sign from added'
                               when 'DELETE' then 'select *, -1 as sign from removed'
                               else 'select *, 1 as sign from added union all select *, -1 as sign from removed' end;
begin
    execute format('insert into account_usage as usage (account_id, bytes)
                    select owner.account_id, sum(changed.sign * changed.size)
                      from (%s) changed %s
                     group by owner.account_id having sum(changed.sign * changed.size) <> 0
                     order by owner.account_id
                    on conflict (account_id) do update set bytes = usage.bytes + excluded.bytes',
                   changed, tg_argv[0]);
    return null;
end $$;

do $$
declare
    counted record;
begin
    for counted in
        select * from (values
            ('version_files', 'join model_versions version on version.id = changed.version_id
                               join models owner on owner.id = version.model_id where changed.gone_at is null'),
            ('images', 'cross join lateral (select changed.account_id) owner where changed.gone_at is null'),
            ('data_set_images', 'join data_sets owner on owner.id = changed.data_set_id'),
            ('job_files', 'join jobs owner on owner.id = changed.job_id'),
            ('job_checkpoints', 'join jobs owner on owner.id = changed.job_id')) as known (place, owner)
    loop
        execute format('create trigger %I after insert on %I referencing new table as added
                        for each statement execute function count_usage(%L)',
                       counted.place || '_usage_added', counted.place, counted.owner);
        execute format('create trigger %I after delete on %I referencing old table as removed
                        for each statement execute function count_usage(%L)',
                       counted.place || '_usage_removed', counted.place, counted.owner);
        execute format('create trigger %I after update on %I referencing old table as removed new table as added
                        for each statement execute function count_usage(%L)',
                       counted.place || '_usage_changed', counted.place, counted.owner);
    end loop;
end $$;

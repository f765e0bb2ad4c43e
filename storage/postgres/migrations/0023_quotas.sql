-- statement_timeout 10min: what every account holds is summed once.
--
-- What each account holds in bytes, kept by triggers: a submission looks it up under the row's lock, so that any number
-- of them together stay within the quota. Bytes that are on their way are reserved. Nothing here refuses a write: what a
-- running job makes is counted and kept.

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

-- The triggers' locks keep writers out until this transaction ends, so nothing is counted twice.
insert into account_usage (account_id, bytes)
select account_id, sum(size)
  from (select owner.account_id, file.size
            from version_files file
            join model_versions version on version.id = file.version_id
            join models owner on owner.id = version.model_id
           where file.gone_at is null
          union all select account_id, size from images where gone_at is null
          union all select owner.account_id, photo.size
            from data_set_images photo join data_sets owner on owner.id = photo.data_set_id
          union all select owner.account_id, file.size from job_files file join jobs owner on owner.id = file.job_id
          union all select owner.account_id, kept.size
            from job_checkpoints kept join jobs owner on owner.id = kept.job_id) held
 group by account_id
on conflict (account_id) do update set bytes = excluded.bytes;

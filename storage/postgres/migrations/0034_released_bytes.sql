-- What accounts have deleted and the blob store still holds: it counts until the sweep has had its time to delete it.
-- Otherwise an account could fill a disk within its quota, by uploading and deleting.
create table released_bytes (
    account_id uuid not null references accounts (id),
    bytes      bigint not null check (bytes > 0),
    at         timestamptz not null default now()
);
-- The table is new.
-- squawk-ignore require-concurrent-index-creation
create index released_bytes_by_account on released_bytes (account_id) include (bytes);

-- As in 0023, and what a statement takes away is noted. What jobs write again, checkpoints, is not what an account
-- does.
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
                   changed, tg_argv[0], tg_table_name = 'job_checkpoints');
    return null;
end $$;

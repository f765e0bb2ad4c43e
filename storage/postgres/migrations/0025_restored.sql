-- What a database that has come back from a backup must not take over from the cluster that it was in. The outbox says
-- by transaction numbers which models changed since a snapshot: those of the old cluster are, for the new one, of
-- transactions that are still to come, so that every kept answer would count as changed, for as long as the rows stay.

create or replace function catalogue_moved_in() returns boolean language plpgsql as $$
declare
    cluster bigint := (select system_identifier from pg_control_system());
begin
    if exists (select from catalogue_home where system_identifier = cluster) then
        return false;
    end if;
    -- 3 is the first ordinary transaction of every cluster: before all snapshots that anybody can hold.
    delete from sort_keys where replaced is not null;
    update sort_keys set created = '3';
    update models set settled_by = null;
    update outbox set written = '3' where written <> '3';
    insert into catalogue_home (system_identifier) values (cluster)
    on conflict (here) do update set system_identifier = excluded.system_identifier, epoch = gen_random_uuid()::text;
    return true;
end $$;

-- The grid of an evaluation shows photos in its first row. It goes with its data set; those of data sets that were deleted
-- before it did go here, and their bytes with the next sweep of unused ones.
-- no transaction: each batch commits, so that nobody waits long; whoever writes goes on.
-- statement_timeout 30min: it goes through all jobs once.
do $$
declare
    last uuid := '00000000-0000-0000-0000-000000000000';
    batch uuid[];
begin
    loop
        select array_agg(id order by id) into batch
          from (select job.id from jobs job join data_sets learned on learned.id = job.data_set_id
                 where job.id > last and learned.deleted_at is not null
                 order by job.id limit 100) next;
        exit when batch is null;
        last := batch[cardinality(batch)];
        delete from job_files where job_id = any(batch) and role = 'grid';
        commit;
    end loop;
end $$;

-- What rows of before the dates of private versions (0022) and before quotas (0023) lack.
-- no transaction: each batch commits, so that nobody waits long; whoever writes goes on.
-- statement_timeout 60min: it goes through all accounts and all fine-tunes once.

-- What every account holds, a hundred accounts with each commit. Their locks come before the sum's snapshot: a change
-- that the sum does not see is still to be counted by its trigger, which waits for the lock; one that it sees has been
-- counted, and is overwritten.
do $$
declare
    last uuid := '00000000-0000-0000-0000-000000000000';
    batch uuid[];
begin
    loop
        select array_agg(id order by id) into batch
          from (select id from accounts where id > last order by id limit 100) next;
        exit when batch is null;
        last := batch[cardinality(batch)];
        insert into account_usage (account_id) select unnest(batch) on conflict (account_id) do nothing;
        perform from account_usage where account_id = any(batch) order by account_id for update;
        update account_usage usage
           set bytes = held.bytes
          from (select account.id, coalesce(sum(file.size), 0) as bytes
                  from unnest(batch) account (id)
                  left join (select model.account_id, file.size
                               from version_files file
                               join model_versions version on version.id = file.version_id
                               join models model on model.id = version.model_id
                              where file.gone_at is null
                             union all select account_id, size from images where gone_at is null
                             union all select owner.account_id, photo.size
                               from data_set_images photo join data_sets owner on owner.id = photo.data_set_id
                             union all select owner.account_id, file.size
                               from job_files file join jobs owner on owner.id = file.job_id
                             union all select owner.account_id, kept.size
                               from job_checkpoints kept join jobs owner on owner.id = kept.job_id) file
                    on file.account_id = account.id
                 group by account.id) held
         where usage.account_id = held.id;
        commit;
    end loop;
end $$;

-- Fine-tunes that were asked for as private and are so still have no date of publication, unless followers were told
-- of them meanwhile. A hundred models are settled with each commit, in the order of their ids as everywhere.
do $$
declare
    last bigint := 0;
    batch bigint[];
begin
    loop
        select array_agg(id order by id) into batch
          from (select id from models model
                 where id > last
                   and (upload_type = 'Trained'
                        or exists (select from model_versions where model_id = model.id and job_id is not null))
                 order by id limit 100) next;
        exit when batch is null;
        last := batch[cardinality(batch)];
        perform from models where id = any(batch) order by id for update;
        update model_versions version
           set published_at = null
          from jobs job
         where version.model_id = any(batch) and version.published_at is not null
           and job.id = version.job_id and job.request ->> 'availability' = 'Private'
           and version.status = 'Published' and version.availability = 'Private'
           and not exists (select from notifications where key = 'version_published:' || version.id);
        update models model
           set published_at = null
         where model.id = any(batch) and model.published_at is not null
           and model.status = 'Published' and model.availability = 'Private' and model.upload_type = 'Trained'
           and not exists (select from model_versions where model_id = model.id and published_at is not null);
        commit;
    end loop;
end $$;

-- What a reader must know to keep an answer: which models changed since it read them. The outbox says it already, an
-- event in each transaction that changes one; `written` lets it be asked for what committed since a snapshot.

alter table outbox add column written xid8 not null default pg_current_xact_id();
create index outbox_changed_models on outbox (written) where kind = 'models.changed';

-- What else is shown of a model and did not settle it so far.
create constraint trigger models_owned_settle after update of account_id, upload_type, created_at on models
    deferrable initially deferred for each row when (old.* is distinct from new.*)
    execute function catalogue_touched();
create constraint trigger versions_made_settle
    after update of job_id, recipe, registered_as, upload_type, created_at on model_versions
    deferrable initially deferred for each row when (old.* is distinct from new.*)
    execute function catalogue_touched();

create function catalogue_hashed() returns trigger language plpgsql as $$
begin
    perform catalogue_settle(version.model_id)
       from version_files file join model_versions version on version.id = file.version_id
      where file.id = coalesce(new.file_id, old.file_id);
    return null;
end $$;
create constraint trigger hashes_settle after insert or update or delete on file_hashes
    deferrable initially deferred for each row execute function catalogue_hashed();

-- The counts of versions come with those of their models. What came alone is told as well.
create function catalogue_versions_counted() returns trigger language plpgsql as $$
declare
    ids bigint[] := array(
        select distinct version.model_id from changed join model_versions version on version.id = changed.version_id
         where not exists (select from outbox event
                            where event.written = pg_current_xact_id() and event.kind = 'models.changed'
                              and event.payload -> 'model_ids' @> to_jsonb(version.model_id))
         order by version.model_id);
begin
    if cardinality(ids) = 0 then
        return null;
    end if;
    perform from models where id = any(ids) order by id for update;
    update models set revision = nextval('catalogue_revision') where id = any(ids);
    insert into outbox (kind, subject, payload)
    values ('models.changed', 'models', jsonb_build_object('model_ids', ids, 'lane', 'counts'));
    return null;
end $$;
create trigger version_stats_inserted after insert on version_stats
    referencing new table as changed for each statement execute function catalogue_versions_counted();
create trigger version_stats_updated after update on version_stats
    referencing new table as changed for each statement execute function catalogue_versions_counted();

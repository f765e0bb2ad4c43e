-- What decides about a model stands in its row, whole: also whether its owner is banned. And every change of what
-- decides settles the model in the same transaction: of who showed an image, and of rows that move to another model.

alter table models add column owner_active boolean not null default true;
update models set owner_active = false
  from accounts where accounts.id = models.account_id and accounts.status <> 'active';

create or replace function catalogue_settle(settled_id bigint) returns void language plpgsql as $$
declare
    was models%rowtype;
    now_visible boolean;
    now_active boolean;
    shown bigint[];
    lane text;
begin
    -- The lock makes two writers of one model settle one after the other: the second sees what the first committed.
    select * into was from models where id = settled_id for update;
    if was.id is null or was.settled_by = pg_current_xact_id() then
        return;
    end if;
    update model_versions version
       set nsfw_level = level.bits
      from (select version_id, bit_or(nsfw_level) as bits from images where gone_at is null group by version_id) level
     where version.model_id = settled_id and level.version_id = version.id and version.nsfw_level <> level.bits;
    select coalesce(array_agg(version.id order by version.position desc), '{}') into shown
      from model_versions version
     where version.model_id = settled_id and version.status = 'Published' and version.availability <> 'Private'
       and exists (select from version_files file
                    where file.version_id = version.id and file.role = 'weights' and file.visibility = 'Public'
                      and file.type <> 'Training Data' and file.gone_at is null);
    now_active := exists (select from accounts where id = was.account_id and status = 'active');
    now_visible := was.status = 'Published' and was.availability <> 'Private' and was.gone_at is null
                   and cardinality(shown) > 0 and now_active;
    lane := case when was.settled_by is null or was.visible <> now_visible or was.public_versions <> shown
                      or was.listed <> (now_visible and was.availability = 'Public')
                 then 'visibility' else 'edits' end;
    update models
       set visible = now_visible,
           owner_active = now_active,
           listed = now_visible and availability = 'Public',
           public_versions = shown,
           base_models = array(select distinct base_model from model_versions where id = any(shown) order by base_model),
           nsfw_level = case when nsfw then 28
                             else coalesce((select bit_or(nsfw_level) from model_versions where id = any(shown)), 1) end,
           last_version_at = (select max(published_at) from model_versions
                               where model_id = settled_id and availability <> 'Private'
                                 and status in ('Published', 'Unpublished', 'UnpublishedViolation')),
           updated_at = now(),
           revision = nextval('catalogue_revision'),
           settled_by = pg_current_xact_id()
     where id = settled_id;
    perform catalogue_place('model', array[settled_id]);
    insert into outbox (kind, subject, payload)
    values ('models.changed', 'models', jsonb_build_object('model_ids', array[settled_id], 'lane', lane));
end $$;

-- In the order of models' ids, as all who settle several do.
create or replace function catalogue_touched() returns trigger language plpgsql as $$
declare
    touched jsonb[] := case tg_op when 'UPDATE' then array[to_jsonb(old), to_jsonb(new)]
                                  when 'DELETE' then array[to_jsonb(old)] else array[to_jsonb(new)] end;
begin
    case tg_table_name
        when 'models' then perform catalogue_settle((touched[1] ->> 'id')::bigint);
        when 'accounts' then
            perform catalogue_settle(id)
               from (select id from models where account_id = new.id
                     union
                     select version.model_id from images image join model_versions version on version.id = image.version_id
                      where image.account_id = new.id and image.gone_at is null
                      order by id) theirs;
        when 'model_versions', 'model_tags' then
            perform catalogue_settle(id)
               from (select distinct (one ->> 'model_id')::bigint as id from unnest(touched) as one order by id) ones;
        else
            perform catalogue_settle(id)
               from (select distinct version.model_id as id
                       from unnest(touched) as one join model_versions version on version.id = (one ->> 'version_id')::bigint
                      order by id) ones;
    end case;
    return null;
end $$;

create constraint trigger versions_moved_settle after update of model_id on model_versions
    deferrable initially deferred for each row when (old.model_id <> new.model_id)
    execute function catalogue_touched();

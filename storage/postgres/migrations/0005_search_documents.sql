-- Images and creators are searched as models are. What a document is made of lies in several rows, each of which counts
-- its own changes: the sum is the document's revision. It grows with every change in whatever order they commit, and no
-- writer waits for another one for it.

alter table accounts add column changes bigint not null default 1;
alter table images add column changes bigint not null default 1;
alter table image_stats add column changes bigint not null default 1;
-- Changes of a model that its images show, and those that its creator shows.
alter table models
    add column image_changes   bigint not null default 0,
    add column creator_changes bigint not null default 0;

-- An image is listed when its model and its version are, it is there, and who showed it is not banned.
create view image_listings as
select image.id,
       image.account_id,
       image.version_id,
       version.model_id,
       image.changes + coalesce(stats.changes, 0) + model.image_changes + account.changes as revision,
       image.gone_at is null and model.listed and version.id = any(model.public_versions)
       and account.status = 'active' as listed
  from images image
  join model_versions version on version.id = image.version_id
  join models model on model.id = version.model_id
  join accounts account on account.id = image.account_id
  left join image_stats stats on stats.image_id = image.id;

-- A creator is an account that has listed models and is not banned.
create view creator_listings as
select account.number as id,
       account.id as account_id,
       account.changes + theirs.changes as revision,
       account.status = 'active' and theirs.models > 0 as listed,
       theirs.models
  from accounts account,
       lateral (select coalesce(sum(creator_changes), 0)::bigint as changes, count(*) filter (where listed) as models
                  from models where account_id = account.id) theirs;

create function search_change_counted() returns trigger language plpgsql as $$
begin
    new.changes := old.changes + 1;
    return new;
end $$;
create trigger accounts_counted before update on accounts for each row
    when ((old.name, old.status, old.image) is distinct from (new.name, new.status, new.image))
    execute function search_change_counted();
create trigger images_counted before update on images for each row
    when (old.* is distinct from new.*) execute function search_change_counted();
create trigger image_stats_counted before update on image_stats for each row
    when (old.* is distinct from new.*) execute function search_change_counted();

create function search_tell(told text, payload jsonb, lane text) returns void language sql as $$
    insert into outbox (kind, subject, payload)
    values (told, split_part(told, '.', 1), payload || jsonb_build_object('lane', lane));
$$;

-- A ban or a new name changes the creator and the images that the account showed, also with models of others.
create function search_account_changed() returns trigger language plpgsql as $$
declare
    lane text := case when old.status <> new.status then 'visibility' else 'edits' end;
begin
    perform search_tell('creators.changed', jsonb_build_object('numbers', array[new.number]), lane);
    perform search_tell('images.changed', jsonb_build_object('account_numbers', array[new.number]), lane);
    return null;
end $$;
create trigger accounts_searched after update on accounts for each row
    when (old.changes <> new.changes) execute function search_account_changed();

create function search_images_changed() returns trigger language plpgsql as $$
declare
    ids bigint[];
    lane text := 'visibility';
begin
    if tg_table_name = 'image_stats' then
        ids := array(select image_id from changed order by image_id);
        lane := 'counts';
    elsif tg_op = 'INSERT' then
        ids := array(select id from changed order by id);
    else
        ids := array(select changed.id from changed join before using (id)
                      where changed.changes <> before.changes order by changed.id);
    end if;
    if cardinality(ids) > 0 then
        perform search_tell('images.changed', jsonb_build_object('image_ids', ids), lane);
    end if;
    return null;
end $$;
create trigger images_insert_searched after insert on images
    referencing new table as changed for each statement execute function search_images_changed();
create trigger images_update_searched after update on images
    referencing new table as changed old table as before for each statement execute function search_images_changed();
create trigger image_stats_insert_searched after insert on image_stats
    referencing new table as changed for each statement execute function search_images_changed();
create trigger image_stats_update_searched after update on image_stats
    referencing new table as changed for each statement execute function search_images_changed();

-- The row is locked here, so whoever lists the model later counts again. A model that is in no list has no documents.
create function search_model_changed() returns trigger language plpgsql as $$
declare
    lane text := case when (old.listed, old.public_versions) is distinct from (new.listed, new.public_versions)
                      then 'visibility' else 'edits' end;
begin
    if not (old.listed or new.listed) then
        return new;
    end if;
    if (old.name, old.type, old.listed, old.public_versions, old.image_changes)
       is distinct from (new.name, new.type, new.listed, new.public_versions, new.image_changes) then
        new.image_changes := old.image_changes + 1;
        perform search_tell('images.changed', jsonb_build_object('model_ids', array[new.id]), lane);
    end if;
    if (old.listed, old.type, old.base_models, old.nsfw_level, old.last_version_at)
       is distinct from (new.listed, new.type, new.base_models, new.nsfw_level, new.last_version_at) then
        new.creator_changes := old.creator_changes + 1;
        perform search_tell('creators.changed', jsonb_build_object('numbers',
                            array(select number from accounts where id = new.account_id)), lane);
    end if;
    return new;
end $$;
create trigger models_searched before update on models for each row
    when ((old.name, old.type, old.listed, old.public_versions, old.image_changes, old.base_models, old.nsfw_level,
           old.last_version_at)
          is distinct from
          (new.name, new.type, new.listed, new.public_versions, new.image_changes, new.base_models, new.nsfw_level,
           new.last_version_at))
    execute function search_model_changed();

-- Tags and what versions are called are shown with images as well.
create function search_tags_changed() returns trigger language plpgsql as $$
begin
    perform from models where id in (select model_id from changed) order by id for update;
    update models set image_changes = image_changes + 1 where id in (select model_id from changed);
    return null;
end $$;
create trigger model_tags_insert_searched after insert on model_tags
    referencing new table as changed for each statement execute function search_tags_changed();
create trigger model_tags_delete_searched after delete on model_tags
    referencing old table as changed for each statement execute function search_tags_changed();

create function search_version_changed() returns trigger language plpgsql as $$
begin
    update models set image_changes = image_changes + 1 where id = new.model_id;
    return null;
end $$;
create constraint trigger versions_searched after update of name, base_model on model_versions
    deferrable initially deferred for each row
    when ((old.name, old.base_model) is distinct from (new.name, new.base_model))
    execute function search_version_changed();

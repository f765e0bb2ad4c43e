-- The catalogue as Civitai's clients know it: accounts as users, the life of models and versions, files with six
-- hashes, images, tags, counts, and lists that keep the order of the moment they were first read.

create sequence catalogue_revision;

-- Accounts are the catalogue's users.

alter table accounts
    add column number     bigint generated always as identity unique,
    add column role       text not null default 'creator' check (role in ('reader', 'creator', 'moderator')),
    add column status     text not null default 'active' check (status in ('active', 'banned')),
    add column ban_reason text,
    add column image      text,
    add check ((status = 'banned') = (ban_reason is not null));
update accounts set role = 'moderator' where name = 'owner';
create index accounts_by_name on accounts (lower(name) text_pattern_ops);

-- A key that allowed everything there was still does.
update api_keys set scopes = scopes || array['models:write', 'keys:read', 'keys:write']
 where scopes @> array['data-sets:read', 'data-sets:write', 'jobs:read', 'jobs:write', 'models:read'];

-- Models. What stands below "derived" is written by catalogue_settle alone: `visible` models answer by their id, `listed`
-- ones also stand in lists; `public_versions` are those that anybody sees, newest first.

alter table models
    add column description             text not null default '',
    add column status                  text not null default 'Published',
    add column availability            text not null default 'Public'
                                       check (availability in ('Public', 'Unsearchable', 'Private')),
    add column mode                    text check (mode in ('Archived', 'TakenDown')),
    add column checkpoint_type         text check (checkpoint_type in ('Trained', 'Merge')),
    add column upload_type             text not null default 'Trained' check (upload_type in ('Created', 'Trained')),
    add column nsfw                    boolean not null default false,
    add column poi                     boolean not null default false,
    add column minor                   boolean not null default false,
    add column sfw_only                boolean not null default false,
    add column allow_no_credit         boolean not null default true,
    add column allow_commercial_use    text[] not null default '{Sell}'
                                       check (allow_commercial_use
                                              <@ array['None', 'Image', 'RentCivit', 'Rent', 'Sell']),
    add column allow_derivatives       boolean not null default true,
    add column allow_different_license boolean not null default true,
    add column updated_at              timestamptz not null default now(),
    add column published_at            timestamptz,
    add column scheduled_for           timestamptz,
    add column gone_at                 timestamptz,
    add column gone_reason             text,
    -- derived
    add column visible                 boolean not null default false,
    add column listed                  boolean not null default false,
    add column public_versions         bigint[] not null default '{}',
    add column base_models             text[] not null default '{}',
    add column nsfw_level              int not null default 1 check (nsfw_level between 0 and 63),
    add column last_version_at         timestamptz,
    add column revision                bigint not null default nextval('catalogue_revision'),
    add column settled_by              xid8;
update models set published_at = created_at;
alter table models
    alter column status set default 'Draft',
    alter column upload_type set default 'Created',
    add constraint models_type_check
        check (type in ('Checkpoint', 'TextualInversion', 'Hypernetwork', 'AestheticGradient', 'LORA', 'LoCon', 'DoRA',
                        'Controlnet', 'Upscaler', 'MotionModule', 'VAE', 'TextEncoder', 'UNet', 'CLIPVision', 'Poses',
                        'Wildcards', 'Workflows', 'ComfyWorkflows', 'Detection', 'VisionLanguage', 'CLIP', 'LLM',
                        'Other')),
    add constraint models_status_check
        check (status in ('Draft', 'Scheduled', 'Published', 'Unpublished', 'UnpublishedViolation', 'Deleted')),
    add constraint models_published_check
        check ((status <> 'Published' or published_at is not null) and (status = 'Scheduled') = (scheduled_for is not null)),
    add constraint models_gone_check
        check ((status = 'Deleted' or mode is not distinct from 'TakenDown') = (gone_at is not null)
               and (gone_at is null) = (gone_reason is null));
drop index models_by_name;
create unique index models_by_name on models (account_id, lower(name)) where status <> 'Deleted';
create index models_by_account on models (account_id, id);
create index models_by_base_model on models using gin (base_models) where listed;
create index models_scheduled on models (scheduled_for) where status = 'Scheduled';

-- Versions. Those of uploads have no job and no recipe.

alter table model_versions
    alter column job_id drop not null,
    alter column recipe drop not null,
    alter column published_at drop not null,
    alter column published_at drop default,
    add column description          text not null default '',
    add column status               text not null default 'Published',
    add column availability         text not null default 'Public'
                                    check (availability in ('Public', 'Unsearchable', 'Private')),
    add column base_model_type      text not null default 'Standard'
                                    check (base_model_type in ('Standard', 'Inpainting', 'Refiner', 'Pix2Pix')),
    add column steps                int,
    add column epochs               int,
    add column clip_skip            int,
    add column upload_type          text not null default 'Trained' check (upload_type in ('Created', 'Trained')),
    add column usage_control        text not null default 'Download'
                                    check (usage_control in ('Download', 'Generation', 'InternalGeneration')),
    add column require_auth         boolean not null default false,
    add column created_at           timestamptz not null default now(),
    add column updated_at           timestamptz not null default now(),
    add column scheduled_for        timestamptz,
    add column gone_at              timestamptz,
    add column gone_reason          text,
    -- derived
    add column nsfw_level           int not null default 1 check (nsfw_level between 0 and 63);
-- So far base_model held the registered base's name, which the recipe holds as well.
update model_versions version
   set created_at = published_at, updated_at = published_at,
       base_model = coalesce((select 'SD 1.5' from base_models base
                               where base.name = version.base_model and base.facts ->> 'family' = 'sd1'
                                 and (base.facts ->> 'resolution')::int >= 512), 'Other');
alter table model_versions
    alter column status set default 'Draft',
    alter column upload_type set default 'Created',
    add constraint versions_status_check
        check (status in ('Draft', 'Scheduled', 'Published', 'Unpublished', 'UnpublishedViolation', 'Deleted')),
    add constraint versions_published_check
        check ((status <> 'Published' or published_at is not null) and (status = 'Scheduled') = (scheduled_for is not null)),
    add constraint versions_gone_check
        check ((status = 'Deleted') = (gone_at is not null) and (gone_at is null) = (gone_reason is null));
create index versions_scheduled on model_versions (scheduled_for) where status = 'Scheduled';

-- Files. Role weights: what clients call a model's files. Role folder: members of the diffusers folder.

alter table version_files drop constraint version_files_pkey;
alter table version_files
    add column id            bigint generated always as identity primary key,
    add column type          text not null default 'Model',
    add column format        text not null default 'SafeTensor',
    add column size_kind     text check (size_kind in ('full', 'pruned')),
    add column fp            text,
    add column quant_type    text,
    add column visibility    text not null default 'Public' check (visibility in ('Sensitive', 'Private', 'Public')),
    add column override_name text,
    add column created_at    timestamptz not null default now(),
    add column gone_at       timestamptz;
create unique index version_files_by_path on version_files (version_id, path) where gone_at is null;

create table file_hashes (
    file_id bigint not null references version_files (id) on delete cascade,
    kind    text not null check (kind in ('AutoV1', 'AutoV2', 'AutoV3', 'SHA256', 'CRC32', 'BLAKE3')),
    hash    text not null check (hash ~ '^[0-9A-F]{8,64}$'),
    primary key (file_id, kind)
);
create index file_hashes_by_hash on file_hashes (hash);
insert into file_hashes (file_id, kind, hash)
select file.id, known.kind, upper(known.hash)
  from version_files file,
       lateral (values ('SHA256', file.sha256), ('AutoV2', left(file.sha256, 10)),
                       ('AutoV1', file.hashes ->> 'auto_v1'), ('AutoV3', file.hashes ->> 'auto_v3')) known (kind, hash)
 where file.role = 'weights' and known.hash is not null;
alter table version_files drop column hashes;

-- Images of a version: what its training drew of it, and what was uploaded to it.

create table images (
    id         bigint generated always as identity primary key,
    version_id bigint not null references model_versions (id),
    account_id uuid not null references accounts (id),
    position   int not null,
    sha256     text not null,
    size       bigint not null,
    media_type text not null,
    width      int not null check (width > 0),
    height     int not null check (height > 0),
    blurhash   text not null,
    nsfw_level int not null default 1 check (nsfw_level in (1, 2, 4, 8, 16, 32)),
    meta       jsonb,
    shuffle    bigint not null default (random() * 9007199254740992)::bigint,
    created_at timestamptz not null default now(),
    gone_at    timestamptz
);
create index images_by_version on images (version_id, position, id) where gone_at is null;
create index images_by_sha256 on images (sha256);
create index images_by_account on images (account_id, id);

create table tags (
    id   bigint generated always as identity primary key,
    name text not null unique check (name = lower(btrim(name)) and length(name) between 1 and 100)
);
create table model_tags (
    model_id bigint not null references models (id),
    tag_id   bigint not null references tags (id),
    primary key (model_id, tag_id)
);
create index model_tags_by_tag on model_tags (tag_id, model_id);

-- Counts, written in batches. No row means that all are 0.

create table model_stats (
    model_id            bigint primary key references models (id),
    download_count      bigint not null default 0,
    thumbs_up_count     bigint not null default 0,
    thumbs_down_count   bigint not null default 0,
    comment_count       bigint not null default 0,
    collected_count     bigint not null default 0,
    image_count         bigint not null default 0,
    tipped_amount_count bigint not null default 0,
    generation_count    bigint not null default 0
);
create table version_stats (
    version_id        bigint primary key references model_versions (id),
    download_count    bigint not null default 0,
    thumbs_up_count   bigint not null default 0,
    thumbs_down_count bigint not null default 0,
    generation_count  bigint not null default 0
);
create table image_stats (
    image_id        bigint primary key references images (id),
    cry_count       bigint not null default 0,
    laugh_count     bigint not null default 0,
    like_count      bigint not null default 0,
    dislike_count   bigint not null default 0,
    heart_count     bigint not null default 0,
    comment_count   bigint not null default 0,
    collected_count bigint not null default 0
);

-- Where an item stands in a list, now and in the last 24 hours. A row was the item's place from the transaction
-- `created` to the transaction `replaced`, so a list can be read as any snapshot of that time saw it, exactly.

create table sort_keys (
    list        text not null check (list in ('rated', 'downloaded', 'discussed', 'collected', 'pictured', 'newest',
                                              'oldest', 'image_reactions', 'image_comments', 'image_collected',
                                              'image_newest', 'image_oldest', 'image_random')),
    k1          bigint not null,
    k2          bigint not null,
    item_id     bigint not null,
    created     xid8 not null default pg_current_xact_id(),
    replaced    xid8,
    replaced_at timestamptz,
    check ((replaced is null) = (replaced_at is null))
);
create index sort_keys_in_order on sort_keys (list, k1, k2, item_id);
create unique index sort_keys_current on sort_keys (list, item_id) where replaced is null;
create index sort_keys_replaced on sort_keys (replaced_at) where replaced is not null;

-- Transaction numbers mean nothing in another cluster, so the rows remember which one wrote them.
create table catalogue_home (
    here              boolean primary key default true check (here),
    system_identifier bigint not null,
    epoch             text not null default gen_random_uuid()::text
);

create function catalogue_moved_in() returns boolean language plpgsql as $$
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
    insert into catalogue_home (system_identifier) values (cluster)
    on conflict (here) do update set system_identifier = excluded.system_identifier, epoch = gen_random_uuid()::text;
    return true;
end $$;
select catalogue_moved_in();

-- The place that each item should have in each list of its kind, the first one highest. Only listed models have one; whether an image's
-- version is public is asked when the list is read.
create view catalogue_places (kind, item_id, list, k1, k2) as
select 'model', model.id, place.list, place.k1, place.k2
  from models model
  left join model_stats stats on stats.model_id = model.id,
       lateral (values
           ('rated', coalesce(stats.thumbs_up_count, 0), coalesce(stats.download_count, 0)),
           ('downloaded', coalesce(stats.download_count, 0), coalesce(stats.thumbs_up_count, 0)),
           ('discussed', coalesce(stats.comment_count, 0), coalesce(stats.thumbs_up_count, 0)),
           ('collected', coalesce(stats.collected_count, 0), coalesce(stats.thumbs_up_count, 0)),
           ('pictured', coalesce(stats.image_count, 0), coalesce(stats.thumbs_up_count, 0)),
           ('newest', (extract(epoch from model.last_version_at) * 1000000)::bigint, 0),
           ('oldest', (extract(epoch from model.last_version_at) * -1000000)::bigint, -model.id)) place (list, k1, k2)
 where model.listed
union all
select 'image', image.id, place.list, place.k1, place.k2
  from images image
  left join image_stats stats on stats.image_id = image.id,
       lateral (values
           ('image_reactions',
            coalesce(stats.cry_count + stats.laugh_count + stats.like_count + stats.heart_count, 0), 0),
           ('image_comments', coalesce(stats.comment_count, 0), 0),
           ('image_collected', coalesce(stats.collected_count, 0), 0),
           ('image_newest', (extract(epoch from image.created_at) * 1000000)::bigint, 0),
           ('image_oldest', (extract(epoch from image.created_at) * -1000000)::bigint, -image.id),
           ('image_random', image.shuffle, 0)) place (list, k1, k2)
 where image.gone_at is null;

-- From the places that items have to those they should have. What stays the same is not written.
create function catalogue_place(placed text, ids bigint[]) returns void language plpgsql as $$
declare
    lists text[] := case placed
        when 'model' then array['rated', 'downloaded', 'discussed', 'collected', 'pictured', 'newest', 'oldest']
        else array['image_reactions', 'image_comments', 'image_collected', 'image_newest', 'image_oldest', 'image_random'] end;
begin
    update sort_keys old set replaced = pg_current_xact_id(), replaced_at = now()
     where old.replaced is null and old.item_id = any(ids) and old.list = any(lists)
       and not exists (select from catalogue_places new
                        where new.kind = placed and new.item_id = old.item_id and new.list = old.list
                          and new.k1 = old.k1 and new.k2 = old.k2);
    insert into sort_keys (list, k1, k2, item_id)
    select new.list, new.k1, new.k2, new.item_id from catalogue_places new
     where new.kind = placed and new.item_id = any(ids)
       and not exists (select from sort_keys old
                        where old.replaced is null and old.list = new.list and old.item_id = new.item_id);
end $$;

-- What every change of a model ends with, once a transaction, just before it commits: the derived columns, the next
-- revision, the places in the lists, and the event. No write can forget it, because triggers call it.
create function catalogue_settle(settled_id bigint) returns void language plpgsql as $$
declare
    was models%rowtype;
    now_visible boolean;
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
    now_visible := was.status = 'Published' and was.availability <> 'Private' and was.gone_at is null
                   and cardinality(shown) > 0
                   and exists (select from accounts where id = was.account_id and status = 'active');
    lane := case when was.settled_by is null or was.visible <> now_visible or was.public_versions <> shown
                      or was.listed <> (now_visible and was.availability = 'Public')
                 then 'visibility' else 'edits' end;
    update models
       set visible = now_visible,
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

create function catalogue_touched() returns trigger language plpgsql as $$
declare
    touched jsonb := to_jsonb(coalesce(new, old));
begin
    case tg_table_name
        when 'models' then perform catalogue_settle((touched ->> 'id')::bigint);
        when 'accounts' then
            perform catalogue_settle(id) from (select id from models where account_id = new.id order by id) theirs;
        when 'model_versions', 'model_tags' then perform catalogue_settle((touched ->> 'model_id')::bigint);
        else perform catalogue_settle(model_id) from model_versions where id = (touched ->> 'version_id')::bigint;
    end case;
    return null;
end $$;

create constraint trigger models_settle
    after insert or update of name, description, type, status, availability, mode, checkpoint_type, nsfw, poi, minor,
                              sfw_only, allow_no_credit, allow_commercial_use, allow_derivatives,
                              allow_different_license, published_at, scheduled_for, gone_at, gone_reason on models
    deferrable initially deferred for each row execute function catalogue_touched();
create constraint trigger accounts_settle after update of name, status, image on accounts
    deferrable initially deferred for each row when (old.* is distinct from new.*)
    execute function catalogue_touched();
create constraint trigger versions_settle
    after insert or update of name, description, status, availability, base_model, base_model_type, trained_words,
                              published_at, scheduled_for, gone_at, position, steps, epochs, clip_skip, usage_control, require_auth,
                              evaluation on model_versions
    deferrable initially deferred for each row execute function catalogue_touched();
create constraint trigger files_settle after insert or update or delete on version_files
    deferrable initially deferred for each row execute function catalogue_touched();
create constraint trigger images_settle after insert or update or delete on images
    deferrable initially deferred for each row execute function catalogue_touched();
create constraint trigger tags_settle after insert or update or delete on model_tags
    deferrable initially deferred for each row execute function catalogue_touched();

-- Counts come in batches, so they are settled by the statement: one event for all of its models.
create function catalogue_counted() returns trigger language plpgsql as $$
declare
    ids bigint[] := array(select model_id from changed order by model_id);
begin
    if cardinality(ids) = 0 then
        return null;
    end if;
    perform from models where id = any(ids) order by id for update;
    update models set revision = nextval('catalogue_revision') where id = any(ids);
    perform catalogue_place('model', ids);
    insert into outbox (kind, subject, payload)
    values ('models.changed', 'models', jsonb_build_object('model_ids', ids, 'lane', 'counts'));
    return null;
end $$;
create trigger model_stats_inserted after insert on model_stats
    referencing new table as changed for each statement execute function catalogue_counted();
create trigger model_stats_updated after update on model_stats
    referencing new table as changed for each statement execute function catalogue_counted();

create function catalogue_pictured() returns trigger language plpgsql as $$
begin
    if tg_table_name = 'images' then
        perform catalogue_place('image', array(select id from changed order by id));
    else
        perform catalogue_place('image', array(select image_id from changed order by image_id));
    end if;
    return null;
end $$;
create trigger images_inserted after insert on images
    referencing new table as changed for each statement execute function catalogue_pictured();
create trigger images_updated after update on images
    referencing new table as changed for each statement execute function catalogue_pictured();
create trigger image_stats_inserted after insert on image_stats
    referencing new table as changed for each statement execute function catalogue_pictured();
create trigger image_stats_updated after update on image_stats
    referencing new table as changed for each statement execute function catalogue_pictured();

-- What was published before this migration takes its place.
select catalogue_settle(id) from (select id from models order by id) every_model;

-- looked_up --
-- Each row looks up what belongs to it. A planner that takes such lookups for dear, as it does for disks that turn, reads
-- whole tables for every batch.
select set_config('random_page_cost', '1.1', true);

-- models --
-- Models as they are now, listed or not.
select model.id,
       model.revision,
       model.listed,
       model.name,
       account.name as creator,
       model.type,
       model.base_models,
       array(select tag.name from model_tags tagged join tags tag on tag.id = tagged.tag_id
              where tagged.model_id = model.id
              order by tag.name) as tags,
       array(select distinct word from model_versions version, unnest(version.trained_words) word
              where version.id = any(model.public_versions)
              order by word) as trained_words,
       array(select version.name from model_versions version
              where version.id = any(model.public_versions)
              order by version.position desc) as version_names,
       array(select distinct coalesce(file.override_name, file.path) as name from version_files file
              where file.version_id = any(model.public_versions) and file.role = 'weights'
                and file.visibility = 'Public' and file.gone_at is null
              order by name) as file_names,
       array(select distinct known.hash from version_files file join file_hashes known on known.file_id = file.id
              where file.version_id = any(model.public_versions) and file.role = 'weights'
                and file.visibility = 'Public' and file.gone_at is null
              order by known.hash) as hashes,
       model.description,
       model.nsfw_level as levels,
       coalesce(model.last_version_at, model.created_at) as published_at,
       coalesce(stats.thumbs_up_count, 0) as likes,
       coalesce(stats.download_count, 0) as downloads,
       coalesce(stats.comment_count, 0) as comments,
       coalesce(stats.collected_count, 0) as collected,
       coalesce(stats.image_count, 0) as pictures
  from models model
  join accounts account on account.id = model.account_id
  left join model_stats stats on stats.model_id = model.id
 where model.id = any(%(ids)s)
 order by model.id;

-- images --
-- Images as they are now, listed or not. Of how one was made, what was not wanted in it is no word of it.
select image.id,
       listing.revision,
       listing.listed,
       coalesce(image.meta ->> 'prompt', '') as prompt,
       -- jsonb_each fails for anything but an object, and what clients send as meta may be anything.
       array(select entry.value #>> '{}' from jsonb_each(case jsonb_typeof(image.meta) when 'object' then image.meta end) entry
              where jsonb_typeof(entry.value) = 'string' and entry.key not in ('prompt', 'negativePrompt')
              order by entry.key) as details,
       model.name as model_name,
       version.name as version_name,
       account.name as creator,
       model.type,
       version.base_model,
       array(select tag.name from model_tags tagged join tags tag on tag.id = tagged.tag_id
              where tagged.model_id = model.id
              order by tag.name) as tags,
       image.sha256,
       image.nsfw_level as level,
       image.width,
       image.height,
       image.created_at,
       coalesce(stats.cry_count + stats.laugh_count + stats.like_count + stats.heart_count, 0) as reactions,
       coalesce(stats.comment_count, 0) as comments,
       coalesce(stats.collected_count, 0) as collected
  from image_listings listing
  join images image on image.id = listing.id
  join model_versions version on version.id = listing.version_id
  join models model on model.id = listing.model_id
  join accounts account on account.id = listing.account_id
  left join image_stats stats on stats.image_id = image.id
 where listing.id = any(%(ids)s)
 order by listing.id;

-- creators --
-- Creators as they are now, listed or not.
select listing.id,
       listing.revision,
       listing.listed,
       account.name,
       listing.models,
       array(select distinct type from models where account_id = account.id and listed order by type) as types,
       array(select distinct base_model from models, unnest(base_models) base_model
              where account_id = account.id and listed
              order by base_model) as base_models,
       coalesce((select bit_or(nsfw_level) from models where account_id = account.id and listed), 1) as levels,
       coalesce((select max(last_version_at) from models where account_id = account.id and listed),
                account.created_at) as published_at
  from creator_listings listing
  join accounts account on account.id = listing.account_id
 where listing.id = any(%(ids)s)
 order by listing.id;

-- shards --
-- The first ids of equal shards of what is listed.
select id
  from (select id, row_number() over (order by id) as position from {listings} where listed) numbered
 -- Written so that it also holds for shards of a single row, whose remainder is 0.
 where position %% %(size)s = 1 %% %(size)s
 order by id;

-- listed --
select id from {listings} where listed and id >= %(first)s and (%(end)s::bigint is null or id < %(end)s::bigint) order by id;

-- revisions --
-- What an index should have, in pages.
select id, revision from {listings} where listed and id > %(after)s order by id limit %(limit)s;

-- unlisted --
-- Those of some ids that nobody may see in a list, with the revision that says so.
select id, revision from {listings} where id = any(%(ids)s) and not listed order by id;

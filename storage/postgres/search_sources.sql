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

-- model_shards --
-- The first ids of equal shards of what is listed.
select id
  from (select id, row_number() over (order by id) as position from models where listed) numbered
 where position %% %(size)s = 1 %% %(size)s
 order by id;

-- listed_models --
select id from models where listed and id >= %(first)s and (%(end)s::bigint is null or id < %(end)s::bigint) order by id;

-- model_revisions --
-- What an index should have, in pages.
select id, revision from models where listed and id > %(after)s order by id limit %(limit)s;

-- unlisted_models --
-- Of these ids the models that nobody may see in a list, with the revision that says so.
select id, revision from models where id = any(%(ids)s) and not listed order by id;

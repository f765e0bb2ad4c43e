-- of_versions --
-- The first images of each version, in the order they were given.
select image.*
  from unnest(%(version_ids)s::bigint[]) as asked (id),
       lateral (select * from images image
                 where version_id = asked.id and gone_at is null
                   and (asked.id = any(%(everything_of)s::bigint[]) or {shown_image})
                 order by position, id
                 limit %(each)s) image
 order by image.version_id, image.position, image.id;

-- shown --
-- Images by their ids, in that order, with what a list says of each.
select image.*, account.name as username, version.base_model, version.model_id,
       coalesce(stats.cry_count, 0) as cry_count, coalesce(stats.laugh_count, 0) as laugh_count,
       coalesce(stats.like_count, 0) as like_count, coalesce(stats.dislike_count, 0) as dislike_count,
       coalesce(stats.heart_count, 0) as heart_count, coalesce(stats.comment_count, 0) as comment_count
  from unnest(%(ids)s::bigint[]) with ordinality as asked (id, place)
  join images image on image.id = asked.id
  join accounts account on account.id = image.account_id
  join model_versions version on version.id = image.version_id
  left join image_stats stats on stats.image_id = image.id
 order by asked.place;

-- listed --
select id from image_listings where id = any(%(ids)s) and listed;

-- of_version --
-- An image of a version, gone ones too.
select * from images where id = %(id)s and version_id = %(version_id)s;

-- change --
-- What is not among the changes stays.
update images image
   set (nsfw_level, meta) = (select nsfw_level, meta from jsonb_populate_record(image, %(changes)s))
 where id = %(id)s
returning *;

-- delete --
update images set gone_at = now() where id = %(id)s and gone_at is null returning id;

-- ensure --
-- The set of a recipe, made when new, and used now.
insert into sampled_sets (recipe_hash, recipe, images) values (%(recipe_hash)s, %(recipe)s, %(images)s)
on conflict (recipe_hash) do update set images = greatest(sampled_sets.images, excluded.images), used_at = now()
returning recipe_hash;

-- locked --
select recipe_hash from sampled_sets where recipe_hash = %(recipe_hash)s and used_at < %(before)s for update skip locked;

-- put_batch --
-- A batch, or what was missing of one. Written again it is the same.
insert into sampled_images (recipe_hash, position, sha256, size)
select %(recipe_hash)s, position, sha256, size
  from jsonb_to_recordset(%(images)s) as image (position int, sha256 text, size bigint)
on conflict (recipe_hash, position) do update set sha256 = excluded.sha256, size = excluded.size;

-- images --
-- A larger set has more than were asked for.
select position, sha256, size
  from sampled_images
 where recipe_hash = %(recipe_hash)s and position < %(images)s
 order by position;

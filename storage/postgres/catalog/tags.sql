-- page --
-- Tags of listed models, the most used first.
select tag.id, tag.name, count(*) as models
  from tags tag
  join model_tags on model_tags.tag_id = tag.id
  join models model on model.id = model_tags.model_id and model.listed
 where %(query)s::text is null or starts_with(tag.name, lower(%(query)s::text))
 group by tag.id, tag.name
 order by count(*) desc, tag.name
offset %(offset)s
 limit %(limit)s;

-- total --
select count(*) as total from tags tag
 where (%(query)s::text is null or starts_with(tag.name, lower(%(query)s::text)))
   and exists (select from model_tags join models model on model.id = model_tags.model_id and model.listed
                where model_tags.tag_id = tag.id);

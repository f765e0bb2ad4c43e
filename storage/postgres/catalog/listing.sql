-- epoch --
-- The cluster in whose transaction numbers sort keys are written, and how far it has come. What this transaction asks
-- next is planned for the filters that it has: a plan for any filters takes 20 times as long.
select epoch, pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next_transaction
  from catalogue_home, set_config('plan_cache_mode', 'force_custom_plan', true);

-- models --
-- A page of a list, as the snapshot saw its order, of what is public now. It begins at a place, which it includes.
select key.k1, key.k2, key.item_id, asked.snapshot::text as snapshot
  from (select coalesce(%(snapshot)s::pg_snapshot, pg_current_snapshot()) as snapshot) asked,
       sort_keys key
  join models model on model.id = key.item_id
 where key.list = %(list)s
   -- Compared as a row, so that the index in this order is entered at the place.
   and (key.k1, key.k2, key.item_id) <= (%(k1)s, %(k2)s, %(item_id)s)
   and pg_visible_in_snapshot(key.created, asked.snapshot)
   and (key.replaced is null or not pg_visible_in_snapshot(key.replaced, asked.snapshot))
   and model.listed
   and (%(archived)s or model.mode is null)
   and (model.nsfw_level & %(levels)s) <> 0
   and (%(types)s::text[] is null or model.type = any(%(types)s::text[]))
   and (%(base_models)s::text[] is null or model.base_models && %(base_models)s::text[])
   and (%(checkpoint_type)s::text is null or model.checkpoint_type = %(checkpoint_type)s::text)
   and (%(account_ids)s::uuid[] is null or model.account_id = any(%(account_ids)s::uuid[]))
   and (%(tag_id)s::bigint is null
        or exists (select from model_tags where model_id = model.id and tag_id = %(tag_id)s::bigint))
   and (%(ids)s::bigint[] is null or model.id = any(%(ids)s::bigint[]))
   and (%(version_ids)s::bigint[] is null or model.public_versions && %(version_ids)s::bigint[])
   and (%(since)s::timestamptz is null or model.last_version_at >= %(since)s::timestamptz)
   and (%(commercial_use)s::text[] is null or model.allow_commercial_use && %(commercial_use)s::text[])
   and (%(allow_no_credit)s::boolean is null or model.allow_no_credit = %(allow_no_credit)s::boolean)
   and (%(allow_derivatives)s::boolean is null or model.allow_derivatives = %(allow_derivatives)s::boolean)
   and (%(allow_different_license)s::boolean is null
        or model.allow_different_license = %(allow_different_license)s::boolean)
   and (%(upload_type)s::text is null or model.upload_type = %(upload_type)s::text)
   and (not %(drawable)s
        or exists (select from model_versions where id = any(model.public_versions) and recipe is not null))
   and (%(formats)s::text[] is null
        or exists (select from version_files file
                    where file.version_id = any(model.public_versions) and file.role = 'weights'
                      and file.format = any(%(formats)s::text[]) and file.gone_at is null))
 order by key.k1 desc, key.k2 desc, key.item_id desc
offset %(offset)s
 limit %(limit)s;

-- images --
-- The same for images. Those of a model that stands in no list are shown to who names the model, version or image.
select key.k1, key.k2, key.item_id, asked.snapshot::text as snapshot
  from (select coalesce(%(snapshot)s::pg_snapshot, pg_current_snapshot()) as snapshot) asked,
       sort_keys key
  join images image on image.id = key.item_id
  join model_versions version on version.id = image.version_id
  join models model on model.id = version.model_id
 where key.list = %(list)s
   and (key.k1, key.k2, key.item_id) <= (%(k1)s, %(k2)s, %(item_id)s)
   and pg_visible_in_snapshot(key.created, asked.snapshot)
   and (key.replaced is null or not pg_visible_in_snapshot(key.replaced, asked.snapshot))
   and image.gone_at is null
   and (image.nsfw_level & %(levels)s) <> 0
   and model.visible and version.id = any(model.public_versions)
   and exists (select from accounts where id = image.account_id and status = 'active')
   -- Who names one knows it: Unsearchable keeps a model out of lists, not from those who have its address.
   and (model.listed or coalesce(%(model_id)s::bigint, %(version_id)s::bigint, %(image_id)s::bigint) is not null)
   and (%(model_id)s::bigint is null or model.id = %(model_id)s::bigint)
   and (%(version_id)s::bigint is null or version.id = %(version_id)s::bigint)
   and (%(image_id)s::bigint is null or image.id = %(image_id)s::bigint)
   and (%(account_ids)s::uuid[] is null or image.account_id = any(%(account_ids)s::uuid[]))
   and (%(tags)s::bigint[] is null
        or exists (select from model_tags where model_id = model.id and tag_id = any(%(tags)s::bigint[])))
   and (%(base_models)s::text[] is null or version.base_model = any(%(base_models)s::text[]))
   and (not %(requiring_meta)s or image.meta is not null)
   and (%(since)s::timestamptz is null or image.created_at >= %(since)s::timestamptz)
 order by key.k1 desc, key.k2 desc, key.item_id desc
offset %(offset)s
 limit %(limit)s;

-- tag --
select id from tags where name = %(name)s;

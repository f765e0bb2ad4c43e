-- ensure_model --
-- The account's model of this name, made when new; no row when its model of that name is of another type. What is
-- private has no date of publication. A version for everybody publishes a draft of that name, and a model of fine-tunes
-- that was never published; a model that its owner or a moderator has hidden stays hidden, and a private version changes
-- nothing of its model.
insert into models (account_id, name, type, status, availability, published_at, upload_type, checkpoint_type)
values (%(account_id)s, %(name)s, %(type)s, 'Published', %(availability)s,
        case when %(availability)s::text <> 'Private' then now() end, 'Trained',
        case when %(type)s::text = 'Checkpoint' then 'Trained' end)
on conflict (account_id, lower(name)) where status <> 'Deleted' do update
   set (status, availability, published_at) =
       (select case when opens and models.status = 'Draft' then 'Published' else models.status end,
               case when opens and unseen then excluded.availability else models.availability end,
               coalesce(models.published_at,
                        case when opens and (unseen or models.status = 'Draft' and models.availability <> 'Private')
                             then now() end)
          from (select excluded.availability <> 'Private' as opens,
                       models.availability = 'Private' and models.upload_type = 'Trained'
                       and models.status = 'Published' and models.published_at is null as unseen) as known)
 where models.type = excluded.type
returning *;

-- model_named --
-- The account's model of this name.
select * from models where account_id = %(account_id)s and lower(name) = lower(%(name)s) and status <> 'Deleted';

-- insert_version --
-- The next version of a model. Publishing one job twice is refused by the unique job_id.
insert into model_versions (model_id, position, name, job_id, base_model, trained_words, recipe, evaluation, steps,
                            status, availability, upload_type, published_at)
select %(model_id)s, next.position, 'v' || next.position, %(job_id)s, %(base_model)s, %(trained_words)s, %(recipe)s,
       %(evaluation)s, %(steps)s, 'Published', %(availability)s, 'Trained',
       case when %(availability)s::text <> 'Private' then now() end
  from (select coalesce(max(position), 0) + 1 as position from model_versions where model_id = %(model_id)s) next
returning *;

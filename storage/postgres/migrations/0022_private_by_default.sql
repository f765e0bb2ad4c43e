-- What its owner alone sees has no date of publication: it gets one when it is published for others, whom that is news
-- to. So far a private fine-tune was dated when it was made.
-- Both checks allow more than before, so that code of before keeps them too.
alter table models
    -- squawk-ignore ban-drop-constraint
    drop constraint models_published_check,
    add constraint models_published_check
        check ((status <> 'Published' or availability = 'Private' or published_at is not null)
               and (status = 'Scheduled') = (scheduled_for is not null)) not valid;
alter table model_versions
    -- squawk-ignore ban-drop-constraint
    drop constraint versions_published_check,
    add constraint versions_published_check
        check ((status <> 'Published' or availability = 'Private' or published_at is not null)
               and (status = 'Scheduled') = (scheduled_for is not null)) not valid;

-- Fine-tunes that were asked for as private and are so still, unless followers were told of them meanwhile.
update model_versions version
   set published_at = null
  from jobs job
 where job.id = version.job_id and job.request ->> 'availability' = 'Private'
   and version.status = 'Published' and version.availability = 'Private'
   and not exists (select from notifications where key = 'version_published:' || version.id);
update models model
   set published_at = null
 where model.status = 'Published' and model.availability = 'Private' and model.upload_type = 'Trained'
   and not exists (select from model_versions where model_id = model.id and published_at is not null);

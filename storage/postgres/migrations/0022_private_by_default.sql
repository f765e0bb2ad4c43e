-- What its owner alone sees has no date of publication: it gets one when it is published for others, whom that is news
-- to. So far a private fine-tune was dated when it was made.
-- Dates of before go in a file of their own (0033), in batches: here whole tables are locked, if only for a moment.
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

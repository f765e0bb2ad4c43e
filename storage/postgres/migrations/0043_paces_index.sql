-- How long trainings on a base model take is asked with each look at one that has not ended: of the newest that
-- succeeded.
-- no transaction: the index is built while jobs come and go.
-- statement_timeout 30min: old platforms have many jobs, each with its request.

create index concurrently if not exists jobs_trained_on_base on jobs ((request ->> 'base_model'), sequence desc)
    where kind = 'training' and state = 'succeeded';

-- What is old is found by its age, in any order of arrival.
-- no transaction: the indexes are built while rows come and go.
-- statement_timeout 30min: the outbox of an old platform has millions of rows.

create index concurrently if not exists outbox_done on outbox (done_at) where done_at is not null;
create index concurrently if not exists activity_set_aside_by_age on activity_set_aside using brin (noted_at);
create index concurrently if not exists search_vectors_by_age on search_vectors using brin (created_at);

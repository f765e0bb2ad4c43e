-- Whether an earlier event of the same subject still waits is asked for each that is claimed.
-- no transaction: the index is built while events come and go.
-- statement_timeout 30min: it reads the whole outbox of an old platform.

create index concurrently if not exists outbox_waiting_by_subject on outbox (subject, id) where done_at is null;

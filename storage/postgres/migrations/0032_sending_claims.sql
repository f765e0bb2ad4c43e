-- Which claim of a sending is the newest. Tries are counted from 0 again when a sending is sent again; this never goes
-- back, so that a slow worker's claim of before is never taken for a new one.
alter table sendings add column claims integer not null default 0;

-- The id of the API's request that a job was asked for with, for the logs of everything that is done for it. Jobs from
-- before, and those asked for in Prefect's form, have none.
alter table jobs add column request_id text;

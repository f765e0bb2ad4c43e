-- Which key made a key, and when one was last used. Keys made before this have no maker: an operator revokes them one
-- by one.
-- A table of keys is small (an account has a hundred at most): it is read through in milliseconds.
alter table api_keys
    -- squawk-ignore adding-foreign-key-constraint
    add column made_by      text references api_keys (id),
    add column last_used_at timestamptz;
-- squawk-ignore require-concurrent-index-creation
create index api_keys_by_maker on api_keys (made_by) where made_by is not null;
-- squawk-ignore require-concurrent-index-creation
create index api_keys_by_account on api_keys (account_id, created_at desc, id desc);

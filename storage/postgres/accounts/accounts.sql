-- owner --
-- The account that the first start made.
select * from accounts where name = 'owner';

-- ensure_account --
-- The account of this name, made when new.
insert into accounts (name, role) values (%(name)s, %(role)s)
-- Changes nothing; "do nothing" would return no row for a name that is there.
on conflict (name) do update set name = excluded.name
returning *;

-- account --
select * from accounts where id = %(id)s;

-- users --
select * from accounts
 -- The casts: Postgres cannot infer the type of a parameter that is only compared with null.
 where (%(name)s::text is null or lower(name) = lower(%(name)s::text))
   and (%(number)s::bigint is null or number = %(number)s::bigint)
   and (%(numbers)s::bigint[] is null or number = any(%(numbers)s::bigint[]))
 order by number;

-- find_users --
-- Active accounts whose name begins with a text.
select * from accounts
 where status = 'active' and starts_with(lower(name), lower(%(query)s))
 order by lower(name), number
 limit %(limit)s;

-- creators --
-- Active accounts that have listed models, the most productive first.
select account.number, account.name, account.image, count(*) as models
  from accounts account join models model on model.account_id = account.id and model.listed
 where %(query)s::text is null or starts_with(lower(account.name), lower(%(query)s::text))
 group by account.number, account.name, account.image
 order by count(*) desc, account.number
offset %(offset)s
 limit %(limit)s;

-- creators_by_number --
-- Creators in the order of their numbers' list.
select account.number, account.name, account.image, listing.models
  from unnest(%(numbers)s::bigint[]) with ordinality as asked (number, place)
  join creator_listings listing on listing.id = asked.number and listing.listed
  join accounts account on account.id = listing.account_id
 order by asked.place;

-- count_creators --
select count(distinct account.id) as total
  from accounts account join models model on model.account_id = account.id and model.listed
 where %(query)s::text is null or starts_with(lower(account.name), lower(%(query)s::text));

-- accounts_by_id --
select * from accounts where id = any(%(ids)s);

-- add_key --
insert into api_keys (id, account_id, name, secret_hash, scopes, expires_at, made_by)
values (%(id)s, %(account_id)s, %(name)s, %(secret_hash)s, %(scopes)s, %(expires_at)s, %(made_by)s)
returning *;

-- hold_account --
-- One making or revoking of an account's keys at a time, so that none is made by a key that is revoked meanwhile, and
-- their limit holds.
-- Not "for update": rows that only refer to the account may be written meanwhile.
select id from accounts where id = %(id)s for no key update;

-- working_keys --
-- How many keys of an account work, and whether the one that asks for another still does.
select count(*) as working, coalesce(bool_or(id = %(asking)s), false) as asking_works
  from api_keys
 where account_id = %(account_id)s and revoked_at is null and (expires_at is null or expires_at > now());

-- key --
select * from api_keys where id = %(id)s;

-- authenticate --
-- A key and its account in one go: every request that brings a key waits for this. Revoking a key revokes what it
-- made; that is looked at again here, so that no key outlives its maker whatever happened between.
select key.*, to_jsonb(account) as account,
       case when key.made_by is null then false
            -- Every key is made by an earlier one, so the chain has an end.
            else exists (with recursive makers as (
                             select id, made_by, revoked_at from api_keys where id = key.made_by
                             union all
                             select maker.id, maker.made_by, maker.revoked_at
                               from makers join api_keys maker on maker.id = makers.made_by)
                         select from makers where revoked_at is not null)
       end as maker_revoked
  from api_keys key join accounts account on account.id = key.account_id
 where key.id = %(id)s;

-- note_used --
-- When keys were used, at most once a minute each. A row that somebody holds is left out until the next time.
update api_keys key
   set last_used_at = used.at
  from (select held.id, noted.at
          from unnest(%(ids)s::text[], %(times)s::timestamptz[]) as noted (id, at)
          join api_keys held on held.id = noted.id
         where held.last_used_at is null or held.last_used_at <= noted.at - interval '1 minute'
         -- Always by id: several processes note at once, and would deadlock in any other order.
         order by held.id
           for no key update of held skip locked) used
 where key.id = used.id
returning key.id;

-- not_working --
-- Those of some keys that do not work any more, and why.
select asked.id,
       case when account.status <> 'active' then 'account_banned'
            when key.revoked_at is null and key.expires_at <= now() then 'key_expired'
            else 'key_revoked' end as reason
  from unnest(%(ids)s::text[]) as asked (id)
  left join api_keys key on key.id = asked.id
  left join accounts account on account.id = key.account_id
 where key.id is null or key.revoked_at is not null or key.expires_at <= now() or account.status <> 'active';

-- keys --
select * from api_keys order by created_at;

-- revoke_key --
-- A key with every key that it made, and those that these made; itself first.
with recursive revoked as (
    select id, 0 as generation from api_keys where id = %(id)s
    union all
    select child.id, revoked.generation + 1 from revoked join api_keys child on child.made_by = revoked.id
), gone as (
    -- What was revoked before keeps its own time.
    update api_keys set revoked_at = coalesce(revoked_at, now()) where id in (select id from revoked) returning *
)
select gone.* from gone join revoked using (id) order by revoked.generation, gone.created_at;

-- keys_of --
-- A page of an account's keys, newest first.
select * from api_keys
 where account_id = %(account_id)s
   and (%(before)s::timestamptz is null or (created_at, id) < (%(before)s::timestamptz, %(before_id)s))
 order by created_at desc, id desc
 limit %(limit)s;

-- user --
select * from accounts where number = %(number)s;

-- ban --
-- Every model of the account is settled again: a trigger sees to it.
update accounts set status = 'banned', ban_reason = %(reason)s where id = %(id)s returning *;

-- lift_ban --
update accounts set status = 'active', ban_reason = null where id = %(id)s returning *;

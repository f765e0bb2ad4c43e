-- put --
-- One address for each reader and channel. Another address is another endpoint, with an id of its own.
insert into endpoints (reader, channel, state, address, shown, secret)
values (%(reader)s, %(channel)s, %(state)s, %(address)s, %(shown)s, %(secret)s)
on conflict (reader, channel) do update
   -- A new id, so that a link that confirms the old address, or a sending that failed at it, does not concern this one.
   set id = gen_random_uuid(), state = excluded.state, reason = null, address = excluded.address,
       shown = excluded.shown, secret = excluded.secret, old_secret = null, old_until = null, created_at = now()
returning *;

-- of_reader --
select * from endpoints where reader = %(reader)s and channel = any(%(channels)s) order by channel;

-- all --
-- Held until the end of the transaction, so that none changes while all are sealed again.
select * from endpoints order by id for update;

-- one --
select * from endpoints where reader = %(reader)s and channel = %(channel)s;

-- drop --
delete from endpoints where reader = %(reader)s and channel = %(channel)s returning *;

-- confirm --
-- Also again: whoever follows the link twice has confirmed it once.
update endpoints set state = 'active' where id = %(id)s and state in ('unconfirmed', 'active') returning *;

-- suspend --
-- Only the very address that failed: one that was registered meanwhile stays.
update endpoints set state = 'suspended', reason = %(reason)s where id = %(id)s and state <> 'suspended' returning id;

-- rotate --
-- The old secret signs beside the new one for a while.
update endpoints
   set old_secret = secret, old_until = now() + make_interval(secs => %(overlap)s), secret = %(secret)s
 where reader = %(reader)s and channel = %(channel)s
returning *;

-- reseal --
-- The same address and secrets under another key, unless they were changed meanwhile.
update endpoints set address = %(address)s, secret = %(secret)s, old_secret = %(old_secret)s
 where id = %(id)s and address = %(was_address)s and secret is not distinct from %(was_secret)s
returning *;

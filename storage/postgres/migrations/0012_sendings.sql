-- What leaves the platform, and what is told to followers.

-- A delivery that was postponed folds into one sending with what is due at the same time.
alter table deliveries add column folds boolean not null default false;

-- A sending that confirms or tests an address names it: another address is another endpoint.
alter table sendings add column endpoint_id uuid;
alter table sendings add check ((purpose = 'tell') = (endpoint_id is null));
create index sendings_of_owner on sendings (reader, created_at) where purpose <> 'tell';

alter table notifications
    drop constraint notifications_audience_check,
    add constraint notifications_audience_check check (audience in ('accounts', 'followers', 'everyone'));

-- The numbers of a notification's readers above `low` up to `high`. `accounts` has them by name, `followers` are those
-- of the accounts named. Banned accounts are told nothing.
create function readers_between(audience text, readers bigint[], low bigint, high bigint) returns setof bigint
language sql stable as $$
    select account.number from accounts account
     where audience = 'everyone' and account.status = 'active' and account.number > low and account.number <= high
    union all
    select account.number from accounts account
     where audience = 'accounts' and account.status = 'active' and account.number > low and account.number <= high
       and account.number = any(readers)
    union all
    select follower.number
      from accounts followed
      join follows follow on follow.followed_id = followed.id
      join accounts follower on follower.id = follow.follower_id
     where audience = 'followers' and follower.status = 'active' and follower.number > low and follower.number <= high
       and followed.number = any(readers)
$$;

-- What waits either has its time or is in a sending: nothing waits for ever.
alter table deliveries add check (state <> 'waiting' or due_at is not null or sending_id is not null);

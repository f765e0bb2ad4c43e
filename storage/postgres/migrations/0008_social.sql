-- Social facts: who follows whom, reactions, comments and whom they mention.

create table follows (
    follower_id uuid not null references accounts (id),
    followed_id uuid not null references accounts (id),
    created_at  timestamptz not null default now(),
    primary key (follower_id, followed_id),
    check (follower_id <> followed_id)
);
-- The followers of one account by keyset, and whom one follows, newest first.
create index follows_by_followed on follows (followed_id, follower_id);
create index follows_in_order on follows (follower_id, created_at desc, followed_id);

create table reactions (
    entity     text not null check (entity in ('model', 'version', 'image', 'comment')),
    entity_id  bigint not null,
    account_id uuid not null references accounts (id),
    reaction   text not null,
    created_at timestamptz not null default now(),
    primary key (entity, entity_id, account_id, reaction),
    check (case when entity in ('model', 'version') then reaction in ('thumbs_up', 'thumbs_down')
                else reaction in ('like', 'dislike', 'laugh', 'cry', 'heart') end)
);
-- A thumb is up or down, never both.
create unique index reactions_one_thumb on reactions (entity, entity_id, account_id)
 where reaction in ('thumbs_up', 'thumbs_down');

-- A deleted comment stays as a place that replies hang on; its words go.
create table comments (
    id         bigint generated always as identity primary key,
    account_id uuid not null references accounts (id),
    entity     text not null check (entity in ('model', 'version', 'image')),
    entity_id  bigint not null,
    parent_id  bigint references comments (id),
    content    text check (length(content) between 1 and 10000),
    created_at timestamptz not null default now(),
    edited_at  timestamptz,
    deleted_at timestamptz,
    check ((content is null) = (deleted_at is not null))
);
create index comments_by_entity on comments (entity, entity_id, id);
create index comments_by_account on comments (account_id, id);

create table comment_mentions (
    comment_id bigint not null references comments (id),
    account_id uuid not null references accounts (id),
    primary key (comment_id, account_id)
);

-- A key that allowed everything there was still does.
update api_keys set scopes = scopes || array['social:read', 'social:write']
 where scopes @> array['data-sets:read', 'data-sets:write', 'jobs:read', 'jobs:write', 'models:read', 'models:write',
                       'keys:read', 'keys:write'];

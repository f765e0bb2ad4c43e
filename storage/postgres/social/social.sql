-- hold --
-- Held while an account reacts, so that two of its requests at once end as one after the other.
select id from accounts where id = %(account_id)s for no key update;

-- follow --
insert into follows (follower_id, followed_id) values (%(follower_id)s, %(followed_id)s)
on conflict do nothing
returning followed_id;

-- unfollow --
delete from follows where follower_id = %(follower_id)s and followed_id = %(followed_id)s returning followed_id;

-- followed --
-- Whom an account follows, newest first, after a place.
select account.id as account_id, account.number, account.name, follow.created_at
  from follows follow join accounts account on account.id = follow.followed_id
 where follow.follower_id = %(follower_id)s and account.status = 'active'
   and (%(before)s::timestamptz is null
        or (follow.created_at, account.number) < (%(before)s::timestamptz, %(number)s::bigint))
 order by follow.created_at desc, account.number desc
 limit %(limit)s;

-- react --
insert into reactions (entity, entity_id, account_id, reaction)
values (%(entity)s, %(entity_id)s, %(account_id)s, %(reaction)s)
on conflict do nothing
returning reaction;

-- take_back --
delete from reactions
 where entity = %(entity)s and entity_id = %(entity_id)s and account_id = %(account_id)s
   and reaction = any(%(reactions)s)
returning reaction;

-- reactions_of --
select reaction from reactions
 where entity = %(entity)s and entity_id = %(entity_id)s and account_id = %(account_id)s
 order by reaction;

-- add_comment --
insert into comments (account_id, entity, entity_id, parent_id, content)
values (%(account_id)s, %(entity)s, %(entity_id)s, %(parent_id)s, %(content)s)
returning id;

-- comment --
-- A comment as it is shown: without its text once it is deleted or its author is banned.
select comment.id, comment.account_id, account.number, account.name, comment.entity, comment.entity_id,
       comment.parent_id, case when account.status = 'active' then comment.content end as content,
       comment.created_at, comment.edited_at, comment.deleted_at
  from comments comment join accounts account on account.id = comment.account_id
 where comment.id = %(id)s;

-- comments --
-- The comments of an entity, newest first, after a place.
select comment.id, comment.account_id, account.number, account.name, comment.entity, comment.entity_id,
       comment.parent_id, case when account.status = 'active' then comment.content end as content,
       comment.created_at, comment.edited_at, comment.deleted_at
  from comments comment join accounts account on account.id = comment.account_id
 where comment.entity = %(entity)s and comment.entity_id = %(entity_id)s
   and (%(before)s::bigint is null or comment.id < %(before)s)
 order by comment.id desc
 limit %(limit)s;

-- edit_comment --
update comments set content = %(content)s, edited_at = now()
 where id = %(id)s and deleted_at is null and content <> %(content)s
returning id;

-- delete_comment --
update comments set content = null, deleted_at = now() where id = %(id)s and deleted_at is null returning id;

-- mention --
-- The accounts of these names, and which of them the comment did not mention before.
insert into comment_mentions (comment_id, account_id)
select %(comment_id)s, id from accounts
 where lower(name) = any(%(names)s) and status = 'active' and id <> %(author_id)s
 order by id
on conflict do nothing
returning account_id;

-- forget_mentions --
delete from comment_mentions mention using accounts account
 where mention.comment_id = %(comment_id)s and account.id = mention.account_id and lower(account.name) <> all(%(names)s)
returning mention.account_id;

-- mentions --
select mention.comment_id, account.name
  from comment_mentions mention join accounts account on account.id = mention.account_id
 where mention.comment_id = any(%(ids)s)
 order by mention.comment_id, account.name;

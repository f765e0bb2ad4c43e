-- insert --
insert into search_builds (kind, engine, encoder, dimensions, vector_segments)
values (%(kind)s, %(engine)s, %(encoder)s, %(dimensions)s, %(vector_segments)s)
returning *;

-- live --
-- The build that searches of a kind read.
select * from search_builds where kind = %(kind)s and engine = %(engine)s and state = 'live';

-- open --
-- Its index is there: writes go to it from now on.
update search_builds set state = 'building' where id = %(id)s and state = 'preparing' returning *;

-- written --
-- The builds that every write goes to: the one that is read, one that is being filled, and those that open readers
-- finish. One that is being prepared has no index yet.
select * from search_builds
 where kind = %(kind)s and engine = %(engine)s and state <> 'preparing'
 order by id;

-- of_engine --
select * from search_builds where engine = %(engine)s order by id;

-- retired --
select * from search_builds
 where engine = %(engine)s and state = 'retired' and retired_at < now() - make_interval(secs => %(seconds)s)
 order by id;

-- retire --
-- The builds that are read no longer once `id` is.
update search_builds set state = 'retired', retired_at = now()
 where kind = (select kind from search_builds where id = %(id)s)
   and engine = (select engine from search_builds where id = %(id)s)
   and id <> %(id)s and state = 'live'
returning id;

-- retire_live --
update search_builds set state = 'retired', retired_at = now()
 where kind = %(kind)s and engine = %(engine)s and state = 'live'
returning id;

-- go_live --
update search_builds set state = 'live', retired_at = null where id = %(id)s returning *;

-- forget --
delete from search_builds where id = %(id)s and state <> 'live' returning id;

-- keep --
insert into search_windows (asked, ids, total, facets, degraded)
values (%(asked)s, %(ids)s::bigint[], %(total)s, %(facets)s, %(degraded)s::text[])
returning id;

-- forget_old --
-- A few at a time, so that no search waits for it; nobody waits for a row that another search is forgetting.
delete from search_windows
 where id in (select id from search_windows
               where created_at < now() - make_interval(secs => %(seconds)s)
               order by created_at
               limit 20
                 for update skip locked)
returning id;

-- get --
select asked, ids, total, facets, degraded from search_windows
 where id = %(id)s and created_at >= now() - make_interval(secs => %(seconds)s);

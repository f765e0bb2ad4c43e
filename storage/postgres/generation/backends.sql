-- looked --
-- What a run that draws found a backend to be.
insert into generation_backends (name, version, capabilities, responded_at)
values (%(name)s, %(version)s, %(capabilities)s, now())
on conflict (name) do update
   set version = excluded.version, capabilities = excluded.capabilities, looked_at = now(), responded_at = now()
returning *;

-- failed --
insert into generation_backends (name, failures, failed_at, reason)
values (%(name)s, 1, now(), %(reason)s)
on conflict (name) do update
   set failures = generation_backends.failures + 1, failed_at = now(), reason = excluded.reason, looked_at = now()
returning *;

-- succeeded --
update generation_backends set failures = 0, looked_at = now(), responded_at = now()
 where name = %(name)s
returning *;

-- drawing --
insert into generation_backends (name, drawing) values (%(name)s, %(drawing)s)
on conflict (name) do update set drawing = excluded.drawing, looked_at = now()
returning *;

-- list --
select * from generation_backends order by name;

-- forget_others --
-- Backends that the settings name no more.
delete from generation_backends where not name = any(%(names)s::text[]) returning name;

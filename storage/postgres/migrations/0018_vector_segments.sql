-- The embedded engine keeps the vectors of a large build in several graphs, by id: their making takes time that grows as
-- their rows do, and the memory of one of them.
alter table search_builds add column vector_segments int not null default 1 check (vector_segments > 0);

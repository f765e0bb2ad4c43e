-- What retention has deleted, for those who would miss it: events that had their effect before `up_to` may be gone.
create table retention_marks (
    rule    text primary key,
    up_to   timestamptz not null,
    deleted bigint not null default 0 check (deleted >= 0)
);

-- A set of class images that no job asks for any more can be drawn again.
alter table sampled_sets add column used_at timestamptz not null default now();

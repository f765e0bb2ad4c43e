-- Bytes that no row names: since when, and when a sweep last saw that it is so. They are deleted once they have waited
-- long enough; a put that finds such bytes makes them wait anew, and whoever deletes them holds their row meanwhile.
create table orphans (
    sha256  text primary key check (sha256 ~ '^[0-9a-f]{64}$'),
    since   timestamptz not null default now(),
    seen_at timestamptz not null default now()
);

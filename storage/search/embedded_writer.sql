-- {build} stands for a build's number, {vector} for its vectors' type.

-- create --
-- The revision of a removed document stays, so that an older one cannot come back.
create table if not exists search_build_{build} (
    id           bigint primary key,
    revision     bigint not null,
    removed      boolean not null,
    name         text not null,
    words        tsvector not null,
    labels       text[] not null,
    levels       int not null,
    published_at bigint not null,
    ranks        bigint[] not null,
    vector       {vector}
);

-- create_words --
-- Every word of a build's documents; words of removed ones stay and do no harm. `deletes` are hashes of the word with
-- one or two letters left out: two words within that many edits share one of them.
create table if not exists search_build_{build}_words (
    word    text collate "C" primary key,
    stem    text collate "C" not null,
    deletes int[] not null
);

-- index_words --
create index concurrently if not exists search_build_{build}_by_words
    -- Without the list of pending entries, which each search would have to read through.
    on search_build_{build} using gin (words) with (fastupdate = off);

-- index_labels --
create index concurrently if not exists search_build_{build}_by_labels
    on search_build_{build} using gin (labels) with (fastupdate = off);

-- index_there --
-- Counts without words are read from it alone.
create index concurrently if not exists search_build_{build}_there
    on search_build_{build} (levels, published_at) where not removed;

-- index_vectors --
-- Of one segment: the time of a graph grows faster than its rows.
create index concurrently if not exists search_build_{build}_by_vector_{number}
    on search_build_{build} using hnsw (vector halfvec_ip_ops) with (m = 16, ef_construction = 100) {of_segment};

-- index_stems --
create index concurrently if not exists search_build_{build}_words_by_stem on search_build_{build}_words (stem);

-- index_deletes --
create index concurrently if not exists search_build_{build}_words_by_deletes
    on search_build_{build}_words using gin (deletes) with (fastupdate = off);

-- invalid --
-- Indexes of a build whose making was cut short.
select indexrelid::regclass::text as name from pg_index
 where not indisvalid and indrelid in (to_regclass('search_build_{build}'), to_regclass('search_build_{build}_words'));

-- size --
select count(*) as documents from search_build_{build};

-- analyze --
-- With the vacuum, an index alone is enough.
vacuum (analyze) search_build_{build}, search_build_{build}_words;

-- drop --
drop table if exists search_build_{build}, search_build_{build}_words;

-- existing --
select substring(tablename from '^search_build_(\d+)$')::bigint as id from pg_tables
 where schemaname = current_schema() and tablename ~ '^search_build_\d+$'
 order by id;

-- unknown_words --
select word from unnest(%(words)s::text[]) word
 where not exists (select from search_build_{build}_words known where known.word = word.word);

-- add_words --
-- In order and in a transaction of their own, so that two writers never wait for each other in a circle, nor for long.
insert into search_build_{build}_words (word, stem, deletes)
select word, stem, deletes from jsonb_to_recordset(%(words)s) as new (word text, stem text, deletes int[])
 order by word
on conflict (word) do nothing;

-- write --
-- A document at the revision it has, unless a newer one is there; returns the ids that were written.
insert into search_build_{build} as stored
       (id, revision, removed, name, words, labels, levels, published_at, ranks, vector)
select id, revision, removed, name, words::tsvector, labels, levels, published_at, ranks, vector::{vector}
  from jsonb_to_recordset(%(documents)s) as new (id bigint, revision bigint, removed boolean, name text, words text,
                                                 labels text[], levels int, published_at bigint, ranks bigint[],
                                                 vector text)
 order by id
on conflict (id) do update
   set revision = excluded.revision,
       removed = excluded.removed,
       name = excluded.name,
       words = excluded.words,
       labels = excluded.labels,
       levels = excluded.levels,
       published_at = excluded.published_at,
       ranks = excluded.ranks,
       vector = excluded.vector
 where stored.revision <= excluded.revision
returning id;

-- written --
-- Those of some ids that a build has, also as removed ones.
select id from search_build_{build} where id = any(%(ids)s);

-- copy --
copy search_build_{build} (id, revision, removed, name, words, labels, levels, published_at, ranks, vector)
from stdin (format binary);

-- revisions --
select id, revision from search_build_{build} where not removed and id > %(after)s order by id limit %(limit)s;

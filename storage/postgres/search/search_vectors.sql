-- known --
select text_hash, vector from search_vectors where encoder = %(encoder)s and text_hash = any(%(hashes)s);

-- add --
insert into search_vectors (encoder, text_hash, vector)
select %(encoder)s, text_hash, vector from unnest(%(hashes)s::bytea[], %(vectors)s::bytea[]) as new (text_hash, vector)
 -- In one order: two drains that add the same texts would deadlock.
 order by text_hash
on conflict (encoder, text_hash) do nothing
returning text_hash;

-- wait_for_the_blob_store --
-- First in a deletion's transaction: a slow blob store may take longer than a transaction may idle, and where Postgres
-- ended it meanwhile, the row would be free and its bytes could be named while their deletion is still under way.
select set_config('idle_in_transaction_session_timeout', '0', true);

-- renew --
-- These bytes are wanted again: their wait starts over. Waits while they are being deleted; then there is no row any more.
update orphans set since = now(), seen_at = now() where sha256 = %(sha256)s returning sha256;

-- note --
-- A sweep saw that no row names these. Between two sweeps at most `longest` counts: a clock that is set forward, or a
-- database that comes out of a backup, deletes nothing early. Where the clock was set back the wait starts over.
insert into orphans (sha256) select unnest(%(hashes)s::text[])
on conflict (sha256) do update
   set since = case when orphans.seen_at > now() then now()
                    else orphans.since + greatest(now() - orphans.seen_at - make_interval(secs => %(longest)s),
                                                  interval '0') end,
       seen_at = now()
 -- A sweep that sees the same bytes again at once writes nothing.
 where orphans.seen_at > now() or orphans.seen_at < now() - make_interval(secs => %(longest)s / 2);

-- forget --
-- These are named again, or gone.
delete from orphans where sha256 = any(%(hashes)s::text[]) returning sha256;

-- forget_gone --
-- Of the hashes between two, those that a sweep did not find in the blob store. What lies there is safe without a row:
-- its wait begins when it is seen.
delete from orphans where sha256 > %(low)s and sha256 < %(high)s and not sha256 = any(%(hashes)s::text[]);

-- due --
-- What has waited long enough, behind `after`, as far as a sweep saw it lately.
select sha256 from orphans
 where sha256 > %(after)s
   and since <= now() - make_interval(secs => %(wait)s)
   and seen_at between now() - make_interval(secs => %(longest)s) and now()
 order by sha256
 limit %(limit)s;

-- hold_due --
-- One of them, held until the transaction ends: who wants it again waits. No row when it was wanted meanwhile.
select sha256 from orphans
 where sha256 = %(sha256)s
   and since <= now() - make_interval(secs => %(wait)s)
   and seen_at between now() - make_interval(secs => %(longest)s) and now()
   for update;

-- hold --
-- Bytes that nobody else can have put, held until the transaction ends, whether they are known as orphans or not.
insert into orphans (sha256) values (%(sha256)s)
-- Changes nothing, and locks the row, which "do nothing" would not.
on conflict (sha256) do update set seen_at = orphans.seen_at
returning sha256;

-- sweep_locked_out --
-- Keep the sweep and the backup from beginning until the transaction ends; false when one is at work.
select pg_try_advisory_xact_lock_shared(%(lock)s) as free;

-- since --
-- What transactions changed that have committed since a snapshot was taken, and the snapshot of this statement. Exact,
-- because it asks for visibility: a cursor over ids or times would skip what commits out of order. Events must stay
-- for as long as somebody keeps a snapshot (storage/postgres/events/watch.py: minutes).
select pg_current_snapshot()::text as snapshot,
       coalesce((select jsonb_agg(event.payload)
                   from (select payload from outbox
                          where kind = 'models.changed'
                            -- Visibility alone has no index, `written` has one: what lies below the snapshot's xmin
                            -- was visible to it, or never will be.
                            and written >= pg_snapshot_xmin(%(since)s::pg_snapshot)
                            and not pg_visible_in_snapshot(written, %(since)s::pg_snapshot)
                          limit %(maximum)s) event), '[]') as events;

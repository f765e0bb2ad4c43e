-- chosen --
-- What a reader has chosen, one row for each type and channel that it spoke of.
select type, channel, frequency from notification_preferences
 where reader = %(reader)s and type = any(%(types)s) and channel = any(%(channels)s)
 order by type, channel;

-- forget --
delete from notification_preferences
 where reader = %(reader)s and type = any(%(types)s) and channel = any(%(channels)s)
returning reader;

-- say --
insert into notification_preferences (type, channel, reader, frequency)
select type, channel, %(reader)s, frequency
  from unnest(%(types)s::text[], %(channels)s::text[], %(frequencies)s::text[]) as wanted (type, channel, frequency)
 order by type, channel
on conflict (type, channel, reader) do update set frequency = excluded.frequency
returning reader;

-- clocks --
select zone, quiet_from, quiet_to from notification_readers where reader = %(reader)s;

-- set_clocks --
insert into notification_readers (reader, zone, quiet_from, quiet_to)
values (%(reader)s, %(zone)s, %(quiet_from)s, %(quiet_to)s)
on conflict (reader) do update
   set zone = excluded.zone, quiet_from = excluded.quiet_from, quiet_to = excluded.quiet_to
returning reader;

-- page --
-- A reader's notifications, the newest first. What one is about may be hidden since: then it is left out, everywhere.
select delivery.id, notification.type, notification.title, notification.text, notification.path, notification.details,
       delivery.created_at, delivery.read_at
  from deliveries delivery
  join notifications notification on notification.id = delivery.notification_id
  join accounts reader on reader.number = delivery.reader
 where delivery.reader = %(reader)s and delivery.channel = 'in_app' and {notified}
   and (%(before)s::bigint is null or delivery.id < %(before)s::bigint)
 order by delivery.id desc
 limit %(limit)s;

-- unread_page --
-- Only those that are not read yet.
select delivery.id, notification.type, notification.title, notification.text, notification.path, notification.details,
       delivery.created_at, delivery.read_at
  from deliveries delivery
  join notifications notification on notification.id = delivery.notification_id
  join accounts reader on reader.number = delivery.reader
 where delivery.reader = %(reader)s and delivery.channel = 'in_app' and delivery.read_at is null and {notified}
   and (%(before)s::bigint is null or delivery.id < %(before)s::bigint)
 order by delivery.id desc
 limit %(limit)s;

-- after --
-- What came after one, the oldest first. Ids come into sight in their order.
select delivery.id, notification.type, notification.title, notification.text, notification.path, notification.details,
       delivery.created_at, delivery.read_at
  from deliveries delivery
  join notifications notification on notification.id = delivery.notification_id
  join accounts reader on reader.number = delivery.reader
 where delivery.reader = %(reader)s and delivery.channel = 'in_app' and delivery.id > %(after)s and {notified}
 order by delivery.id
 limit %(limit)s;

-- newest --
select coalesce(max(id), 0) as id from deliveries where reader = %(reader)s and channel = 'in_app';

-- unread --
-- Counted, never kept: a count that is written beside its rows goes wrong.
select notification.type, count(*) as unread
  from deliveries delivery
  join notifications notification on notification.id = delivery.notification_id
  join accounts reader on reader.number = delivery.reader
 where delivery.reader = %(reader)s and delivery.channel = 'in_app' and delivery.read_at is null and {notified}
 group by notification.type
 order by notification.type;

-- read --
-- The first reading counts.
update deliveries set read_at = coalesce(read_at, now())
 where id = %(id)s and reader = %(reader)s and channel = 'in_app'
returning id, read_at;

-- read_up_to --
update deliveries set read_at = now()
 where reader = %(reader)s and channel = 'in_app' and read_at is null and id <= %(id)s
returning id;

-- What comes in bursts waits a moment and is told in one go; what is old is forgotten, but for its key.

-- What a reader is about to be told on a channel: the next of its family joins it.
create index deliveries_settling on deliveries (reader, channel) where folds and due_at is not null;

-- Of a notification that is forgotten the key alone stays, so that it is never told again.
alter table notifications add column forgotten boolean not null default false;
create index notifications_kept on notifications (id) where done_at is not null and not forgotten;
create index deliveries_by_notification on deliveries (notification_id);
create index sendings_ended on sendings (ended_at) where ended_at is not null;

-- The rows of before name channels that there are: the constraints of 0038 hold for all.
-- no transaction: rows are read while others are written.
-- statement_timeout 30min: sendings are gone through once.
alter table notification_preferences validate constraint notification_preferences_channel;
alter table endpoints validate constraint endpoints_channel;
alter table channel_pauses validate constraint channel_pauses_channel;
alter table sendings validate constraint sendings_channel;

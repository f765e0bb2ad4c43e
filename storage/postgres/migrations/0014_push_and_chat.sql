-- Two more channels that leave the platform: web push and chat services.

alter table notification_preferences
    drop constraint notification_preferences_channel_check,
    add constraint notification_preferences_channel_check
        check (channel in ('in_app', 'email', 'webhook', 'push', 'chat'));
alter table endpoints
    drop constraint endpoints_channel_check,
    add constraint endpoints_channel_check check (channel in ('email', 'webhook', 'push', 'chat'));
alter table channel_pauses
    drop constraint channel_pauses_channel_check,
    add constraint channel_pauses_channel_check check (channel in ('email', 'webhook', 'push', 'chat'));
alter table sendings
    drop constraint sendings_channel_check,
    add constraint sendings_channel_check check (channel in ('email', 'webhook', 'push', 'chat'));
alter table deliveries
    drop constraint deliveries_channel_check,
    add constraint deliveries_channel_check check (channel in ('in_app', 'email', 'webhook', 'push', 'chat'));

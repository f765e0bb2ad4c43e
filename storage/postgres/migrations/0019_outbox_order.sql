-- Events are claimed in the order of their ids. An index in that order finds the next one whatever waits behind it; one
-- by the time of the next try sorted all that waits for every claim.
create index outbox_waiting on outbox (id) where done_at is null;
drop index outbox_due;

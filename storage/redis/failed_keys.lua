-- Counts keys that nobody knows yet for the address that sends them, before they are looked up.
-- KEYS: the address's count of a minute, the mark of a key that worked. ARGV: how many a minute, the minute in milliseconds.
-- Returns 0 when the key may be looked up and was counted, else the milliseconds until the next may. Over the limit a key
-- that worked lately still may, uncounted (-1): it does not suffer from its neighbours.
local count = tonumber(redis.call('GET', KEYS[1])) or 0
if count >= tonumber(ARGV[1]) then
    if redis.call('EXISTS', KEYS[2]) == 1 then
        return -1
    end
    return math.max(redis.call('PTTL', KEYS[1]), 1)
end
-- The first one begins the minute; renewing it with each would let a slow trickle keep an address counted for ever.
if redis.call('INCR', KEYS[1]) == 1 then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0

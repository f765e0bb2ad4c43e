-- Counts requests by the generic cell rate algorithm, for any number of keys in one call.
-- KEYS: one for each request. ARGV: the window in microseconds, then how many requests a window allows, for each key.
-- A key holds the moment (microseconds) at which its whole allowance is back, and expires then.
-- Returns four numbers for each request: 1 or 0 (admitted), how many are left, microseconds until the whole allowance is
-- back, microseconds until the next request is admitted. The server's clock counts, so all processes agree.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window = tonumber(ARGV[1])
local verdicts = {}
for place, key in ipairs(KEYS) do
    local limit = tonumber(ARGV[place + 1])
    local interval = math.floor(window / limit) -- whole, so that sums are exact
    local whole = math.max(tonumber(redis.call('GET', key)) or now, now)
    local wait = whole + interval - now - limit * interval
    local admitted = wait <= 0
    if admitted then
        whole = whole + interval
        -- Formatted: Lua writes numbers with 14 digits, and microseconds since 1970 have 16.
        redis.call('SET', key, string.format('%.0f', whole), 'PX', math.ceil((whole - now) / 1000))
    end
    local left = math.floor((limit * interval - (whole - now)) / interval)
    verdicts[#verdicts + 1] = admitted and 1 or 0
    verdicts[#verdicts + 1] = left
    verdicts[#verdicts + 1] = whole - now
    verdicts[#verdicts + 1] = math.max(0, whole + interval - now - limit * interval)
end
return verdicts

-- Take, keep or try to take the lease of a writer: only its holder may acknowledge.
--
-- KEYS[1]  hash: writer -> "<token> <end in ms, server time> <owner>"
-- KEYS[2]  hash of this writer: producer -> highest sequence written; "@confirmed"
-- ARGV[1]  the writer, ARGV[2]  who wants it, ARGV[3]  how long in ms
-- ARGV[4]  token of the lease that the caller holds, "0" when it holds none
-- ARGV[5]  random number below 1000, so that no two claims have one token, whatever the clock does
--
-- Returns {token, owner, "@confirmed"}: token 0 when somebody else holds it. An owner that comes again (a restarted
-- writer of the same host, which holds the lock of the file) need not wait for the end of its predecessor's lease,
-- but gets a new token, so that the predecessor's is worth nothing. Tokens grow, also after a loss of memory.
redis.call('HDEL', KEYS[1], '') -- see join.lua: a server without memory must not keep writers from making room
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local token, ends, owner = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) (%d+) (.*)$')
token, ends = tonumber(token or '0'), tonumber(ends or '0')
local mine, lasts = tonumber(ARGV[4]), tonumber(ARGV[3])
local function set(upto, who)
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f %s', token, upto, who))
end
if owner and token ~= mine then
  if mine > 0 and owner == ARGV[2] then return {0, owner, ''} end
  if owner ~= ARGV[2] and ends > now_ms then
    -- No lease lasts that long: the clock has been set back. It is to end as if it had been kept just now.
    if ends > now_ms + 2 * lasts then set(now_ms + lasts, owner) end
    return {0, owner, ''}
  end
end
if token ~= mine or mine == 0 then token = math.max(token + 1, now_ms * 1000 + tonumber(ARGV[5])) end
set(now_ms + lasts, ARGV[2])
return {string.format('%.0f', token), ARGV[2], redis.call('HGET', KEYS[2], '@confirmed') or ''}

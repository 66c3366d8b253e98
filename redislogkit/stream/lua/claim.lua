-- Take, keep or try to take the lease of a writer: only its holder may acknowledge.
--
-- KEYS[1]  hash: writer -> "<token> <end in ms, server time> <owner>"
-- ARGV[1]  the writer, ARGV[2]  who wants it, ARGV[3]  how long in ms
-- ARGV[4]  token of the lease that the caller holds, "0" when it holds none
--
-- Returns {token, owner}: token 0 when somebody else holds it. An owner that comes again (a restarted writer
-- of the same host, which holds the lock of the file) need not wait for the end of its predecessor's lease, but
-- gets a new token, so that the predecessor's is worth nothing. Tokens grow, also after a loss of memory.
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local token, ends, owner = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) (%d+) (.*)$')
token, ends = tonumber(token or '0'), tonumber(ends or '0')
local mine = tonumber(ARGV[4])
if owner and token ~= mine then
  if mine > 0 and owner == ARGV[2] then return {0, owner} end
  if owner ~= ARGV[2] and ends > now_ms then return {0, owner} end
end
if token ~= mine or mine == 0 then token = math.max(token + 1, now_ms) end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f %s', token, now_ms + tonumber(ARGV[3]), ARGV[2]))
return {token, ARGV[2]}

-- Make sure that the stream and the memory of its producers exist; tell which incarnation they are.
--
-- KEYS[1]  the stream
-- KEYS[2]  hash: producer -> highest sequence in the stream; "@epoch", "@added", "@trimmed"
-- KEYS[3]  hash: writer -> "<last entry written> <items up to there>"
-- ARGV[1]  epoch to set where there is none (random)
-- ARGV[2…] writers to register, so that nothing is trimmed before they have come
--
-- Returns the epoch. It changes whenever the server has lost stream or hash.
local epoch = redis.call('HGET', KEYS[2], '@epoch')
local added = tonumber(redis.call('HGET', KEYS[2], '@added') or '0')
if added > 0 and redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[2]) -- the newest entry is never trimmed: this is another stream
  epoch = false
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[2])
  epoch = false
  redis.call('XGROUP', 'CREATE', KEYS[1], 'redislogkit', '0', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'redislogkit')
end
for i = 2, #ARGV do redis.call('HSETNX', KEYS[3], ARGV[i], '0-0 0') end
if not epoch then
  redis.call('HSET', KEYS[2], '@epoch', ARGV[1])
  epoch = ARGV[1]
end
return epoch

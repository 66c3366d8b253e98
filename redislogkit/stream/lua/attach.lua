-- Make sure that the stream and the memory of its producers exist; tell which incarnation they are.
--
-- KEYS[1]  the stream
-- KEYS[2]  hash: producer -> highest sequence in the stream; "@epoch", "@added", "@trimmed"
-- ARGV[1]  epoch to set where there is none (random)
--
-- Returns the epoch. It changes whenever the server has lost stream or hash.
local epoch = redis.call('HGET', KEYS[2], '@epoch')
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[2])
  epoch = false
  redis.call('XGROUP', 'CREATE', KEYS[1], 'redislogkit', '0', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'redislogkit')
end
if not epoch then
  redis.call('HSET', KEYS[2], '@epoch', ARGV[1])
  epoch = ARGV[1]
end
return epoch

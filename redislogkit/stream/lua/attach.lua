-- Make sure that the stream and the memory of its producers exist; tell which incarnation they are.
--
-- KEYS[1]  the stream
-- KEYS[2]  hash: producer -> highest sequence in the stream; "@epoch", "@added", "@trimmed", "@last", "@writers"
-- KEYS[3]  hash: writer -> "<last entry written> <items up to there>"
-- ARGV[1]  epoch to set where there is none (random)
-- ARGV[2]  "1": set it in any case, as the server has gone back to an earlier state
-- ARGV[3…] writers to register, so that nothing is trimmed before they have come
--
-- Returns the epoch. It changes whenever the server has lost stream or hash. Where nothing is missing nothing is
-- written, so that a server without memory (OOM) can be asked for positions.
local known = redis.call('HMGET', KEYS[2], '@epoch', '@added', '@last', '@writers')
local epoch, writers = known[1], known[4] or ''
local here = redis.call('EXISTS', KEYS[1]) == 1
local lost = not here
if here and known[3] then
  lost = #redis.call('XRANGE', KEYS[1], known[3], known[3]) == 0 -- the newest entry is never trimmed
elseif here then
  lost = tonumber(known[2] or '0') > 0 and redis.call('XLEN', KEYS[1]) == 0
end
if lost then
  redis.call('DEL', KEYS[2])
  epoch, writers = false, ''
end
if not here then
  redis.call('XGROUP', 'CREATE', KEYS[1], 'redislogkit', '0', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'redislogkit')
end
-- Who is registered stands in two places, so that losing one of them lets nothing be trimmed too early.
local names = {}
for name in string.gmatch(writers, '[^\n]+') do names[name] = true end
local function list(name)
  if names[name] then return end
  names[name] = true
  writers = writers .. name .. '\n'
  redis.call('HSET', KEYS[2], '@writers', writers)
end
for i = 3, #ARGV do list(ARGV[i]) end
if not epoch then
  for _, name in ipairs(redis.call('HKEYS', KEYS[3])) do list(name) end
end
for name in pairs(names) do
  if redis.call('HEXISTS', KEYS[3], name) == 0 then redis.call('HSET', KEYS[3], name, '0-0 0') end
end
if not epoch or ARGV[2] == '1' then
  redis.call('HSET', KEYS[2], '@epoch', ARGV[1])
  epoch = ARGV[1]
end
return epoch

-- A writer has durably written: acknowledge, publish its positions, trim behind the slowest writer.
--
-- KEYS[1]  the stream
-- KEYS[2]  hash: producer -> highest sequence in the stream; "@epoch", "@trimmed", "@writers"
-- KEYS[3]  hash: writer -> "<last entry written> <items up to there>"
-- KEYS[4]  hash of this writer: producer -> highest sequence written; "@confirmed"
-- KEYS[5]  hash: writer -> "<token> <end in ms> <owner>", the leases
-- ARGV[1]  the writer, which is also its group; ARGV[2]  fencing token of its lease
-- ARGV[3]  what the caller has set "@confirmed" to ("" = this is its first call); ARGV[4]  what to set it to
-- ARGV[5]  id of the last entry written ("" = only positions), ARGV[6]  items up to there
-- ARGV[7]  a JSON array of texts: producer and sequence for each
-- ARGV[…]  ids of the entries to acknowledge
--
-- Returns the number of entries acknowledged, or
--   -1  the lease is somebody else's: nothing was done
--   -2  KEYS[4] is gone, or an earlier state of it has come back: nothing was done, all positions are to be
--       published again
--
-- An error in the middle does no harm: all that this tells is true already, and is told again.
local function split(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)')
  return tonumber(ms or '0'), tonumber(seq or '0')
end
local lease = redis.call('HGET', KEYS[5], ARGV[1]) or ''
if string.match(lease, '^(%d+) ') ~= ARGV[2] then return -1 end
if ARGV[3] ~= '' and redis.call('HGET', KEYS[4], '@confirmed') ~= ARGV[3] then return -2 end
redis.call('HDEL', KEYS[3], '') -- see join.lua: a server without memory must not keep writers from making room
local positions = cjson.decode(ARGV[7])
for i = 1, #positions, 2 do
  local producer, sequence = positions[i], positions[i + 1]
  if sequence == '-1' then
    redis.call('HDEL', KEYS[4], producer)
  else
    redis.call('HSET', KEYS[4], producer, sequence)
  end
end
redis.call('HSET', KEYS[4], '@confirmed', ARGV[4])
if ARGV[5] == '' then return 0 end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[5] .. ' ' .. ARGV[6])
local acknowledged = 0
local at = 8
while at <= #ARGV do
  local upto = math.min(at + 999, #ARGV)
  acknowledged = acknowledged + redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, at, upto))
  at = upto + 1
end
local known = redis.call('HMGET', KEYS[2], '@epoch', '@writers')
if not known[1] then return acknowledged end -- who else reads is known again when the shipper has come
local writers = known[2] or ''
for name in string.gmatch(writers, '[^\n]+') do
  -- The hash was lost alone: this one has not told yet how far it is.
  redis.call('HSETNX', KEYS[3], name, '0-0 0')
end
-- A writer that belongs to one host ("console@web1") goes with it: when its lease has run out ten minutes ago, and
-- is not kept in the ten minutes after that was seen (the clock may have jumped), it holds back nothing any more.
-- Should it come again, it joins again.
local function is_gone(writer)
  if not string.find(writer, '@', 1, true) then return false end
  local token, ends, owner = string.match(redis.call('HGET', KEYS[5], writer) or '', '^(%d+) (%d+) (.*)$')
  local now_ms = tonumber(redis.call('TIME')[1]) * 1000
  if not ends then -- it was registered by its shipper, and has never come: its time begins now
    redis.call('HSET', KEYS[5], writer, string.format('0 %.0f nobody', now_ms))
    return false
  end
  if tonumber(ends) + 600000 >= now_ms then return false end
  if string.sub(owner, -5) == ' late' then return true end
  redis.call('HSET', KEYS[5], writer, string.format('%s %.0f %s late', token, now_ms, owner))
  return false
end
local oldest, oldest_ms, oldest_seq, oldest_total
local all = redis.call('HGETALL', KEYS[3])
for i = 2, #all, 2 do
  local writer = all[i - 1]
  if writer ~= ARGV[1] and is_gone(writer) then
    redis.call('HDEL', KEYS[3], writer)
    redis.call('HDEL', KEYS[5], writer)
    -- Its hash of positions, which is named like this writer's and so lies in the same slot.
    redis.call('DEL', string.sub(KEYS[4], 1, -#ARGV[1] - 1) .. writer)
    redis.pcall('XGROUP', 'DESTROY', KEYS[1], writer)
    local around = '\n' .. writers
    local from, upto = string.find(around, '\n' .. writer .. '\n', 1, true)
    if from then
      writers = string.sub(around, 2, from) .. string.sub(around, upto + 1)
      redis.call('HSET', KEYS[2], '@writers', writers)
    end
  else
    local id, total = string.match(all[i], '^(%S+) (%d+)$')
    local ms, seq = split(id or '0-0')
    if not oldest or ms < oldest_ms or (ms == oldest_ms and seq < oldest_seq) then
      oldest, oldest_ms, oldest_seq, oldest_total = id, ms, seq, total
    end
  end
end
if oldest and oldest ~= '0-0' then
  redis.call('XTRIM', KEYS[1], 'MINID', '~', oldest)
  redis.call('HSET', KEYS[2], '@trimmed', oldest_total)
end
return acknowledged

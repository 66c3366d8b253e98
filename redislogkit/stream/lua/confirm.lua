-- A writer has durably written: acknowledge, publish its positions, trim behind the slowest writer.
--
-- KEYS[1]  the stream
-- KEYS[2]  hash: producer -> highest sequence in the stream; "@trimmed"
-- KEYS[3]  hash: writer -> "<last entry written> <items up to there>"
-- KEYS[4]  hash of this writer: producer -> highest sequence written
-- KEYS[5]  hash: writer -> "<token> <end in ms> <owner>", the leases
-- ARGV[1]  the writer, which is also its group; ARGV[2]  fencing token of its lease
-- ARGV[3]  id of the last entry written ("" = only positions), ARGV[4]  items up to there
-- ARGV[5]  number of producers; then producer and sequence for each
-- ARGV[…]  ids of the entries to acknowledge
--
-- Returns the number of entries acknowledged, or -1 when the lease is somebody else's: nothing was done.
local function split(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)')
  return tonumber(ms or '0'), tonumber(seq or '0')
end
local lease = redis.call('HGET', KEYS[5], ARGV[1]) or ''
if string.match(lease, '^(%d+) ') ~= ARGV[2] then return -1 end
local producers = tonumber(ARGV[5])
for i = 0, producers - 1 do
  local producer, sequence = ARGV[6 + 2 * i], ARGV[7 + 2 * i]
  if sequence == '-1' then
    redis.call('HDEL', KEYS[4], producer)
  else
    redis.call('HSET', KEYS[4], producer, sequence)
  end
end
if ARGV[3] == '' then return 0 end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3] .. ' ' .. ARGV[4])
local acknowledged = 0
local at = 6 + 2 * producers
while at <= #ARGV do
  local upto = math.min(at + 999, #ARGV)
  acknowledged = acknowledged + redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, at, upto))
  at = upto + 1
end
-- A writer that belongs to one host ("console@web1") goes with it: ten minutes after its lease has run out it
-- holds back nothing any more. Should it come again, it joins again.
local function is_gone(writer)
  if not string.find(writer, '@', 1, true) then return false end
  local ends = string.match(redis.call('HGET', KEYS[5], writer) or '', '^%d+ (%d+) ')
  return ends and tonumber(ends) + 600000 < tonumber(redis.call('TIME')[1]) * 1000
end
local oldest, oldest_ms, oldest_seq, oldest_total
local all = redis.call('HGETALL', KEYS[3])
for i = 2, #all, 2 do
  local writer = all[i - 1]
  if writer ~= ARGV[1] and is_gone(writer) then
    redis.call('HDEL', KEYS[3], writer)
    redis.call('HDEL', KEYS[5], writer)
    redis.pcall('XGROUP', 'DESTROY', KEYS[1], writer)
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

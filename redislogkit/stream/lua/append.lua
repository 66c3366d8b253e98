-- Append entries once, however often they are sent.
--
-- KEYS[1]  the stream
-- KEYS[2]  hash: producer -> highest sequence in the stream; "@epoch", "@added", "@trimmed"
-- KEYS[3]  hash of the registered writers
-- ARGV[1]  epoch that the caller knows
-- ARGV[2]  most records that may wait for the slowest writer
-- then for each entry:
--   number of producers (0: add it in any case), then producer and highest sequence for each;
--   number of records; number of fields and values; these
--
-- Returns the number of entries added, or
--   -1  the server has lost its memory of this stream (another epoch, no stream, or one without the newest
--       entry, which is never trimmed): nothing was added
--   -2  the stream is full: nothing was added
if redis.call('HGET', KEYS[2], '@epoch') ~= ARGV[1] or redis.call('EXISTS', KEYS[1]) == 0 then
  return -1
end
local total = tonumber(redis.call('HGET', KEYS[2], '@added') or '0')
if total > 0 and redis.call('XLEN', KEYS[1]) == 0 then return -1 end
local limit = tonumber(ARGV[2])
local watched = redis.call('EXISTS', KEYS[3]) == 1
if watched then
  local trimmed = tonumber(redis.call('HGET', KEYS[2], '@trimmed') or '0')
  -- Writers go on counting where they were before the server lost its memory.
  total = math.max(total, trimmed)
  if total - trimmed >= limit then return -2 end
end
local added = 0
local at = 3
while at <= #ARGV do
  local producers = tonumber(ARGV[at])
  local first = at + 1
  local news = producers == 0
  for i = 0, producers - 1 do
    local known = redis.call('HGET', KEYS[2], ARGV[first + 2 * i])
    if not known or tonumber(known) < tonumber(ARGV[first + 2 * i + 1]) then news = true end
  end
  at = first + 2 * producers
  local records = tonumber(ARGV[at])
  local count = tonumber(ARGV[at + 1])
  if news then
    total = total + records
    local arguments = {'XADD', KEYS[1]}
    if not watched then
      -- Nobody is registered to read: the bound can only be kept by dropping the oldest entries.
      arguments[3] = 'MAXLEN'
      arguments[4] = '~'
      arguments[5] = limit
    end
    arguments[#arguments + 1] = '*'
    for i = at + 2, at + 1 + count do arguments[#arguments + 1] = ARGV[i] end
    arguments[#arguments + 1] = 't'
    arguments[#arguments + 1] = string.format('%.0f', total)
    redis.call(unpack(arguments))
    for i = 0, producers - 1 do
      local producer, sequence = ARGV[first + 2 * i], ARGV[first + 2 * i + 1]
      -- Another shipper may have come further with one of them.
      if tonumber(redis.call('HGET', KEYS[2], producer) or '0') < tonumber(sequence) then
        redis.call('HSET', KEYS[2], producer, sequence)
      end
    end
    added = added + 1
  end
  at = at + 2 + count
end
redis.call('HSET', KEYS[2], '@added', string.format('%.0f', total))
return added

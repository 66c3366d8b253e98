-- Append entries once, however often they are sent, and none behind a gap.
--
-- KEYS[1]  the stream
-- KEYS[2]  hash: producer -> highest sequence in the stream; "@epoch", "@added", "@trimmed", "@last" (newest entry),
--          "@writers" (the names in KEYS[3], one a line), "@dropped", "@overflow"
-- KEYS[3]  hash of the registered writers
-- ARGV[1]  epoch that the caller knows
-- ARGV[2]  most records that may wait for the slowest writer
-- then for each entry:
--   a JSON array of texts (empty: add it in any case): for each producer its id, the sequence that the stream has of it as
--   far as the caller knows, and its highest sequence in the entry;
--   number of records; number of fields and values; these
--
-- Returns {answer, records ever dropped for want of a writer}. The answer is the number of entries added, or
--   -1  the server has lost its memory of this stream (another epoch, no stream, or one without the newest
--       entry, which is never trimmed): nothing was added
--   -2  the stream is full: nothing was added
--   -3  the server has less of a producer than the caller knows that it had: nothing was added behind that gap
--
-- What has been added when an error comes up is accounted for: whatever may be refused (no memory, no permission,
-- another type) is tried before the first entry is added, and each entry is added with its sequences or not at all.
local known = redis.call('HMGET', KEYS[2], '@epoch', '@added', '@last', '@trimmed', '@dropped', '@overflow', '@writers')
local total, trimmed = tonumber(known[2] or '0'), tonumber(known[4] or '0')
local last, overflow = known[3], tonumber(known[6] or '0')
if known[1] ~= ARGV[1] or redis.call('EXISTS', KEYS[1]) == 0 then return {-1, overflow} end
if last then
  if #redis.call('XRANGE', KEYS[1], last, last) == 0 then return {-1, overflow} end
elseif total > 0 and redis.call('XLEN', KEYS[1]) == 0 then
  return {-1, overflow}
end
local limit = tonumber(ARGV[2])
local watched = (known[7] or '') ~= '' or redis.call('EXISTS', KEYS[3]) == 1
if watched then
  -- Writers go on counting where they were before the server lost its memory.
  total = math.max(total, trimmed)
  if total - trimmed >= limit then return {-2, overflow} end
end

-- Nobody is registered to read: the bound can only be kept by dropping the oldest entries.
local function make_room()
  local dropped = math.max(tonumber(known[5] or '0'), trimmed)
  local before, from, keep = dropped, '-', nil
  while not keep do
    for _, entry in ipairs(redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 8)) do
      if total - dropped <= limit or entry[1] == last then
        keep = entry[1]
        break
      end
      local fields = entry[2]
      local upto = fields[#fields - 1] == 't' and tonumber(fields[#fields])
      if upto and upto > dropped and upto <= total then dropped = upto end
      from = '(' .. entry[1]
    end
  end
  redis.call('XTRIM', KEYS[1], 'MINID', keep)
  overflow = overflow + dropped - before
  redis.call('HSET', KEYS[2], '@dropped', string.format('%.0f', dropped), '@overflow', string.format('%.0f', overflow))
end

local added = 0
local function finish(answer)
  if added > 0 then
    redis.call('HSET', KEYS[2], '@added', string.format('%.0f', total), '@last', last)
    if not watched and total - math.max(tonumber(known[5] or '0'), trimmed) > limit then make_room() end
  end
  return {answer, overflow}
end

redis.call('HSET', KEYS[2], '@added', string.format('%.0f', total)) -- refused here, if at all
local at = 3
while at <= #ARGV do
  local producers = cjson.decode(ARGV[at])
  local news = #producers == 0
  local new = {}
  for i = 1, #producers, 3 do
    local has = tonumber(redis.call('HGET', KEYS[2], producers[i]) or '0')
    if has < tonumber(producers[i + 1]) then return finish(-3) end
    if has < tonumber(producers[i + 2]) then
      news = true
      new[#new + 1] = producers[i]
      new[#new + 1] = producers[i + 2]
    end
  end
  at = at + 1
  local records = tonumber(ARGV[at])
  local count = tonumber(ARGV[at + 1])
  if news then
    local arguments = {'XADD', KEYS[1], '*'}
    for i = at + 2, at + 1 + count do arguments[#arguments + 1] = ARGV[i] end
    arguments[#arguments + 1] = 't'
    arguments[#arguments + 1] = string.format('%.0f', total + records)
    local id = redis.pcall(unpack(arguments))
    if type(id) == 'table' and id.err then
      finish(0)
      return id
    end
    total, last, added = total + records, id, added + 1
    for i = 1, #new, 2 do redis.call('HSET', KEYS[2], new[i], new[i + 1]) end
  end
  at = at + 2 + count
end
return finish(added)

-- Read as a writer, if the lease is still its own.
--
-- KEYS[1]  the stream
-- KEYS[2]  hash: writer -> "<token> <end in ms> <owner>", the leases
-- ARGV[1]  the writer, which is also its group and consumer; ARGV[2]  fencing token of its lease ("0": it has none)
-- ARGV[3]  most entries; ARGV[4]  id behind which its pending entries are read, ">" for new ones
-- ARGV[5]  bytes that are enough; ARGV[6]  records that are enough
--
-- Returns {entries, id of the newest entry in the stream}, or -1 when the lease is somebody else's. A read that a dead
-- writer has sent, and that comes late, must not take entries away from its successor: they would be pending for
-- good, and behind what the successor goes on with.
if ARGV[2] ~= '0' then
  -- Where there is none at all (the server has lost its memory), whoever comes next begins with what is pending.
  local lease = redis.call('HGET', KEYS[2], ARGV[1])
  if lease and string.match(lease, '^(%d+) ') ~= ARGV[2] then return -1 end
end
local most, after, bytes, records = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local entries, step = {}, 2
while #entries < most and bytes > 0 and records > 0 do
  -- How large an entry is, is known when it is read: a few at a time, lest thousands of small ones end in large ones.
  step = math.min(2 * step, 16, most - #entries)
  local found = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[1], 'COUNT', step, 'STREAMS', KEYS[1], after)
  found = found and found[1] and found[1][2] or {}
  for _, entry in ipairs(found) do
    entries[#entries + 1] = entry
    if after ~= '>' then after = entry[1] end
    local fields = entry[2] or {} -- none where it was trimmed while it was pending
    local count = 1
    for i = 2, #fields, 2 do
      bytes = bytes - #fields[i]
      if fields[i - 1] == 'n' then count = tonumber(fields[i]) or 1 end
    end
    records = records - count
  end
  if #found < step then break end
end
if #entries > 0 then return {entries, ''} end
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return {{}, newest and newest[1] or '0-0'}

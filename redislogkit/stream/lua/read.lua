-- Read as a writer, if the lease is still its own.
--
-- KEYS[1]  the stream
-- KEYS[2]  hash: writer -> "<token> <end in ms> <owner>", the leases
-- ARGV[1]  the writer, which is also its group and consumer; ARGV[2]  fencing token of its lease ("0": it has none)
-- ARGV[3]  most entries; ARGV[4]  id behind which its pending entries are read, ">" for new ones
--
-- Returns {entries, id of the newest entry in the stream}, or -1 when the lease is somebody else's. A read that a dead
-- writer has sent, and that comes late, must not take entries away from its successor: they would be pending for
-- good, and behind what the successor goes on with.
if ARGV[2] ~= '0' then
  -- Where there is none at all (the server has lost its memory), whoever comes next begins with what is pending.
  local lease = redis.call('HGET', KEYS[2], ARGV[1])
  if lease and string.match(lease, '^(%d+) ') ~= ARGV[2] then return -1 end
end
local found = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[1], 'COUNT', ARGV[3], 'STREAMS', KEYS[1], ARGV[4])
if found and found[1] then return {found[1][2], ''} end
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return {{}, newest and newest[1] or '0-0'}

-- Register a writer, and make its group where it is missing.
--
-- KEYS[1]  the stream
-- KEYS[2]  hash: producer -> highest sequence in the stream; "@epoch", "@added", "@trimmed", "@writers"
-- KEYS[3]  hash: writer -> "<last entry written> <items up to there>"
-- ARGV[1]  the writer, which is also its group; ARGV[2]  id of the entry behind which it begins
--
-- Returns 1 when the group is new, else 0. A stream that has to be made for it is another one than that
-- which KEYS[2] tells of: that memory goes, so that the shipper learns of the loss.
--
-- A server that is out of memory refuses what a script begins with, not what follows. Writers are those who make
-- room, so all of their scripts begin with something that is never refused: the removal of what is not there.
redis.call('HDEL', KEYS[3], '')
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[2]) end
local writers = redis.call('HGET', KEYS[2], '@writers') or ''
if not string.find('\n' .. writers, '\n' .. ARGV[1] .. '\n', 1, true) then
  redis.call('HSET', KEYS[2], '@writers', writers .. ARGV[1] .. '\n')
end
redis.call('HSETNX', KEYS[3], ARGV[1], '0-0 0')
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2], 'MKSTREAM')
if not made.err then return 1 end
if string.find(made.err, 'BUSYGROUP', 1, true) then return 0 end
return made

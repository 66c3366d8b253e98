-- Let go of a writer that is gone for good: it no longer holds back trimming.
--
-- KEYS[1]  the stream
-- KEYS[2]  hash: producer -> highest sequence in the stream; "@writers"
-- KEYS[3]  hash: writer -> "<last entry written> <items up to there>"
-- KEYS[4]  hash of this writer: producer -> highest sequence written
-- KEYS[5]  hash: writer -> "<token> <end in ms> <owner>", the leases
-- ARGV[1]  the writer, which is also its group
--
-- Returns 1 when it was registered, else 0.
local known = redis.call('HDEL', KEYS[3], ARGV[1])
local writers = '\n' .. (redis.call('HGET', KEYS[2], '@writers') or '')
local from, upto = string.find(writers, '\n' .. ARGV[1] .. '\n', 1, true)
if from then
  known = 1
  redis.call('HSET', KEYS[2], '@writers', string.sub(writers, 2, from) .. string.sub(writers, upto + 1))
end
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('DEL', KEYS[4])
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1]) end
return known

-- How far each writer is behind the stream. Changes nothing.
--
-- KEYS[1]  the stream
-- KEYS[2]  hash: producer -> highest sequence in the stream; "@added" (items ever), "@last" (newest entry)
-- KEYS[3]  hash: writer -> "<last entry written> <items up to there>"
--
-- Returns {server's time in ms, items ever, newest entry, entries that are there now}, then for each writer its name,
-- the last entry that it has written, the items up to there, and the first entry that it has not written ("" = none).
local now = redis.call('TIME')
local known = redis.call('HMGET', KEYS[2], '@added', '@last')
local answer = {
  string.format('%.0f', tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)),
  known[1] or '0', known[2] or '', redis.call('XLEN', KEYS[1]),
}
local writers = redis.call('HGETALL', KEYS[3])
for i = 1, #writers, 2 do
  local id, total = string.match(writers[i + 1], '^(%S+) (%d+)$')
  local behind = redis.call('XRANGE', KEYS[1], '(' .. (id or '0-0'), '+', 'COUNT', 1)[1]
  answer[#answer + 1] = writers[i]
  answer[#answer + 1] = id or '0-0'
  answer[#answer + 1] = total or '0'
  answer[#answer + 1] = behind and behind[1] or ''
end
return answer

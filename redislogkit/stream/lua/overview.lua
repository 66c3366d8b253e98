-- What `status` and `doctor` tell of a stream. Changes nothing.
--
-- KEYS[1]  the stream
-- KEYS[2]  hash: producer -> highest sequence in the stream; "@added", "@trimmed", "@overflow", "@last"
-- KEYS[3]  hash: writer -> "<last entry written> <items up to there>"
-- KEYS[4]  hash: writer -> "<token> <end in ms> <owner>", the leases
--
-- Returns {now in ms, entries, items ever added, items trimmed, items dropped for want of a writer, id of the
-- newest entry}, then for each writer its name, its value in KEYS[3], that in KEYS[4], and the id of the first entry it has not written.
local now = redis.call('TIME')
local known = redis.call('HMGET', KEYS[2], '@added', '@trimmed', '@overflow', '@last')
local answer = {
  string.format('%.0f', tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)),
  redis.call('XLEN', KEYS[1]), known[1] or '0', known[2] or '0', known[3] or '0', known[4] or '',
}
local writers = redis.call('HGETALL', KEYS[3])
for i = 1, #writers, 2 do
  local id = string.match(writers[i + 1], '^(%d+%-%d+) ') or '0-0'
  local unread = redis.call('XRANGE', KEYS[1], '(' .. id, '+', 'COUNT', 1)[1]
  answer[#answer + 1] = writers[i]
  answer[#answer + 1] = writers[i + 1]
  answer[#answer + 1] = redis.call('HGET', KEYS[4], writers[i]) or ''
  answer[#answer + 1] = unread and unread[1] or ''
end
return answer

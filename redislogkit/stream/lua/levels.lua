-- Which loggers have another level for a while. Changes nothing, so that a replica or a full server answers, too.
--
-- KEYS[1]  hash: logger -> "<level> <end in ms, server time> <who>"
--
-- Returns {now in ms, logger, value, ...} of those whose time is not over.
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local answer, found = {string.format('%.0f', now_ms)}, redis.call('HGETALL', KEYS[1])
for i = 1, #found, 2 do
  local ends = tonumber(string.match(found[i + 1], '^%d+ (%d+) ') or '0')
  if ends > now_ms then
    table.insert(answer, found[i])
    table.insert(answer, found[i + 1])
  end
end
return answer

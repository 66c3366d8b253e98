-- Give a logger another level for a while. What is over is removed, and the whole hash goes with the last one.
--
-- KEYS[1]  hash: logger -> "<level> <end in ms, server time> <who>"
-- ARGV[1]  logger, ARGV[2]  level, ARGV[3]  how long in ms, ARGV[4]  who wants it
--
-- Returns the end in ms.
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local ends = now_ms + tonumber(ARGV[3])
local last, found = ends, redis.call('HGETALL', KEYS[1])
for i = 1, #found, 2 do
  local other = tonumber(string.match(found[i + 1], '^%d+ (%d+) ') or '0')
  if other <= now_ms then
    redis.call('HDEL', KEYS[1], found[i])
  elseif found[i] ~= ARGV[1] then
    last = math.max(last, other)
  end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.0f %s', ARGV[2], ends, ARGV[4]))
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', last))
return string.format('%.0f', ends)

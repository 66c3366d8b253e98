-- How far producers have come.
--
-- KEYS[1]   the stream
-- KEYS[2]   hash: producer -> highest sequence in the stream; "@epoch", "@added", "@last"
-- KEYS[3…]  one hash for each writer that counts: producer -> highest sequence written
-- ARGV[1]   producers, as a JSON array
--
-- Returns the epoch ("" where stream or hash are gone), and in one text, for each producer, the highest sequence in the
-- stream and the lowest of what the writers have written (0 where there is no writer). One text each way: a value by
-- itself costs the shipper 3 us.
local known = redis.call('HMGET', KEYS[2], '@epoch', '@added', '@last')
local epoch = known[1] or ''
if redis.call('EXISTS', KEYS[1]) == 0 then
  epoch = ''
elseif known[3] then
  -- The newest entry is never trimmed.
  if #redis.call('XRANGE', KEYS[1], known[3], known[3]) == 0 then epoch = '' end
elseif tonumber(known[2] or '0') > 0 and redis.call('XLEN', KEYS[1]) == 0 then
  epoch = ''
end
local producers, result = cjson.decode(ARGV[1]), {}
for from = 1, #producers, 1000 do -- a call takes some thousand arguments, not any number
  local upto = math.min(from + 999, #producers)
  local shipped = redis.call('HMGET', KEYS[2], unpack(producers, from, upto))
  local written = {}
  for k = 3, #KEYS do
    local of_writer = redis.call('HMGET', KEYS[k], unpack(producers, from, upto))
    for i = 1, #of_writer do
      local value = tonumber(of_writer[i] or '0') or 0
      if k == 3 or value < written[i] then written[i] = value end
    end
  end
  for i = 1, #shipped do
    result[#result + 1] = shipped[i] or '0'
    result[#result + 1] = string.format('%.0f', written[i] or 0)
  end
end
return {epoch, table.concat(result, ' ')}

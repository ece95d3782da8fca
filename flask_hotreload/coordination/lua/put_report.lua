-- A report's number is its place among them; that of a transaction keeps its place.
local report, only_first, transaction = unpack(ARGV)
local reports, of = key('reports'), key('report-of')
local number = transaction and redis.call('ZSCORE', of, transaction)
if number then
  if only_first == '0' then
    redis.call('HSET', reports, number, report)
  end
  return answer()
end
number = redis.call('HINCRBY', STATE, 'reports', 1)
redis.call('HSET', reports, number, report)
if transaction then
  redis.call('ZADD', of, number, transaction)
end
redis.call('HDEL', reports, number - REPORTS)
redis.call('ZREMRANGEBYSCORE', of, '-inf', number - REPORTS)
return answer()

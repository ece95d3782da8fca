local number = redis.call('ZSCORE', key('report-of'), ARGV[1])
return answer(number and redis.call('HGET', key('reports'), number))

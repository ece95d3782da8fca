for number = 1, #ARGV, 2 do
  redis.call('HSET', BLOBS, ARGV[number], ARGV[number + 1])
  redis.call('SADD', LOOSE, ARGV[number])
end
return answer()

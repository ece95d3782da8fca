local member, told = unpack(ARGV)
if redis.call('HEXISTS', MEMBERS, member) == 1 then
  redis.call('HSET', MEMBERS, member, told)
end
return answer()

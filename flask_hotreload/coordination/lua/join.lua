local member, release, generation, told, milliseconds = unpack(ARGV)
found()
bury_lapsed()
if undecided() and get('of') == release or head_of(release) ~= tonumber(generation) then
  return answer(0)
end
redis.call('HSET', MEMBERS, member, told)
redis.call('HSET', OF, member, release)
redis.call('ZREM', BURIED, member)
redis.call('HDEL', EVICTED, member)
grant(member, milliseconds)
return answer(1)

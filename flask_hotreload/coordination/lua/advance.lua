local id, before, to, deadline, payload = unpack(ARGV)
if get('id') ~= id or get('phase') ~= before then
  return answer(0)
end
if to == 'apply' then
  keep_in_memory()
end
redis.call('HSET', STATE, 'phase', to, 'deadline', deadline)
if payload then
  redis.call('HSET', STATE, 'payload', payload)
  redis.call('HINCRBY', STATE, 'version', 1)
end
return answer(1)

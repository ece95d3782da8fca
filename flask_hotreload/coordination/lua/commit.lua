-- The point of no return: the decision and the journal's record, which was laid ready, are one change.
local id, release, generation, sources = unpack(ARGV, 1, 4)
if get('id') ~= id or get('phase') ~= 'apply' or redis.call('HGET', READY, 'id') ~= id then
  return answer(0)
end
redis.call('HSET', STATE, 'phase', 'committed')
if tonumber(generation) > tonumber(get('newest')) then
  redis.call('HSET', STATE, 'newest', generation)
end
redis.call('HSET', HEADS, release, generation)
for number = 5, #ARGV do
  forget_record(release, ARGV[number])
end
write_record(release, generation, id, redis.call('HGET', READY, 'record'), sources)
redis.call('DEL', READY)
if redis.call('EXISTS', READY_DIGESTS) == 1 then
  redis.call('RENAME', READY_DIGESTS, digests_of(release, generation))
else
  redis.call('DEL', digests_of(release, generation))
end
return answer(1)

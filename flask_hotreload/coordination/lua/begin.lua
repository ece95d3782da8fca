local id, release, base, generation, phase, deadline, record, payload, now = unpack(ARGV, 1, 9)
found()
local taking_part = {}
for number = 10, #ARGV do
  taking_part[ARGV[number]] = true
  if redis.call('HGET', OF, ARGV[number]) ~= release then
    return answer(0)
  end
end
if undecided() or has_begun(id) then
  return answer(0)
end
if head_of(release) ~= tonumber(base) or tonumber(generation) <= tonumber(get('newest')) then
  return answer(0)
end
local members = redis.call('HGETALL', OF)
for number = 1, #members, 2 do
  local member = members[number]
  if not taking_part[member] then
    if is_lapsed(member) then
      bury(member)
    elseif members[number + 1] == release then
      return answer(0)
    end
  end
end
local evicted = redis.call('HGETALL', EVICTED)
for number = 1, #evicted, 2 do
  if is_lapsed(evicted[number]) then
    redis.call('HDEL', EVICTED, evicted[number])
  elseif evicted[number + 1] == release then
    return answer(0)
  end
end

for _, each in ipairs(redis.call('HKEYS', STAGED)) do
  if tonumber(redis.call('HGET', key('staged:') .. each, 'until')) <= tonumber(now) then
    drop_staged(each)
  end
end

-- The blobs that nothing names.
redis.call('DEL', READY)
loosen(READY_DIGESTS)
if redis.call('EXISTS', LOOSE) == 1 then
  local named = { LOOSE, LOOSE, key('base-digests') }
  for _, each in ipairs(redis.call('HKEYS', STAGED)) do
    named[#named + 1] = key('staged-digests:') .. each
  end
  for _, each in ipairs(redis.call('HKEYS', HEADS)) do
    for _, of in ipairs(redis.call('HKEYS', key('ids:') .. each)) do
      named[#named + 1] = digests_of(each, of)
    end
  end
  redis.call('SDIFFSTORE', unpack(named))
  for _, digest in ipairs(redis.call('SMEMBERS', LOOSE)) do
    redis.call('HDEL', BLOBS, digest)
  end
  redis.call('DEL', LOOSE)
end

remember(BEGUN, id, REMEMBERED)
redis.call('DEL', VOTES)
redis.call('HDEL', STATE, 'reason', 'agreed:prepared', 'agreed:applied', 'agreed:settled')
redis.call('HSET', STATE, 'id', id, 'of', release, 'phase', phase, 'deadline', deadline, 'record', record,
  'payload', payload, 'version', 0)
return answer(1)

local release, only_if = unpack(ARGV)
found()
if get('release') ~= only_if or redis.call('HEXISTS', HEADS, release) == 1 then
  return answer(0)
end
redis.call('HSET', HEADS, release, get('newest'))
redis.call('HSET', STATE, 'release', release)
redis.call('ZADD', RELEASES, next_number(), release)
ran(release, release)

-- The oldest of those that nobody serves and nobody boots with.
bury_lapsed()
local serves = { [release] = true }
if undecided() then
  serves[get('of')] = true
end
for _, each in ipairs(redis.call('HVALS', OF)) do
  serves[each] = true
end
local forgettable = {}
for _, each in ipairs(redis.call('ZRANGE', RELEASES, 0, -1)) do
  if not serves[each] then
    forgettable[#forgettable + 1] = each
  end
end
for number = 1, #forgettable - RELEASES_KEPT do
  local gone = forgettable[number]
  forget_journal(gone)
  drop_staged(gone)
  if redis.call('HGET', BASE, 'release') == gone then
    drop_base()
  end
  redis.call('HDEL', HEADS, gone)
  redis.call('ZREM', RELEASES, gone)
  local sources = redis.call('HGETALL', SOURCES)
  for at = 1, #sources, 2 do
    if sources[at + 1] == gone then
      redis.call('HDEL', SOURCES, sources[at])
      redis.call('ZREM', SEEN, sources[at])
    end
  end
end
return answer(1)

-- Arguments: release, head, base or '', whether there is one, how many records, how many digests the base needs, these
-- digests; then for each record: generation, id, record, sources, how many digests, these digests.
-- Answers 0: refused; 1: done; 2: a blob is not there (any more).
local release, head, base, is_base = unpack(ARGV, 1, 4)
local records, digests = tonumber(ARGV[5]), tonumber(ARGV[6])
found()
if tonumber(head) <= (head_of(release) or 0) then
  return answer(0)
end
local starts, at = {}, 7 + digests
if not are_there(7, at - 1) then
  return answer(2)
end
for _ = 1, records do
  starts[#starts + 1] = at
  local count = tonumber(ARGV[at + 4])
  if not are_there(at + 5, at + 4 + count) then
    return answer(2)
  end
  at = at + 5 + count
end

if undecided() and get('of') == release then
  abort('a worker has published a later generation again, which the store had lost')
end
local members = redis.call('HGETALL', OF)
for number = 1, #members, 2 do
  if members[number + 1] == release then
    redis.call('HDEL', OF, members[number])
    redis.call('HDEL', MEMBERS, members[number])
    redis.call('HSET', EVICTED, members[number], release)
  end
end

if redis.call('HEXISTS', HEADS, release) == 0 then
  redis.call('ZADD', RELEASES, next_number(), release)
  ran(release, release)
end
redis.call('HSET', HEADS, release, head)
if tonumber(head) > tonumber(get('newest')) then
  redis.call('HSET', STATE, 'newest', head)
end
forget_journal(release)
for _, start in ipairs(starts) do
  local generation, id, record, sources, count = unpack(ARGV, start, start + 4)
  write_record(release, generation, id, record, sources)
  name_digests(digests_of(release, generation), start + 5, start + 4 + count)
end
if is_base == '1' then
  drop_base()
  redis.call('HSET', BASE, 'release', release, 'base', base)
  name_digests(key('base-digests'), 7, 6 + digests)
elseif redis.call('HGET', BASE, 'release') == release then
  drop_base()
end
return answer(1)

-- Answers 0: refused; 1: done; 2: a blob is not there (any more).
local release, base = unpack(ARGV, 1, 2)
found()
if undecided() or get('release') ~= release or redis.call('EXISTS', key('ids:') .. release) == 1 then
  return answer(0)
end
if not are_there(3, #ARGV) then
  return answer(2)
end
drop_base()
redis.call('HSET', BASE, 'release', release, 'base', base)
name_digests(key('base-digests'), 3, #ARGV)
return answer(1)

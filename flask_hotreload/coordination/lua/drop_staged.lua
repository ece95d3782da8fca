local id, unless_begun = unpack(ARGV)
if unless_begun and has_begun(unless_begun) then
  return answer(0)
end
local staged = redis.call('HGETALL', STAGED)
for number = 1, #staged, 2 do
  if staged[number + 1] == id then
    drop_staged(staged[number])
    return answer(1)
  end
end
return answer(0)

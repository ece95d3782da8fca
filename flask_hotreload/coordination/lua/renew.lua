-- A lease that has run out is renewed, too, as long as nobody has buried the member.
local member, generation, milliseconds = unpack(ARGV)
local release = redis.call('HGET', OF, member)
if not release or head_of(release) ~= tonumber(generation) then
  return answer(0)
end
grant(member, milliseconds)
return answer(1)

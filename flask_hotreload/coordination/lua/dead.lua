-- Who is told dead is buried in the same step.
local dead = {}
for _, member in ipairs(ARGV) do
  if redis.call('HEXISTS', OF, member) == 1 or redis.call('HEXISTS', EVICTED, member) == 1 then
    if is_lapsed(member) then
      bury(member)
      dead[#dead + 1] = member
    end
  elseif redis.call('ZSCORE', BURIED, member) then
    dead[#dead + 1] = member
  end
end
return answer(dead)

found()
bury_lapsed()
local seal = get('seal')
if not seal or redis.call('EXISTS', OF) == 0 then
  seal = ARGV[1]
  redis.call('HSET', STATE, 'seal', seal)
end
return answer(seal)

local id, ballot, member, ok, vote, told = unpack(ARGV)
if told then
  update(member, told)
end
if get('id') ~= id or (ballot ~= 'settled' and not undecided()) then
  return answer(0)
end
if ballot ~= 'prepared' then
  keep_in_memory()
end
if redis.call('HSETNX', VOTES, ballot .. '\0' .. member, vote) == 0 then
  return answer(0)
end
return answer(redis.call('HINCRBY', STATE, 'agreed:' .. ballot, ok))

local id, reason = unpack(ARGV)
if get('id') ~= id or not undecided() then
  return answer(0)
end
abort(reason)
return answer(1)

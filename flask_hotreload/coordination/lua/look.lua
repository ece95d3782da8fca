-- What the store holds now. Of the payload no more than the asker does not know.
local release, transaction, known, known_version, whole = unpack(ARGV)
local state = redis.call('HMGET', STATE,
  'release', 'newest', 'record', 'phase', 'deadline', 'reason', 'version', 'id')
local payload = false
if state[3] and not (state[8] == known and state[7] == known_version) then
  payload = get('payload')
end
local committed = transaction ~= '' and state[8] ~= transaction and is_committed(transaction)
local votes, members = false, false
if whole == '1' then
  votes, members = redis.call('HVALS', VOTES), redis.call('HVALS', MEMBERS)
end
return answer(state[1] or '0', head_of(release) or 0, state[2] or 0, state[3], state[4], state[5], state[6],
  state[7], payload, committed and 1 or 0, votes, members)

-- The record of a transaction that may be committed.
local id, record = unpack(ARGV, 1, 2)
loosen(READY_DIGESTS)
redis.call('HSET', READY, 'id', id, 'record', record)
name_digests(READY_DIGESTS, 3, #ARGV)
return answer()

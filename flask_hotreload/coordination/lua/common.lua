-- What all scripts share; it stands before each of them, after the limits of a store.
--
-- KEYS[1] is the key of the deployment's state. All others are named from it, so that they lie in the same hash slot.
-- Bytes stay raw: nothing here reads a record, a payload or a source; what a script needs of them it is given beside.
-- A script that is in doubt refuses: it answers 0.

local STATE = KEYS[1]
local function key(name)
  return string.sub(STATE, 1, -6) .. name -- without 'state'
end

local HEADS = key('heads') -- hash: release -> the generation that it serves
local RELEASES = key('releases') -- sorted set: release, by when it began
local SOURCES = key('sources') -- hash: digest of a whole source -> the release that last ran it
local SEEN = key('seen') -- sorted set: these digests, by when
local MEMBERS = key('members') -- hash: member -> what it told of itself
local OF = key('of') -- hash: member -> its release
local BURIED = key('buried') -- sorted set: who died or left, and has not joined again
local EVICTED = key('evicted') -- hash: member -> release: to join again, while its lease may still run
local VOTES = key('votes') -- hash: ballot and member -> vote
local BEGUN = key('begun') -- sorted set: ids that were begun
local LIVE = key('live') -- set: ids that a journal holds
local OBSOLETE = key('obsolete') -- sorted set: ids whose records have left a journal
local BLOBS = key('blobs') -- hash: digest -> source
local LOOSE = key('loose') -- set: digests that perhaps nothing names
local BASE = key('base') -- hash: release, base
local READY = key('ready') -- hash: id, record: what may be committed
local READY_DIGESTS = key('ready-digests') -- set
local STAGED = key('staged') -- hash: release -> id of what is staged in it

local time = redis.call('TIME')
local function answer(...)
  return { time[1], time[2], ... }
end

-- Let what this script changes from now on be in the server's memory alone: no disk and no replica is waited for. It
-- is for what nobody needs who comes after a crash. Of a transaction that has lost votes, or that it was in APPLY,
-- nothing can come but an abort; decisions are kept as everything else is.
local function keep_in_memory()
  pcall(redis.set_repl, redis.REPL_NONE) -- where this is not to be had, it is written, too
end

local function get(field)
  return redis.call('HGET', STATE, field)
end

local function next_number()
  return redis.call('HINCRBY', STATE, 'number', 1)
end

-- Before anything is written: a store that is empty has one release.
local function found()
  if redis.call('HEXISTS', STATE, 'release') == 0 then
    redis.call('HSET', STATE, 'release', '0', 'newest', 0)
    redis.call('HSET', HEADS, '0', 0)
    redis.call('ZADD', RELEASES, 0, '0')
  end
end

-- Keep the last `limit` members of a sorted set; return those that are kept no longer.
local function trimmed(set, limit)
  local gone = redis.call('ZRANGE', set, 0, -(limit + 1))
  if #gone > 0 then
    redis.call('ZREMRANGEBYRANK', set, 0, -(limit + 1))
  end
  return gone
end

local function remember(set, what, limit)
  redis.call('ZADD', set, next_number(), what)
  return trimmed(set, limit)
end

local function head_of(release)
  return tonumber(redis.call('HGET', HEADS, release) or (release == '0' and '0')) -- nil: there is no such release
end

-- The transaction ------------------------------------------------------------------------------------------------

local function undecided()
  local phase = get('phase')
  return phase and phase ~= 'committed' and phase ~= 'aborted'
end

local function abort(reason)
  redis.call('HSET', STATE, 'phase', 'aborted', 'reason', reason)
end

local function is_committed(id)
  return redis.call('SISMEMBER', LIVE, id) == 1 or redis.call('ZSCORE', OBSOLETE, id)
end

local function has_begun(id)
  return redis.call('ZSCORE', BEGUN, id) or is_committed(id)
end

-- Members ----------------------------------------------------------------------------------------------------------

local function update(member, told)
  if redis.call('HEXISTS', MEMBERS, member) == 1 then
    redis.call('HSET', MEMBERS, member, told)
  end
end

local function lease(member)
  return key('lease:') .. member
end

local function is_lapsed(member)
  return redis.call('EXISTS', lease(member)) == 0
end

local function grant(member, milliseconds)
  if milliseconds == '0' then
    redis.call('SET', lease(member), 1) -- until it is deleted
  else
    redis.call('SET', lease(member), 1, 'PX', milliseconds)
  end
end

-- From now on it cannot renew: it has to join again.
local function bury(member)
  redis.call('HDEL', MEMBERS, member)
  redis.call('HDEL', OF, member)
  redis.call('HDEL', EVICTED, member)
  redis.call('DEL', lease(member))
  remember(BURIED, member, REMEMBERED)
end

local function bury_lapsed()
  for _, member in ipairs(redis.call('HKEYS', OF)) do
    if is_lapsed(member) then
      bury(member)
    end
  end
end

-- Sources ----------------------------------------------------------------------------------------------------------

-- Let go of a set of digests.
local function loosen(digests)
  redis.call('SUNIONSTORE', LOOSE, LOOSE, digests)
  redis.call('DEL', digests)
end

-- `from` and `to`: where they stand among the arguments.
local function name_digests(set, from, to)
  redis.call('DEL', set)
  for number = from, to do
    redis.call('SADD', set, ARGV[number])
  end
end

local function are_there(from, to)
  for number = from, to do
    if redis.call('HEXISTS', BLOBS, ARGV[number]) == 0 then
      return false
    end
  end
  return true
end

local function ran(release, digest)
  redis.call('HSET', SOURCES, digest, release)
  for _, gone in ipairs(remember(SEEN, digest, REMEMBERED)) do
    redis.call('HDEL', SOURCES, gone)
  end
end

local function drop_base()
  redis.call('DEL', BASE)
  loosen(key('base-digests'))
end

local function drop_staged(release)
  redis.call('HDEL', STAGED, release)
  redis.call('DEL', key('staged:') .. release)
  loosen(key('staged-digests:') .. release)
end

-- The journal --------------------------------------------------------------------------------------------------------

local function write_record(release, generation, id, record, sources)
  redis.call('HSET', key('journal:') .. release, generation, record)
  redis.call('HSET', key('ids:') .. release, generation, id)
  redis.call('SADD', LIVE, id)
  if sources ~= '' then
    ran(release, sources)
  end
end

local function digests_of(release, generation)
  return key('digests:') .. release .. ':' .. generation
end

local function forget_record(release, generation)
  local id = redis.call('HGET', key('ids:') .. release, generation)
  if not id then
    return
  end
  redis.call('HDEL', key('journal:') .. release, generation)
  redis.call('HDEL', key('ids:') .. release, generation)
  redis.call('SREM', LIVE, id)
  remember(OBSOLETE, id, REMEMBERED)
  loosen(digests_of(release, generation))
end

local function forget_journal(release)
  for _, generation in ipairs(redis.call('HKEYS', key('ids:') .. release)) do
    forget_record(release, generation)
  end
end

local node, replaced = ARGV[1], 0
local epoch, server, settling
-- The largest number that is exact here. Sums end there, whatever is told, so that what is written can be read.
local MOST = 9007199254740991
local function number(text)
  local n = text and tonumber(text)
  if n and n >= 0 and n <= MOST then return math.floor(n) end
end
local function text(n) return string.format('%.0f', n) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- No two data of one key begin at the same microsecond, and no two epochs.
local fresh = time[1] * 1000000 + time[2]
local function begin_epoch()
  epoch, settling = fresh, true
  redis.call('SET', KEYS[1], text(epoch) .. (server ~= '' and ':' .. server or ''))
end
-- Who knows what was counted there may not ask for it any more: as after a loss of all, each tells what it holds. The
-- epoch is first: without memory for it, the key stays.
local function remove(key)
  if epoch ~= fresh then begin_epoch() end
  redis.call('DEL', key)
  replaced = replaced + 1
end
-- A window's hash: what is ours, the sum, and `b`: of the sum what these data began with, when that was, in which epoch.
local function read(key)
  local it = {name = key, mine = 0, total = 0, base = 0, birth = 0}
  local hash = redis.pcall('HMGET', key, node, 't', 'b')
  if hash.err then
    remove(key)
    return it
  end
  local mine, total = number(hash[1]), number(hash[2])
  local base, birth, since
  if hash[3] then
    base, birth, since = string.match(hash[3], '^(%d+):(%d+):(%d+)$')
    base, birth, since = number(base), number(birth), number(since)
  end
  if (hash[1] and not mine) or (hash[2] and not total) or (hash[3] and not (base and birth and since)) then
    remove(key)
    return it
  end
  it.mine = mine or 0
  it.total = math.max(total or 0, it.mine)
  it.base, it.birth, it.since, it.there = base or 0, birth or 0, since, total ~= nil
  return it
end
local function write(it, ttl)
  it.mine, it.total, it.base = math.min(it.mine, MOST), math.min(it.total, MOST), math.min(it.base, MOST)
  if it.anew then redis.call('DEL', it.name) end
  redis.call('HSET', it.name, node, text(it.mine), 't', text(it.total), 'b', text(it.base) .. ':' .. text(it.birth) .. ':' .. text(it.epoch))
  redis.call('PEXPIRE', it.name, text(ttl))
  it.there = true
end
if ARGV[3] ~= '0' and now > tonumber(ARGV[3]) then
  return redis.error_reply('LATE the command came after its time')
end
-- Since when the data are there, and at which server.
local said = redis.pcall('GET', KEYS[1])
if type(said) == 'table' then
  replaced = replaced + 1
elseif said then
  epoch, server = string.match(said, '^(%d+):?(%w*)$')
  epoch = epoch and number(epoch)
end
-- A server that began anew, perhaps with an older snapshot, or took over from another, may lack what was told that one.
local here, nameless
if not epoch or ARGV[3] == '0' then
  local info = redis.pcall('INFO', 'server')
  here = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or nil
  nameless = not here
end
if not epoch or (here and server ~= here) then
  local known = epoch and server == ''
  server = here or ''
  if known then
    redis.call('SET', KEYS[1], text(epoch) .. ':' .. server)
  else
    begin_epoch()
  end
end
local age = fresh - epoch
settling = age >= 0 and age < ARGV[2] * 1000
local out = {0, 0, 0, now}
-- Last: what is found on the way may begin an epoch.
local function answer()
  out[1], out[2], out[3] = (settling and 1 or 0) + (nameless and 2 or 0), replaced, epoch
  return out
end
local at, place = 4, 2
local function take()
  at = at + 1
  return tonumber(ARGV[at - 1])
end
local function key()
  place = place + 1
  return KEYS[place - 1]
end
local function add(n) out[#out + 1] = n end
-- What others have in the window before, and how much of its sum counts now, rounded up.
local function former()
  local left, length = take(), take()
  local it = read(key())
  local whole = math.floor(it.total / length)
  local rest = (it.total - whole * length) * left
  local part = math.floor(rest / length)
  if part * length < rest then part = part + 1 end
  return it.total - it.mine, whole * left + part
end
-- A window as it stands now, with what this sidecar has counted. What it knew of other data than these (they were lost,
-- or are older now) holds as well: whoever heard last of those knew of all that was told, so the largest sum is theirs,
-- and what each has counted since it heard comes on top.
local function window(name, have)
  local birth, told, known = take(), take(), take()
  local it = read(name)
  if it.since ~= epoch then
    it.changed, it.base, it.birth = it.there, it.total, fresh
    -- Fields of an older epoch may hold what went back since, and others have: each tells its own anew.
    if it.since then it.anew, it.mine = true, 0 end
  end
  it.epoch = epoch
  local had = it.mine
  if birth > 0 and birth ~= it.birth then
    had = math.max(had, told)
    if known > it.base then it.total, it.base, it.changed = it.total + known - it.base, known, true end
  end
  if have > it.mine then it.total, it.mine, it.changed = it.total + math.max(have - had, 0), have, true end
  it.mine = math.min(it.mine, MOST)
  it.total = math.min(math.max(it.total, it.mine), MOST)
  return it
end
local function born(it) return it.there and it.birth or 0 end
-- A bucket as it stands now, with what this sidecar has put in.
local function bucket(name, have)
  local it = {name = name}
  local told, content = take(), take()
  it.length, it.parts, it.size = take(), take(), take()
  local hash = redis.pcall('HMGET', name, node, 'c', 'a', 'r')
  local mine, level, since
  if hash.err then
    remove(name)
  else
    mine, level, since, it.round = number(hash[1]), number(hash[2]), number(hash[3]), number(hash[4])
    if (hash[1] and not mine) or (hash[2] and not level) or (hash[3] and not since) or (hash[4] and not it.round) then
      remove(name)
      mine, level, since, it.round = nil, nil, nil, nil
    end
  end
  local second = it.size * it.parts * 1000 / it.length
  -- The clock was put back: from here on it runs out by the clock as it is now, not hours later.
  local back = since and since > now
  if level then
    local gone = math.max(now - (since or now), 0) * it.size * it.parts
    local out_of_it = math.floor(gone / it.length)
    if gone >= 9007199254740992 then out_of_it = out_of_it - 2 end
    level = math.max(level - math.max(out_of_it, 0), 0)
    if not settling then content = content - math.ceil(second) end
  end
  mine = math.max(mine or told, told)
  -- Whoever tells first after a loss may know less than those who come after.
  it.changed = back or have > mine or content > (level or 0)
  level = math.max(level or 0, content)
  if have > mine then
    level = level + (have - mine) * it.parts
    mine = have
  end
  it.mine, it.level = math.min(mine, MOST), math.min(level, 4503599627370495)
  return it
end
local function keep(it, ttl)
  local round = math.floor(now / 3600000)
  if it.round and it.round ~= round then redis.call('DEL', it.name) end
  redis.call('HSET', it.name, node, text(it.mine), 'c', text(it.level), 'a', text(now), 'r', text(round))
  redis.call('PEXPIRE', it.name, text(math.min(math.ceil(it.level * it.length / (it.size * it.parts)) + ttl, MOST)))
end

while place <= #KEYS do
  local name, have, want, back, limit, ttl, form = key(), take(), take(), take(), take(), take(), take()
  if form == 2 then
    local it = bucket(name, have)
    if it.changed then keep(it, ttl) end
    add(it.mine)
    add(it.level)
    add(0)
  else
    local others, counts
    if form == 1 then others, counts = former() end
    local mine, total = read(name)
    local before = mine
    if mine < have then
      total = total + have - mine
      mine = have
    end
    if back > 0 then
      if mine == have then
        mine = mine - back
        total = total - back
      end
    elseif not settling then
      local more = math.min(want - (mine - have), limit - total - (counts or 0))
      if more > 0 then
        mine = mine + more
        total = total + more
      end
    end
    if mine ~= before then write(name, mine, total, text(ttl)) end
    local nodes = 0
    if want > 0 then nodes = math.max(redis.call('HLEN', name) - 1, 1) end
    add(mine)
    add(total)
    add(nodes)
    if others then
      add(others)
      add(counts)
    end
  end
end
out[2] = replaced
return out

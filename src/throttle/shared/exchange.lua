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
    local it = window(name, have)
    if back > 0 then
      if it.mine == have then
        it.mine, it.total, it.changed = it.mine - back, it.total - back, true
      end
    elseif not settling then
      local more = math.min(want - (it.mine - have), limit - it.total - (counts or 0))
      if more > 0 then
        it.mine, it.total, it.changed = it.mine + more, it.total + more, true
      end
    end
    if it.changed then write(it, ttl) end
    local nodes = 0
    if want > 0 then nodes = math.max(redis.call('HLEN', name) - 2, 1) end
    add(it.mine)
    add(it.total)
    add(nodes)
    add(born(it))
    if others then
      add(others)
      add(counts)
    end
  end
end
return answer()

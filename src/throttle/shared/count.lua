out[5] = 0
if settling then return answer() end
local all = {}
while place <= #KEYS do
  local name, have, limit, amount, ttl, form = key(), take(), take(), take(), take(), take()
  local it
  if form == 2 then
    it = bucket(name, have)
    it.full = it.level + it.parts > it.size * it.parts
  else
    local others, counts
    if form == 1 then others, counts = former() end
    it = window(name, have)
    it.others, it.counts = others, counts
    it.full = it.total + (counts or 0) >= limit
  end
  it.amount, it.ttl = amount, ttl
  all[#all + 1] = it
  if out[5] == 0 and limit >= 0 and it.full then out[5] = #all end
end
if settling then
  -- One of them was lost: what the others are told is for the next time.
  out[5] = 0
  return answer()
end
for _, it in ipairs(all) do
  if out[5] == 0 and it.level then
    -- What is told only rises: what is given back was told once.
    it.mine = math.min(it.mine + math.max(it.amount, 0), MOST)
    it.level = math.max(math.min(it.level + it.amount * it.parts, 4503599627370495), 0)
    keep(it, it.ttl)
  elseif out[5] == 0 then
    local amount = math.max(it.amount, -it.mine)
    it.mine, it.total = it.mine + amount, it.total + amount
    write(it, it.ttl)
  elseif it.changed then
    -- Refused, perhaps by another limit: what was told beside it counts as told from here on.
    if it.level then keep(it, it.ttl) else write(it, it.ttl) end
  end
  add(it.mine)
  add(it.level or it.total)
  if not it.level then add(born(it)) end
  if it.others then
    add(it.others)
    add(it.counts)
  end
end
return answer()

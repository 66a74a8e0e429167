-- Arguments: a file with a token a line, and how many of them went before. Without them all requests are the same.
function init(args)
  if not args[1] then return end
  local requests, at = {}, tonumber(args[2])
  for token in io.lines(args[1]) do
    wrk.headers["Authorization"] = "Bearer " .. token
    requests[#requests + 1] = wrk.format()
  end
  function request()
    at = at % #requests + 1
    return requests[at]
  end
end

-- One line of numbers: requests, microseconds they took; p50, p99, p99.9 in microseconds; answers of 400 and more;
-- failures of sockets.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("peers %d %d %.0f %.0f %.0f %d %d\n",
    summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end

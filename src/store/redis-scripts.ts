/**
 * The counters of `src/limits` once more, in Lua, where Redis runs them as one step. The arithmetic is that of the
 * TypeScript, operation by operation: both use doubles, so `test/contracts/store.ts` can ask for equal results.
 *
 * A subject is a hash, its counters are the fields. A field holds the limit it was last counted against (so that usage can be
 * told without knowing the configuration), until when its key is kept for it, and the counter's state, packed:
 *
 *     t  limit burst kept tokens at slot out before       token bucket
 *     s  limit burst kept segment total (count last)[0..16]   sliding window
 *     f  limit burst kept window used                     fixed window
 *
 * Tokens taken as a lease are counted when they are taken, so that all nodes together never exceed a limit. For windows that
 * is all there is to it, as a lease ends with the segment or window it was taken in, and counts until it does. A bucket could be refilled while some
 * of its tokens are still out, and then hold `burst` once more. So what is `out` takes up room in the bucket: a lease ends
 * with the `slot` in which it was taken, and can be given back until the end of the next one, when it is `before`.
 */
const COUNTERS = `
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local SEGMENTS, SLOT = 16, 1000
local EMPTY = string.rep('\\0', 12 * (SEGMENTS + 1))
local HEAD = 5 * 8

-- Longest lease, in milliseconds.
local LEASE = 1000

-- A key outlives what it holds by as much at least, in milliseconds, so that it need not be told so at every request.
local GRACE = 5000

local function set_limit(c, limit, burst)
  c.changed = c.limit ~= limit or c.burst ~= burst
  c.limit, c.burst = limit, burst
  c.capacity = c.kind == 't' and burst or limit
  c.rate = limit / (c.window_ms / 1000)
end

local function clear(c, now)
  if c.kind == 't' then
    c.tokens, c.at, c.slot, c.out, c.before = math.huge, now, 0, 0, 0
  elseif c.kind == 's' then
    c.segment, c.total, c.ring = floor(now / c.segment_ms), 0, EMPTY
  else
    c.window, c.used = -1, 0
  end
end

-- The counter in 'packed', or a new one. One that is more than a window ahead of the clock was made by a clock that has
-- been set back since; waiting for that time to come again would close the door for as long.
local function open(kind, window_ms, packed, now)
  local c = { kind = kind, window_ms = window_ms, segment_ms = window_ms / SEGMENTS, kept = 0 }
  if not packed then
    clear(c, now)
    return c
  end
  c.known = true
  local latest
  if kind == 't' then
    c.limit, c.burst, c.kept, c.tokens, c.at, c.slot, c.out, c.before = struct.unpack('<dddddddd', packed)
    latest = c.at
  elseif kind == 's' then
    c.limit, c.burst, c.kept, c.segment, c.total = struct.unpack('<ddddd', packed)
    c.ring = string.sub(packed, HEAD + 1)
    latest = c.segment * c.segment_ms
  else
    c.limit, c.burst, c.kept, c.window, c.used = struct.unpack('<ddddd', packed)
    latest = c.window * window_ms
  end
  if latest > now + window_ms then clear(c, now) end
  return c
end

local function pack(c)
  if c.kind == 't' then
    return struct.pack('<dddddddd', c.limit, c.burst, c.kept, c.tokens, c.at, c.slot, c.out, c.before)
  end
  if c.kind == 's' then return struct.pack('<ddddd', c.limit, c.burst, c.kept, c.segment, c.total) .. c.ring end
  return struct.pack('<ddddd', c.limit, c.burst, c.kept, c.window, c.used)
end

-- How many requests there are in a segment, and when the last of them came.
local function count_in(c, segment)
  local n, last = struct.unpack('<I4d', c.ring, segment % (SEGMENTS + 1) * 12 + 1)
  return n, last
end

local function put_in(c, segment, n, last)
  local at = segment % (SEGMENTS + 1) * 12
  c.total = c.total + n - count_in(c, segment)
  c.ring = string.sub(c.ring, 1, at) .. struct.pack('<I4d', n, last) .. string.sub(c.ring, at + 13)
end

-- Until the requests of a segment are out of the window.
local function freed_ms(c, last, now)
  return last + c.window_ms - now
end

-- Forgets what is out of the window.
local function roll(c, now)
  local segment = floor(now / c.segment_ms)
  local passed = segment - c.segment
  if passed > SEGMENTS then c.total, c.ring = 0, EMPTY else
    for i = 1, passed do
      if count_in(c, c.segment + i) > 0 then put_in(c, c.segment + i, 0, 0) end
    end
  end
  c.segment = max(c.segment, segment)
  local n, last = count_in(c, c.segment - SEGMENTS)
  if n > 0 and freed_ms(c, last, now) <= 0 then put_in(c, c.segment - SEGMENTS, 0, 0) end
end

local function refilled(c, tokens, from, till, out)
  return min(max(0, c.burst - out), tokens + (max(0, till - from) / 1000) * c.rate)
end

-- Tokens in a bucket, how many are out of it since this slot and the one before, and which slot it is.
local function level(c, now)
  local tokens, out, before, slot, from = c.tokens, c.out, c.before, c.slot, c.at
  while out + before > 0 and now >= (slot + 1) * SLOT do
    local ends = (slot + 1) * SLOT
    tokens = refilled(c, tokens, from, ends, out + before)
    from, slot, out, before = max(from, ends), slot + 1, 0, out
  end
  return refilled(c, tokens, from, now, out + before), out, before, slot
end

local function available(c, now)
  if c.kind == 't' then return floor((level(c, now))) end
  if c.kind == 's' then
    roll(c, now)
    return max(0, c.limit - c.total)
  end
  local window = floor(now / c.window_ms)
  if window > c.window then c.window, c.used = window, 0 end
  return max(0, c.limit - c.used)
end

-- 'till': when the last of them comes, if they are not for now.
local function take(c, now, n, till)
  if c.kind == 't' then
    local tokens
    tokens, c.out, c.before, c.slot = level(c, now)
    c.tokens, c.at = tokens - n, max(c.at, now)
  elseif c.kind == 's' then
    local before, last = count_in(c, c.segment)
    put_in(c, c.segment, before + n, max(last, till or now))
  else c.used = max(0, c.used + n) end
end

-- Until so many of the oldest requests are out of a sliding window.
local function until_freed(c, now, requests)
  local freed = 0
  for segment = c.segment - SEGMENTS, c.segment do
    local n, last = count_in(c, segment)
    freed = freed + n
    if freed >= requests and requests > 0 then return freed_ms(c, last, now) end
  end
  return 0
end

local function reset_ms(c, now)
  if c.kind == 't' then return ((c.burst - level(c, now)) / c.rate) * 1000 end
  if c.kind == 's' then return until_freed(c, now, c.total) end
  return c.used == 0 and 0 or (c.window + 1) * c.window_ms - now
end

local function retry_ms(c, now)
  if c.kind == 't' then
    local tokens = level(c, now)
    return tokens >= 1 and 0 or ((1 - tokens) / c.rate) * 1000
  end
  if c.kind == 's' then return c.total < c.limit and 0 or until_freed(c, now, c.total - c.limit + 1) end
  return c.used < c.limit and 0 or reset_ms(c, now)
end

local function used(c, now)
  if c.kind == 't' then return c.burst - available(c, now) end
  return c.kind == 's' and c.total or c.used
end

-- Which segment, window or slot it is, and how long still.
local function period(c, now)
  if c.kind == 's' then return c.segment, (c.segment + 1) * c.segment_ms - now end
  if c.kind == 'f' then return c.window, (c.window + 1) * c.window_ms - now end
  local slot = floor(now / SLOT)
  return slot, (slot + 1) * SLOT - now
end

-- Several counters have a key in common, so its life may only be made longer.
local function save(key, field, c, now)
  local needed = ceil(max(reset_ms(c, now), 0))
  if c.kept >= now + needed then
    redis.call('HSET', key, field, pack(c))
    return
  end
  c.kept = now + needed + GRACE
  redis.call('HSET', key, field, pack(c))
  if redis.call('PTTL', key) < needed + GRACE then redis.call('PEXPIRE', key, needed + GRACE) end
end

local function time(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return t[1] * 1000 + t[2] / 1000
end
`

/**
 * Decides several requests, one after the other, each in all of its limits at once; then hands out leases.
 *
 * KEYS: the subject of each counter. ARGV: the time or '', and `[counters, requests]`: a counter is
 * `[kind, limit, window, burst, name, tokens a second that the node would like to lease]`, a request is a list of counters.
 *
 * Replies the time; five numbers for each request: 1 or 0, the tightest of its limits (from 1), what remains, reset, retry;
 * and five for each lease asked for: which counter, tokens, what remains besides, how long it holds, its period.
 */
export const DECIDE = `${COUNTERS}
-- A node gets an eighth of what is left at most, and goes back to asking when that is next to nothing.
local SHARE, LEAST, SHORTEST = 8, 4, 2

local now = time(ARGV[1])
local counters, decisions, leases = {}, {}, {}

local function append(list, a, b, c, d, e)
  local n = #list
  list[n + 1], list[n + 2], list[n + 3], list[n + 4], list[n + 5] = a, b, c, d, e
end

local function decide(asked)
  local denied, tightest, share, left = false, 1, 2, 0
  for i = 1, #asked do
    local c = counters[asked[i]]
    local free = available(c, now)
    if free < 1 then denied = true end
    local of = (free - 1) / c.capacity
    if of < share then tightest, share, left = i, of, free - 1 end
  end
  if denied then
    local longest = -1
    for i = 1, #asked do
      local c = counters[asked[i]]
      if available(c, now) < 1 and retry_ms(c, now) > longest then tightest, longest = i, retry_ms(c, now) end
    end
    append(decisions, 0, tightest, 0, ceil(reset_ms(counters[asked[tightest]], now)), ceil(longest))
    return
  end
  for i = 1, #asked do
    local c = counters[asked[i]]
    take(c, now, 1)
    c.dirty = true
  end
  local c = counters[asked[tightest]]
  append(decisions, 1, tightest, left, ceil(reset_ms(c, now)), ceil(retry_ms(c, now)))
end

local function lease(i, c)
  local left = available(c, now)
  local id, ends = period(c, now)
  local tokens = min(ceil(c.wanted * min(ends, LEASE) / 1000), floor(left / SHARE))
  if tokens < LEAST or ends < SHORTEST then return append(leases, i, 0, left, 0, id) end
  take(c, now, tokens, now + min(ends, LEASE))
  c.dirty = true
  if c.kind == 't' then
    if c.out + c.before == 0 then c.slot = id end
    c.out, id = c.out + tokens, c.slot
  end
  append(leases, i, tokens, left - tokens, floor(ends), id)
end

local plan = cjson.decode(ARGV[2])
for i, key in ipairs(KEYS) do
  local kind, limit, window, burst, name, wanted = unpack(plan[1][i])
  local c = open(kind, window, redis.call('HGET', key, name), now)
  set_limit(c, limit, burst)
  -- Who looks at the usage wants to see the limit that holds now, even if it lets nothing pass.
  c.name, c.wanted, c.dirty = name, wanted, c.known and c.changed
  counters[i] = c
end
for _, asked in ipairs(plan[2]) do decide(asked) end
for i, c in ipairs(counters) do
  if c.wanted > 0 then lease(i, c) end
  if c.dirty then save(KEYS[i], c.name, c, now) end
end
return { floor(now), decisions, leases }
`

/**
 * Takes back what is left of leases. KEYS: the subjects. ARGV: the time or '', then for each subject
 * `[kind, window, counter, period of the lease, tokens]`. What belongs to a period that nobody counts any more is nobody's.
 */
export const GIVE_BACK = `${COUNTERS}
local now = time(ARGV[1])
for i, key in ipairs(KEYS) do
  local kind, window, field, id, tokens = unpack(cjson.decode(ARGV[i + 1]))
  local packed = redis.call('HGET', key, field)
  if packed then
    local c = open(kind, window, packed, now)
    set_limit(c, c.limit, c.burst)
    available(c, now)
    if kind == 't' then
      take(c, now, 0)
      local since = id == c.slot and 'out' or id == c.slot - 1 and 'before'
      if since then
        local back = min(tokens, c[since])
        c[since], c.tokens = c[since] - back, c.tokens + back
      end
    elseif kind == 'f' then
      if c.window == id then take(c, now, -tokens) end
    elseif id <= c.segment and id >= c.segment - SEGMENTS then
      local n, last = count_in(c, id)
      put_in(c, id, max(0, n - tokens), last)
    end
    save(key, field, c, now)
  end
end
return #KEYS
`

/**
 * How the counters of a subject stand. KEYS: the subject. ARGV: the time or ''. Replies for each counter its name, limit,
 * window, what is used, what remains and the reset; what may be a fraction as text.
 */
export const USAGE = `${COUNTERS}
local now = time(ARGV[1])
local fields = redis.call('HGETALL', KEYS[1])
local replies = {}
for i = 1, #fields, 2 do
  local window, kind = string.match(fields[i], '|([%d%.e+-]+)(%a)$')
  if window then
    local c = open(kind, tonumber(window), fields[i + 1], now)
    set_limit(c, c.limit, c.burst)
    local free = available(c, now)
    replies[#replies + 1] = {
      fields[i], string.format('%.17g', c.limit), window, used(c, now), free, ceil(reset_ms(c, now))
    }
  end
end
return replies
`

/**
 * Says that a node is there. KEYS: the list of nodes. ARGV: the node, and for how many milliseconds that is so, or 0 to
 * leave. Replies the time, and how many nodes there are.
 */
export const BEAT = `
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local lasts = tonumber(ARGV[2])
if lasts == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) else
  redis.call('ZADD', KEYS[1], now + lasts, ARGV[1])
  redis.call('PEXPIRE', KEYS[1], lasts)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return { string.format('%.3f', now), redis.call('ZCARD', KEYS[1]) }
`

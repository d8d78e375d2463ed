import t from 'tap'
import type { Exchange } from '../../../src/proxy/exchange.ts'
import { jsonLine, prettyLine, quote, seconds } from '../../../src/telemetry/access-log.ts'

const outcome = { now: Date.UTC(2026, 10, 20, 12, 1, 7), durationMs: 6.24, status: 200, generation: '7f3a' }

function exchange(fields: Partial<Record<keyof Exchange, unknown>> = {}): Exchange {
  const plain = {
    id: 'req_x',
    method: 'GET',
    path: '/users/7',
    client: '192.0.2.1',
    peer: { batch: '' },
    fallback: '',
    attempts: 0,
    upstreamMs: -1,
    bytesIn: 0,
    bytesOut: 1234,
    aborted: false,
    errorCode: '',
    reason: ''
  }
  return { ...plain, ...fields } as unknown as Exchange
}

t.test(
  'OBS-15 OBS-16 a request is one JSON line with its id, status and duration in seconds with three decimals',
  async t => {
    const line = jsonLine(exchange({ attempts: 1, upstreamMs: 1.27, instance: 'a' }), outcome)
    t.ok(line.endsWith('}\n'))
    t.equal(line.indexOf('\n'), line.length - 1)
    t.match(line, '"duration":0.006,')
    t.match(JSON.parse(line), {
      level: 30,
      request_id: 'req_x',
      method: 'GET',
      path: '/users/7',
      status_code: 200,
      client: '192.0.2.1',
      instance: 'a',
      upstream_ms: 1.3,
      bytes_out: 1234
    })
  }
)

t.test('a person sees how long the gateway itself has taken; of a WebSocket nobody could say', async t => {
  const slow = { ...outcome, durationMs: 1004 }
  t.match(prettyLine(exchange({ upstreamMs: 4.8 }), slow), '1004 ms (gateway 999.2)')
  t.notMatch(prettyLine(exchange({ upstreamMs: 4.8, tunnelled: true }), slow), 'gateway')
})

t.test('H-125 what clients send cannot start a line, colour a terminal or fill the log', async t => {
  const hostile = [
    '/a"b',
    '/\\',
    '/\r\n{"level":60}',
    '/\u001b[31mred',
    '/\u2028x',
    '/\u009b31m',
    '/\x7f',
    'x'.repeat(1_000_000)
  ]
  for (const path of hostile) {
    const line = jsonLine(exchange({ path, reason: path }), outcome)
    t.equal(line.split('\n').length, 2)
    t.notOk(/[\x00-\x1f\x7f-\x9f\u2028]/.test(line.slice(0, -1)))
    t.ok(line.length < 5000)
    t.ok(JSON.parse(line).path.startsWith(path.slice(0, 100)))
    t.notOk(/[\x00-\x09\x0b-\x1a\x1c-\x1f\x7f-\x9f]/.test(prettyLine(exchange({ path, reason: path }), outcome)))
  }
})

t.test('5xx are errors, everything else is for information', async t => {
  t.equal(JSON.parse(jsonLine(exchange(), { ...outcome, status: 503 })).level, 50)
  t.equal(JSON.parse(jsonLine(exchange(), { ...outcome, status: 429 })).level, 30)
})

t.test('a line for people says what, who, where and how long', async t => {
  const route = { target: { service: { name: 'users' } } }
  const line = prettyLine(exchange({ route, consumer: { id: 'alice' }, upstreamMs: 5.8 }), outcome).replace(
    /\u001b\[\d+m/g,
    ''
  )
  t.match(line, /\d\d:01:07 200 GET {2}\/users\/7 +alice +users +6\.2 ms \(gateway 0\.4\) 1\.2 kB\n/)
  const refused = prettyLine(exchange({ reason: 'rate limit user 60/minute', errorCode: 'rate_limit_exceeded' }), {
    ...outcome,
    status: 429
  })
  t.match(refused, /429.*rate limit user 60\/minute/)
})

t.test('durations and strings come out as their slower library functions write them', async t => {
  for (const ms of [0, 0.4, 0.6, 999.4, 999.6, 1000, 1234.5, 61_000])
    t.equal(seconds(ms), (Math.round(ms) / 1000).toFixed(3))
  for (const text of ['plain', 'with "quotes"', 'back\\slash', 'ümlaut', '']) t.equal(JSON.parse(quote(text)), text)
})

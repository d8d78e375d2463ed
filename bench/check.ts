import http, { type IncomingHttpHeaders } from 'node:http'
import { type Contender, ORIGIN, PATH } from './contenders/contender.ts'
import { token } from './tokens.ts'

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** What `helmet()` sets. */
const SECURITY = [
  'content-security-policy',
  'cross-origin-opener-policy',
  'cross-origin-resource-policy',
  'origin-agent-cluster',
  'referrer-policy',
  'strict-transport-security',
  'x-content-type-options',
  'x-dns-prefetch-control',
  'x-download-options',
  'x-frame-options',
  'x-permitted-cross-domain-policies',
  'x-xss-protection'
]

/** The fields that every request of a measurement carries. */
export function requestFields(credential = token()): Record<string, string> {
  return { Authorization: `Bearer ${credential}`, Origin: ORIGIN, Accept: '*/*' }
}

/**
 * Whether a contender does what it is measured for: a fast wrong answer is worth nothing.
 * @param body what the service answers
 * @throws {Error} with what is wrong
 */
export async function check({ policies, lacks = [] }: Contender, port: number, body: string): Promise<void> {
  const good = await ask(port, PATH, requestFields())
  expect(good.status === 200, `status ${good.status} for a good request: ${good.body.slice(0, 200)}`)
  expect(good.body === body, 'the answer is not the service’s')
  if (policies === 'none') return

  const { headers } = good
  expect(headers['x-request-id'] !== undefined, 'no request id')
  expect(headers['access-control-allow-origin'] === ORIGIN, 'no CORS field')
  const missing = SECURITY.filter(name => headers[name] === undefined)
  expect(missing.length === 0, `no ${missing.join(', ')}`)
  expect(left(headers, 'limit') > 0, 'no field with the limit')
  if (!lacks.includes('remaining')) {
    const again = await ask(port, PATH, requestFields())
    expect(left(again.headers, 'remaining') < left(headers, 'remaining'), 'requests are not counted')
  }
  const bad = {
    'a forged token': { ...requestFields(), Authorization: `Bearer ${token().slice(0, -4)}AAAA` },
    'an expired token': requestFields(token('user-1', -60)),
    'no token': { Origin: ORIGIN }
  }
  for (const [what, fields] of Object.entries(bad)) {
    const { status } = await ask(port, PATH, fields)
    expect(status === 401, `status ${status} for ${what}`)
  }
  if (lacks.includes('metrics')) return
  const { body: metrics } = await ask(port, '/metrics', {})
  expect(/^http_request_duration_seconds_count\{.*200.*\} [1-9]/m.test(metrics), 'requests are not in the metrics')
}

function left(headers: IncomingHttpHeaders, what: 'limit' | 'remaining'): number {
  return Number(headers[`ratelimit-${what}`] ?? headers[`x-ratelimit-${what}`])
}

function expect(so: boolean, otherwise: string): void {
  if (!so) throw new Error(otherwise)
}

/** One request on a connection of its own. */
function ask(port: number, path: string, headers: Readonly<Record<string, string>>): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.get({ host: '127.0.0.1', port, path, headers, agent: false, timeout: 10_000 }, response => {
      let body = ''
      response.setEncoding('utf8')
      response.on('data', chunk => {
        body += chunk
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }))
      response.on('error', reject)
    })
    request.on('timeout', () => request.destroy(new Error('no answer within 10 s')))
    request.on('error', reject)
  })
}

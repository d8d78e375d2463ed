import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import t, { type Test } from 'tap'
import { PublishedKeys } from '../../src/identity/published-keys.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { FakeClock } from '../support/clock.ts'
import { type Answer, startGateway, type TestGateway } from '../support/gateway.ts'
import { type KeyServer, startKeyServer } from '../support/key-server.ts'
import { signedToken } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

interface Pair {
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

const rsa = (): Pair => generateKeyPairSync('rsa', { modulusLength: 2048 })
const ec = (): Pair => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const first = ec()
const second = ec()
const ISSUER = 'https://idp.example.com'
const INTERVAL_MS = 10_000
const MAX_AGE_MS = 600_000

interface Started extends TestGateway {
  readonly clock: FakeClock
  /** Changes how the configuration reads, but not the issuer. */
  reloadWith(more: object): Promise<void>
  /** A request with a token of `pair`, as `kid`. */
  ask(pair: Pair, kid: string | undefined, claims?: object, algorithm?: string): Promise<Answer>
  reason(answer: Answer): Promise<unknown>
}

async function start(t: Test, keys: KeyServer, settings: object = {}): Promise<Started> {
  const clock = new FakeClock(Date.now())
  const upstream = await startUpstream(t)
  const document = (more: object): object => ({
    services: { orders: { url: upstream.url } },
    routes: [{ path: '/**', service: 'orders' }],
    identity: {
      issuers: [{ issuer: ISSUER, jwks_url: keys.url, jwks_interval: '10s', jwks_max_age: '10m', ...settings }]
    },
    ...more
  })
  const gateway = await startGateway(t, document({}), { clock })
  const ask: Started['ask'] = ({ privateKey }, kid, claims = {}, algorithm = 'ES256') =>
    gateway.call('/x', {
      token: signedToken(privateKey, algorithm, { iss: ISSUER, ...claims }, kid === undefined ? {} : { kid })
    })
  const reason: Started['reason'] = async ({ headers }) =>
    (await gateway.line({ request_id: headers['x-request-id'] as string })).reason
  const reloadWith: Started['reloadWith'] = async more => {
    gateway.configure(document(more))
    await gateway.gateway.reload()
  }
  return { ...gateway, clock, ask, reason, reloadWith }
}

t.test('C-02 IDN-12 keys are taken from where the issuer publishes them, once', async t => {
  const [a, b, c] = [ec(), rsa(), generateKeyPairSync('ed25519')]
  const keys = await startKeyServer(t, { a: a.publicKey, b: b.publicKey, c: c.publicKey })
  const { ask } = await start(t, keys)
  t.equal((await ask(a, 'a')).status, 200)
  t.equal((await ask(b, 'b', {}, 'RS256')).status, 200)
  t.equal((await ask(b, 'b', {}, 'PS512')).status, 200)
  t.equal((await ask(c, 'c', {}, 'EdDSA')).status, 200)
  t.equal((await ask(a, undefined)).status, 200, 'a token that names no key')
  t.equal((await ask(a, 'b')).status, 401, 'a token that names another’s')
  t.equal(keys.fetches, 1)
})

t.test('H-66 a new key is fetched when a token names it, and the old one is forgotten when it is gone', async t => {
  const keys = await startKeyServer(t, { 1: first.publicKey })
  const { ask, clock, reason } = await start(t, keys)
  t.equal((await ask(first, '1')).status, 200)
  keys.publish({ 2: second.publicKey })
  const early = await ask(second, '2')
  t.equal(early.status, 401, 'not before the interval is over')
  t.equal(await reason(early), 'unknown_key')
  t.equal(keys.fetches, 1)
  clock.advance(INTERVAL_MS)
  t.equal((await ask(second, '2')).status, 200)
  t.equal(keys.fetches, 2)
  const gone = await ask(first, '1')
  t.equal(gone.status, 401)
  t.equal(await reason(gone), 'unknown_key')
})

t.test('H-58 a token that is remembered is checked again when the keys change, also under the same name', async t => {
  const keys = await startKeyServer(t, { 1: first.publicKey })
  const { call, clock, ask, reason } = await start(t, keys)
  const exp = clock.now() / 1000 + MAX_AGE_MS
  const remembered = signedToken(first.privateKey, 'ES256', { iss: ISSUER, exp }, { kid: '1' })
  for (let i = 0; i < 3; i++) t.equal((await call('/x', { token: remembered })).status, 200)
  keys.publish({ 1: second.publicKey })
  clock.advance(MAX_AGE_MS)
  t.equal((await call('/x', { token: remembered })).status, 200, 'the one that notices does not wait')
  await until(async () => (await call('/x', { token: remembered })).status === 401)
  t.equal(keys.fetches, 2)
  t.equal(await reason(await call('/x', { token: remembered })), 'wrong_signature')
  t.equal((await ask(second, '1', { exp })).status, 200)
})

t.test('H-66 tokens that name keys that nobody has cause one fetch per interval, however many they are', async t => {
  const keys = await startKeyServer(t, { 1: first.publicKey })
  const { ask, clock } = await start(t, keys)
  t.equal((await ask(first, '1')).status, 200)
  for (let round = 0; round < 3; round++) {
    clock.advance(INTERVAL_MS)
    const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => ask(second, `${round}-${i}`)))
    t.same(new Set(answers.map(answer => answer.status)), new Set([401]))
    t.equal(keys.fetches, round + 2)
    for (let i = 0; i < 20; i++) await ask(second, `again-${round}-${i}`)
    t.equal(keys.fetches, round + 2)
  }
  clock.advance(INTERVAL_MS)
  await Promise.all(Array.from({ length: 50 }, (_, i) => ask(second, '1', { iss: `https://${i}.example.com` })))
  t.equal(keys.fetches, 4, 'tokens of issuers that nobody knows cause none')
  t.equal((await ask(first, '1')).status, 200)
})

t.test('H-66 whatever is wrong where the keys are, the last good ones stay, and it shows', async t => {
  const keys = await startKeyServer(t, { 1: first.publicKey })
  const elsewhere = await startKeyServer(t, { 2: second.publicKey })
  const { ask, clock, call, line } = await start(t, keys)
  t.equal((await ask(first, '1')).status, 200)
  const troubles: [how: Parameters<KeyServer['answer']>[0], error: RegExp][] = [
    [response => response.writeHead(500).end('x'.repeat(1000)), /answered 500/],
    [response => response.writeHead(404).end(), /answered 404/],
    [response => response.writeHead(204).end(), /answered 204/],
    [response => response.writeHead(302, { location: elsewhere.url }).end(), /answered 302/],
    [
      response => response.writeHead(307, { location: 'http://169.254.169.254/latest/meta-data' }).end(),
      /answered 307/
    ],
    [response => response.end('{"keys":['), /is no JSON/],
    [response => response.end('<!doctype html>'), /is no JSON/],
    [response => response.end('{"keys":[]}'), /holds no usable key/],
    [response => response.end('null'), /is no JWK set/],
    [response => response.end(`{"keys":[],"x":"${'x'.repeat(10_000_000)}"}`), /is larger than 1048576 bytes/],
    [response => response.socket?.destroy(), /./]
  ]
  for (const [i, [how, error]] of troubles.entries()) {
    keys.answer(how)
    clock.advance(INTERVAL_MS)
    t.equal((await ask(second, '2')).status, 401)
    t.equal((await ask(first, '1', { jti: String(i) })).status, 200, String(error))
    t.equal(keys.fetches, i + 2)
    const { dependencies } = (await call('/health/dependencies')).json
    t.equal(dependencies[`keys of ${ISSUER}`].status, 'down')
    t.notMatch(JSON.stringify(dependencies), /127\.0\.0\.1|answered|JSON/, 'why is for the log')
  }
  t.match(await line({ msg: 'keys of an issuer cannot be fetched; the last good ones stay' }), {
    level: 40,
    issuer: ISSUER,
    error: 'answered 500'
  })
  t.equal(elsewhere.fetches, 0)
  await keys.crash()
  clock.advance(INTERVAL_MS)
  t.equal((await ask(second, '2')).status, 401)
  t.equal((await ask(first, '1', { jti: 'crash' })).status, 200)
  await keys.revive()
  keys.publish({ 1: first.publicKey, 2: second.publicKey })
  clock.advance(INTERVAL_MS)
  t.equal((await ask(second, '2')).status, 200)
  const { dependencies } = (await call('/health/dependencies')).json
  t.match(dependencies[`keys of ${ISSUER}`], { status: 'ok', fetched_at: /^\d{4}-/ })
})

t.test(
  'H-66 while the keys have never been fetched nobody is let in, and nobody is told that his token is bad',
  async t => {
    const keys = await startKeyServer(t, { 1: first.publicKey })
    await keys.crash()
    const { ask, clock, reason, line } = await start(t, keys)
    const refused = await ask(first, '1')
    t.equal(refused.status, 503)
    t.equal(refused.json.error.code, 'service_unavailable')
    t.match(refused.headers['retry-after'], /^\d+$/)
    t.equal(refused.headers['www-authenticate'], undefined)
    t.equal(await reason(refused), 'keys_unavailable')
    await line({ msg: 'keys of an issuer cannot be fetched; its tokens are refused until they can' })
    await keys.revive()
    clock.advance(INTERVAL_MS)
    t.equal((await ask(first, '1')).status, 200)
  }
)

t.test('H-66 keys that hang hold nobody up whose key is known, and the gateway stops all the same', async t => {
  const keys = await startKeyServer(t, { 1: first.publicKey })
  const { ask, clock, gateway } = await start(t, keys)
  t.equal((await ask(first, '1')).status, 200)
  let hanging = false
  keys.answer(() => {
    hanging = true
  })
  clock.advance(INTERVAL_MS)
  const waiting = ask(second, '2')
  await until(() => hanging)
  for (let i = 0; i < 5; i++) t.equal((await ask(first, '1', { jti: String(i) })).status, 200)
  t.equal(keys.fetches, 2)
  const closed = gateway.close(50)
  t.match(await waiting.catch(error => error), Error, 'who waited is cut off when the time is up')
  await closed
})

t.test('H-66 a fetch is given up when it takes too long', async t => {
  const keys = await startKeyServer(t, { 1: first.publicKey })
  const outcomes: unknown[] = []
  const options = { url: keys.url, intervalMs: 0, maxAgeMs: MAX_AGE_MS, algorithms: [], patienceMs: 100 }
  const published = new PublishedKeys(options, systemClock, outcome => outcomes.push(outcome))
  await published.refresh()
  t.equal(published.find('1').length, 1)
  keys.answer(() => {})
  await published.refresh()
  keys.answer(response => response.write('{"keys":['))
  await published.refresh()
  t.equal(published.find('1').length, 1)
  t.equal(published.version, 1)
  t.match(outcomes, [{ keys: 1, changed: true }, { error: /aborted|timeout/i }, { error: /aborted|timeout/i }])
  published.close()
})

t.test('H-66 keys once fetched outlive a change of the configuration while nobody publishes them', async t => {
  const keys = await startKeyServer(t, { 1: first.publicKey })
  const { ask, gateway, reloadWith } = await start(t, keys)
  t.equal((await ask(first, '1')).status, 200)
  await keys.crash()
  await reloadWith({ gateway: { name: 'another' } })
  t.equal((await ask(first, '1', { jti: 'a' })).status, 200)
  const issuers = [
    { issuer: ISSUER, jwks_url: keys.url, jwks_interval: '10s', jwks_max_age: '10m' },
    { issuer: 'https://another.example.com', secret: 'a secret of the tests, long enough to be one' }
  ]
  await reloadWith({ identity: { issuers, api_keys: [{ id: 'ci', key: 'sak_test_abcdefghijklmnopqrstuvwxyz' }] } })
  t.equal((await ask(first, '1', { jti: 'b' })).status, 200)
  await until(() => gateway.runtime.leases.keys.filter(key => key.startsWith('keys:')).length === 1)
  await reloadWith({ identity: {} })
  await until(() => gateway.runtime.leases.keys.filter(key => key.startsWith('keys:')).length === 0)
  t.equal((await ask(first, '1', { jti: 'c' })).status, 401, 'nor does it outlive its issuer')
})

t.test('H-62 a token that names no key is tried with a few, however many there are', async t => {
  const pairs = Array.from({ length: 8 }, ec)
  const keys = await startKeyServer(t, Object.fromEntries(pairs.map(({ publicKey }, i) => [`k${i}`, publicKey])))
  const { ask, gateway } = await start(t, keys)
  t.equal((await ask(pairs[0] as Pair, undefined)).status, 200)
  const { jwt } = gateway.server.current.app
  const { verify } = jwt
  let checks = 0
  jwt.verify = ((...args: Parameters<typeof verify>) => {
    checks++
    return verify(...args)
  }) as typeof verify
  t.equal((await ask(ec(), undefined)).status, 401)
  t.equal(checks, 4)
  t.equal((await ask(pairs[7] as Pair, 'k7')).status, 200, 'a token that names its key is not held to that')
})

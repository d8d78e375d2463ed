import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import t from 'tap'
import { GatewayError } from '../../../src/errors.ts'
import { ApiKeyError, ApiKeys, hashApiKey, makeApiKey } from '../../../src/identity/api-key.ts'
import type { Consumer } from '../../../src/identity/consumer.ts'
import type { IdentitySettings } from '../../../src/identity/settings.ts'
import { FakeClock } from '../../support/clock.ts'

type Settings = IdentitySettings['api_keys'][number]
const KEY = 'sak_test_abcdefghijklmnopqrstuvwxyz'
const setting = (more: { [K in keyof Settings]?: Settings[K] | undefined } = {}): Settings =>
  ({ id: 'ci', key: KEY, roles: [], permissions: [], ...more }) as Settings

function refusal(keys: ApiKeys, key: string, clock = new FakeClock()): string | undefined {
  try {
    keys.authenticate(key, clock)
    return undefined
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error
    return error.reason
  }
}

function objection(...keys: Settings[]): [path: unknown, message: string] | undefined {
  try {
    new ApiKeys(keys)
    return undefined
  } catch (error) {
    if (!(error instanceof ApiKeyError)) throw error
    return [error.path, error.message]
  }
}

t.test('IDN-26 a key from the configuration is its holder, with roles, permissions and tier', async t => {
  const keys = new ApiKeys([setting({ name: 'Builds', roles: ['ci'], permissions: ['orders.read'], tier: 'pro' })])
  const consumer = keys.authenticate(KEY, new FakeClock()) as Consumer
  t.match(consumer, { key: 'key:ci', kind: 'api_key', id: 'ci', name: 'Builds', tier: 'pro', credential: 'api_key' })
  t.same([consumer.roles, consumer.permissions], [['ci'], ['orders.read']])
  t.equal(keys.authenticate(KEY, new FakeClock()), consumer, 'the same holder each time')
  const hashed = new ApiKeys([setting({ key: undefined, hash: hashApiKey(KEY).toString('hex') })])
  t.match(hashed.authenticate(KEY, new FakeClock()), { key: 'key:ci' })
})

t.test('H-63 nothing but the key itself is the key', async t => {
  const keys = new ApiKeys([setting()])
  const wrong = [
    '',
    ' ',
    KEY.slice(0, -1),
    `${KEY}x`,
    ` ${KEY}`,
    `${KEY} `,
    KEY.toUpperCase(),
    KEY.replace('a', '\u0430'),
    KEY.replace('a', 'ａ'),
    `${KEY}\0`,
    hashApiKey(KEY).toString('hex'),
    '__proto__',
    'constructor',
    '0'.repeat(64)
  ]
  for (const key of wrong) t.equal(refusal(keys, key), 'unknown_api_key', JSON.stringify(key))
  t.equal(refusal(new ApiKeys([]), ''), 'unknown_api_key')
  t.equal(refusal(keys, KEY), undefined)
})

t.test('H-64 whatever the key, one hash is made and one comparison in constant time', async t => {
  const compared: [number, number][] = []
  const { timingSafeEqual } = crypto
  t.teardown(() => {
    crypto.timingSafeEqual = timingSafeEqual
    syncBuiltinESMExports()
  })
  crypto.timingSafeEqual = (a, b) => {
    compared.push([a.byteLength, b.byteLength])
    return timingSafeEqual(a, b)
  }
  syncBuiltinESMExports()
  const keys = new ApiKeys([setting()])
  for (const key of [KEY, `${KEY.slice(0, -1)}!`, 'x', '']) refusal(keys, key)
  t.same(compared, [
    [32, 32],
    [32, 32],
    [32, 32],
    [32, 32]
  ])
})

t.test('H-121 neither the key nor its hash is where somebody might print it', async t => {
  const keys = new ApiKeys([setting()])
  const shown = [
    JSON.stringify(keys),
    JSON.stringify(keys.authenticate(KEY, new FakeClock())),
    Object.keys(keys).join()
  ].join()
  t.notMatch(shown, KEY)
  t.notMatch(shown, hashApiKey(KEY).toString('hex'))
})

t.test('IDN-24 a key ends when it says', async t => {
  const clock = new FakeClock(Date.parse('2026-05-01T12:00:00Z'))
  const keys = new ApiKeys([setting({ expires_at: '2026-05-01T14:00:00.500+02:00' })])
  t.equal(refusal(keys, KEY, clock), undefined)
  clock.advance(499)
  t.equal(refusal(keys, KEY, clock), undefined)
  clock.advance(1)
  t.equal(refusal(keys, KEY, clock), 'expired_api_key')
})

t.test('IDN-26 a list that cannot be meant so is refused, and says where', async t => {
  const hash = hashApiKey(KEY).toString('hex')
  t.same(objection(setting({ key: undefined })), [[0], 'needs "key" or "hash"'])
  t.same(objection(setting({ hash })), [[0, 'hash'], 'stands beside "key"; keep one of them'])
  for (const key of ['', ' ', `${KEY}\n`, 'a b', 'schlüssel'])
    t.match(objection(setting({ key })), [[0, 'key'], /is empty, or holds characters/], JSON.stringify(key))
  t.same(objection(setting(), setting({ key: 'another' })), [[1, 'id'], '"ci" is the id of another key'])
  t.same(objection(setting(), setting({ id: 'cd', key: undefined, hash })), [[1], 'is the same key as "ci"'])
  for (const time of ['soon', '2026-13-01T00:00:00Z', '2030-12-31', '1', '', '2030-12-31T00:00:00'])
    t.match(
      objection(setting({ expires_at: time })),
      [[0, 'expires_at'], /is no RFC 3339 time/],
      `"${time}" would never come`
    )
})

t.test('IDN-23 a new key is 26 letters of chance behind the name of its environment', async t => {
  const prefixes = [
    ['development', 'dev'],
    ['Production', 'prod'],
    ['prod', 'prod'],
    ['staging-eu', 'stagingeu'],
    ['', 'dev'],
    ['x'.repeat(40), 'x'.repeat(16)]
  ] as const
  for (const [environment, name] of prefixes) {
    const { key, prefix, hash } = makeApiKey(environment)
    t.match(key, new RegExp(`^sak_${name}_[a-z2-7]{26}$`))
    t.equal(key.slice(0, `sak_${name}_`.length + 4), prefix, 'four letters tell keys apart')
    t.equal(hash, hashApiKey(key).toString('hex'))
  }
  const letters = Array.from({ length: 2000 }, () => makeApiKey('dev').key.slice(8)).join('')
  t.equal(new Set(letters).size, 32, 'every letter comes up')
  t.equal(new Set(Array.from({ length: 1000 }, () => makeApiKey('dev').key)).size, 1000)
})

import t from 'tap'
import { GatewayError } from '../../../src/errors.ts'
import { type ClaimNames, checkAudience, consumerOf, readTimes } from '../../../src/identity/claims.ts'

const NAMES: ClaimNames = {
  roles: ['roles', 'role'],
  permissions: ['permissions', 'scope'],
  name: ['name', 'preferred_username'],
  tier: ['tier'],
  tenant: ['tenant', 'tenant_id']
}

function reasonOf(act: () => unknown): string | undefined {
  try {
    act()
    return undefined
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error
    return error.reason
  }
}

t.test('H-57 times are numbers, fractions and all', async t => {
  t.same(readTimes({ exp: 100.5, nbf: 50, iat: 40 }, 60_000), { expiresAt: 160_500, notBefore: -10_000 })
  t.same(readTimes({ exp: -1 }, 0), { expiresAt: -1000, notBefore: Number.NEGATIVE_INFINITY })
  t.equal(readTimes({ exp: 1e20 }, 0).expiresAt, 1e23)
  for (const value of ['100', '', null, true, [100], {}, Number.POSITIVE_INFINITY, JSON.parse('1e999')]) {
    t.equal(
      reasonOf(() => readTimes({ exp: value }, 0)),
      'wrong_time',
      `exp ${JSON.stringify(value)}`
    )
    t.equal(
      reasonOf(() => readTimes({ exp: 1, nbf: value }, 0)),
      'wrong_time',
      `nbf ${JSON.stringify(value)}`
    )
    t.equal(
      reasonOf(() => readTimes({ exp: 1, iat: value }, 0)),
      'wrong_time',
      `iat ${JSON.stringify(value)}`
    )
  }
  t.equal(
    reasonOf(() => readTimes({}, 0)),
    'no_expiry'
  )
})

t.test('H-56 an audience is named exactly, or not at all', async t => {
  const wanted = ['api', 'https://api.example.com']
  for (const aud of ['api', ['api'], ['other', 'api'], 'https://api.example.com'])
    t.equal(
      reasonOf(() => checkAudience(aud, wanted)),
      undefined,
      JSON.stringify(aud)
    )
  for (const aud of [
    undefined,
    null,
    '',
    'ap',
    'api2',
    'API',
    ' api',
    'https://api.example.com/',
    [],
    ['other'],
    [['api']],
    ['api', 7],
    { 0: 'api' },
    7,
    true
  ])
    t.equal(
      reasonOf(() => checkAudience(aud, wanted)),
      'wrong_audience',
      JSON.stringify(aud)
    )
  for (const aud of [undefined, 'anything', 7])
    t.equal(
      reasonOf(() => checkAudience(aud, [])),
      undefined
    )
})

t.test('IDN-17 C-03 a consumer is made of the claims', async t => {
  const consumer = consumerOf(
    {
      sub: 'u1',
      name: 'Ann',
      role: 'user',
      roles: ['dev', 'user', '', 7],
      permissions: ['a.b'],
      scope: 'c d  e',
      tier: 'pro'
    },
    NAMES,
    undefined,
    { expiresAt: 7 }
  )
  t.match(consumer, {
    key: 'user:u1',
    kind: 'user',
    id: 'u1',
    name: 'Ann',
    tier: 'pro',
    credential: 'jwt',
    expiresAt: 7
  })
  t.same(consumer.roles, ['dev', 'user'])
  t.same(consumer.permissions, ['a.b', 'c', 'd', 'e'])
  t.ok(Object.isFrozen(consumer) && Object.isFrozen(consumer.roles) && Object.isFrozen(consumer.claims))
})

t.test('C-03 claims may be elsewhere, and names with dots may be names', async t => {
  const names = { ...NAMES, roles: ['realm_access.roles', 'https://example.com/roles'], permissions: ['auth.scp'] }
  const consumer = consumerOf(
    {
      sub: 'u1',
      realm_access: { roles: ['a'] },
      'https://example.com/roles': ['b'],
      roles: ['ignored'],
      auth: { scp: 'x y' }
    },
    names,
    undefined,
    { expiresAt: 7 }
  )
  t.same(consumer.roles, ['a', 'b'])
  t.same(consumer.permissions, ['x', 'y'])
  const hostile = consumerOf(
    JSON.parse('{"sub":"u1","realm_access":[],"__proto__":{"roles":["admin"],"role":"admin"}}'),
    { ...NAMES, roles: ['roles', 'role', 'constructor.name', 'realm_access.length'] },
    undefined,
    { expiresAt: 7 }
  )
  t.same(hostile.roles, [], 'what is inherited is nobody’s claim')
})

t.test('IDN-17 a token without a user may be a client’s', async t => {
  t.match(consumerOf({ client_id: 'batch' }, NAMES, undefined, { expiresAt: 7 }), {
    key: 'client:batch',
    kind: 'client',
    id: 'batch'
  })
  t.match(consumerOf({ azp: 'web' }, NAMES, undefined, { expiresAt: 7 }), { key: 'client:web' })
  for (const payload of [
    {},
    { sub: '' },
    { sub: 7 },
    { sub: null, client_id: 'batch' },
    { sub: ['alice'] },
    { client_id: 7 }
  ])
    t.equal(
      reasonOf(() => consumerOf(payload, NAMES, undefined, { expiresAt: 7 })),
      'no_subject',
      JSON.stringify(payload)
    )
})

t.test('RLM-32 nobody can choose a subject that makes the key of another', async t => {
  const key = (sub: string, issuer?: string): string => consumerOf({ sub }, NAMES, issuer, { expiresAt: 7 }).key
  const keys = [
    key('alice'),
    key('alice', 'https://a'),
    key('https://a|alice'),
    key('https://a%7Calice'),
    key('a|alice', 'https:'),
    key('alice\nuser')
  ]
  t.equal(new Set(keys).size, keys.length)
  t.notMatch(keys.join(), /\n/)
})

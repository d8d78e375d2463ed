import { createHmac, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { FakeClock } from '../support/clock.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { SECRET, signedToken, token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream, type Upstream } from '../support/upstream.ts'

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' })
const p521 = generateKeyPairSync('ec', { namedCurve: 'P-521' })
const ed25519 = generateKeyPairSync('ed25519')

const pem = (key: KeyObject): string => key.export({ type: 'spki', format: 'pem' }) as string
const encode = (value: string | Buffer): string => Buffer.from(value).toString('base64url')
const FAR = 4_000_000_000
const CLAIMS = JSON.stringify({ sub: 'alice', exp: FAR })

/** A token of exactly this text, signed with the secret of the tests. */
function written(
  header: string,
  payload: string | Buffer = CLAIMS,
  secret: string | Buffer = SECRET,
  hash = 'sha256'
): string {
  const input = `${encode(header)}.${encode(payload)}`
  return `${input}.${createHmac(hash, secret).update(input).digest('base64url')}`
}

const HS256 = '{"alg":"HS256","typ":"JWT"}'

interface Started extends TestGateway {
  readonly upstream: Upstream
  /** The status, the code and the logged reason with which a token is answered. */
  verdict(token: string): Promise<[status: number, code: string | undefined, reason: unknown]>
}

async function start(
  t: Test,
  identity: object = {},
  more: { clock?: FakeClock; server?: object } = {}
): Promise<Started> {
  const upstream = await startUpstream(t)
  const { server = {}, ...options } = more
  const gateway = await startGateway(
    t,
    { services: { orders: { url: upstream.url } }, routes: [{ path: '/**', service: 'orders' }], identity, server },
    options
  )
  const verdict: Started['verdict'] = async token => {
    const { status, text, headers } = await gateway.call('/x', { token })
    const { reason } = await gateway.line({ request_id: headers['x-request-id'] as string })
    return [status, status === 200 ? undefined : JSON.parse(text).error.code, reason]
  }
  return { ...gateway, upstream, verdict }
}

const PASSES = [200, undefined, undefined]
const fails = (reason: string): unknown[] => [
  401,
  reason === 'expired' ? 'expired_token' : 'authentication_failed',
  reason
]

t.test('IDN-12 IDN-14 C-02 every algorithm verifies with its own kind of key', async t => {
  const keys: [issuer: string, pair: { privateKey: KeyObject; publicKey: KeyObject }, algorithms: string[]][] = [
    ['rsa', rsa, ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']],
    ['p256', p256, ['ES256']],
    ['p384', p384, ['ES384']],
    ['p521', p521, ['ES512']],
    ['ed25519', ed25519, ['EdDSA']]
  ]
  const issuers = keys.map(([issuer, { publicKey }]) => ({ issuer, public_key: pem(publicKey) }))
  const { verdict } = await start(t, { issuers: [...issuers, { issuer: 'hmac', secret: SECRET }] })
  for (const [iss, { privateKey }, algorithms] of keys) {
    for (const algorithm of algorithms) {
      const good = signedToken(privateKey, algorithm, { iss })
      t.same(await verdict(good), PASSES, algorithm)
      const [header, payload, signature] = good.split('.') as [string, string, string]
      const bytes = Buffer.from(signature, 'base64url')
      bytes[bytes.length - 1] = (bytes[bytes.length - 1] as number) ^ 1
      t.same(
        await verdict(`${header}.${payload}.${encode(bytes)}`),
        fails('wrong_signature'),
        `${algorithm}, another signature`
      )
      const other = encode(JSON.stringify({ sub: 'root', exp: FAR, iss }))
      t.same(
        await verdict(`${header}.${other}.${signature}`),
        fails('wrong_signature'),
        `${algorithm}, another payload`
      )
    }
  }
  for (const bits of [256, 384, 512]) {
    const payload = JSON.stringify({ sub: 'alice', exp: FAR, iss: 'hmac' })
    t.same(await verdict(written(`{"alg":"HS${bits}"}`, payload, SECRET, `sha${bits}`)), PASSES, `HS${bits}`)
    t.same(await verdict(written(`{"alg":"HS${bits}"}`, payload, 'another', `sha${bits}`)), fails('wrong_signature'))
  }
})

t.test('H-50 unsigned tokens are refused', async t => {
  const { verdict } = await start(t)
  for (const alg of ['none', 'None', 'NONE', 'nOnE']) {
    t.same(await verdict(`${encode(`{"alg":"${alg}"}`)}.${encode(CLAIMS)}.`), fails('malformed'))
    t.same(await verdict(written(`{"alg":"${alg}"}`)), fails('wrong_algorithm'), 'signed, but says that it is not')
  }
  for (const alg of ['', 'hs256', 'HS256 ', 'HS1', 'RS256', 'toString', '__proto__'])
    t.same(await verdict(written(JSON.stringify({ alg }))), fails('wrong_algorithm'), alg)
})

t.test('H-51 a public key is no shared secret, however it is written', async t => {
  const { verdict } = await start(t, { issuers: [{ issuer: 'rsa', public_key: pem(rsa.publicKey) }] })
  const payload = JSON.stringify({ sub: 'root', exp: FAR, iss: 'rsa' })
  const text = pem(rsa.publicKey)
  const guesses: (string | Buffer)[] = [
    text,
    text.trim(),
    ` ${text}`,
    `\n${text}`,
    text.replaceAll('\n', ''),
    rsa.publicKey.export({ type: 'pkcs1', format: 'pem' }) as string,
    rsa.publicKey.export({ type: 'spki', format: 'der' }),
    rsa.publicKey.export({ type: 'pkcs1', format: 'der' }),
    JSON.stringify(rsa.publicKey.export({ format: 'jwk' })),
    ''
  ]
  for (const guess of guesses)
    for (const bits of [256, 384, 512])
      t.same(await verdict(written(`{"alg":"HS${bits}"}`, payload, guess, `sha${bits}`)), fails('wrong_algorithm'))
  await t.rejects(
    start(t, { issuers: [{ issuer: 'rsa', secret: text }] }),
    /issuers\[0\]\.secret .*must never be a shared secret/
  )
})

t.test('H-51 C-02 the algorithm belongs to the key: one that the configuration does not list is refused', async t => {
  const issuers = [
    { issuer: 'rsa', public_key: pem(rsa.publicKey), algorithms: ['PS256'] },
    { issuer: 'hmac', secret: SECRET, algorithms: 'HS512' }
  ]
  const { verdict } = await start(t, { issuers })
  t.same(await verdict(signedToken(rsa.privateKey, 'PS256', { iss: 'rsa' })), PASSES)
  for (const algorithm of ['RS256', 'RS512', 'PS384'])
    t.same(await verdict(signedToken(rsa.privateKey, algorithm, { iss: 'rsa' })), fails('wrong_algorithm'), algorithm)
  t.same(
    await verdict(written('{"alg":"HS256"}', JSON.stringify({ sub: 'a', exp: FAR, iss: 'hmac' }))),
    fails('wrong_algorithm')
  )
  t.same(
    await verdict(written('{"alg":"HS512"}', JSON.stringify({ sub: 'a', exp: FAR, iss: 'hmac' }), SECRET, 'sha512')),
    PASSES
  )
})

t.test(
  'CFG-06 IDN-14 C-02 a key that is replaced in its file is a change: the old one is refused, the new one accepted',
  async t => {
    const folder = t.testdir({})
    const [own, theirs, half] = ['own', 'theirs', 'half'].map(name => join(folder, `${name}.pem`)) as [
      string,
      string,
      string
    ]
    const pairs = [0, 1].map(() => generateKeyPairSync('ec', { namedCurve: 'P-256' }))
    const replace = (n: number): void => {
      const { publicKey, privateKey } = pairs[n] as (typeof pairs)[0]
      writeFileSync(own, privateKey.export({ type: 'pkcs8', format: 'pem' }))
      for (const file of [theirs, half]) writeFileSync(file, pem(publicKey))
    }
    const ways: [name: string, identity: object][] = [
      ['an issuer’s', { issuers: [{ issuer: 'them', public_key: theirs }] }],
      ['the gateway’s own', { jwt: { algorithm: 'ES256', secret: own } }],
      ['its public half', { jwt: { algorithm: 'ES256', public_key: half, secret: '' } }]
    ]
    const signed = (n: number): string => signedToken(pairs[n]?.privateKey as KeyObject, 'ES256', { iss: 'them' })
    for (const [name, identity] of ways) {
      await t.test(name, async t => {
        replace(0)
        const { gateway, verdict } = await start(t, identity)
        t.strictSame(await verdict(signed(0)), PASSES)
        t.match(await gateway.reload(), { changed: false })
        replace(1)
        t.match(await gateway.reload(), { changed: true })
        t.strictSame(await verdict(signed(1)), PASSES)
        t.strictSame(await verdict(signed(0)), fails('wrong_signature'))
        gateway.watch()
        replace(0)
        await until(async () => (await verdict(signed(0)))[0] === 200, 'it is followed')
      })
    }
  }
)

t.test('H-52 keys that a token brings along are ignored, and nobody is asked for them', async t => {
  let asked = 0
  const evil = http.createServer((_request, response) => {
    asked++
    response.end(JSON.stringify({ keys: [{ ...p256.publicKey.export({ format: 'jwk' }), kid: 'evil' }] }))
  })
  await new Promise<void>(resolve => evil.listen(0, '127.0.0.1', resolve))
  t.teardown(() => evil.close())
  evil.on('connection', () => asked++)
  const url = `http://127.0.0.1:${(evil.address() as AddressInfo).port}/keys`
  const { verdict } = await start(t, {
    issuers: [
      { issuer: 'rsa', public_key: pem(rsa.publicKey) },
      { issuer: 'ec', public_key: pem(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey) }
    ]
  })
  const jwk = p256.publicKey.export({ format: 'jwk' })
  for (const header of [
    { jwk },
    { jku: url },
    { jku: url, kid: 'evil' },
    { x5u: url },
    { x5c: [pem(p256.publicKey)] },
    { jwk, jku: url, x5u: url, kid: url }
  ]) {
    t.same(
      await verdict(signedToken(p256.privateKey, 'ES256', { iss: 'ec' }, header)),
      fails('wrong_signature'),
      Object.keys(header).join()
    )
    t.same(await verdict(signedToken(p256.privateKey, 'ES256', { iss: 'rsa' }, header)), fails('wrong_algorithm'))
    t.same(
      await verdict(signedToken(p256.privateKey, 'ES256', { iss: url }, header)),
      fails('wrong_algorithm'),
      'nor for its issuer'
    )
  }
  t.equal(asked, 0)
})

t.test('H-54 H-55 H-60 hostile shapes are refused, signed or not', async t => {
  const { verdict } = await start(t)
  const utf8 = (...bytes: (string | number)[]): Buffer =>
    Buffer.concat(bytes.map(byte => (typeof byte === 'string' ? Buffer.from(byte) : Buffer.from([byte]))))
  const good = written(HS256)
  const [header, payload, signature] = good.split('.') as [string, string, string]
  const cases: [name: string, token: string, reason: string][] = [
    ['crit', written('{"alg":"HS256","crit":["exp"],"exp":1}'), 'critical_extension'],
    ['crit of a registered name', written('{"alg":"HS256","crit":["alg"]}'), 'critical_extension'],
    ['b64 false', written('{"alg":"HS256","b64":false,"crit":["b64"]}'), 'critical_extension'],
    ['payload an array', written(HS256, `[${CLAIMS}]`), 'malformed'],
    ['payload a string', written(HS256, JSON.stringify(CLAIMS)), 'malformed'],
    ['payload a number', written(HS256, '7'), 'malformed'],
    ['payload null', written(HS256, 'null'), 'malformed'],
    ['payload no JSON', written(HS256, 'sub=alice'), 'malformed'],
    ['payload not UTF-8', written(HS256, utf8('{"exp":4000000000,"sub":"', 0xff, '"}')), 'malformed'],
    ['payload with a byte order mark', written(HS256, utf8(0xef, 0xbb, 0xbf, CLAIMS)), 'malformed'],
    ['exp twice', written(HS256, '{"sub":"a","exp":1,"exp":4000000000}'), 'malformed'],
    [
      'roles twice, deep down',
      written(HS256, '{"sub":"a","exp":4000000000,"x":{"roles":["user"],"roles":["admin"]}}'),
      'malformed'
    ],
    ['alg twice', written('{"alg":"HS256","alg":"none"}'), 'malformed'],
    ['header an array', written('["HS256"]'), 'malformed'],
    ['padding', `${header}.${payload}.${signature}=`, 'malformed'],
    ['padding of the payload', `${header}.${payload}==.${signature}`, 'malformed'],
    [
      'the standard alphabet',
      `${header}.${payload}.${signature.replace(/[-_]/g, '+')}${/[-_]/.test(signature) ? '' : '+'}`,
      'malformed'
    ],
    ['five parts', `${good}.${payload}.${signature}`, 'malformed'],
    ['four parts', `${good}.`, 'malformed'],
    ['two parts', `${header}.${payload}`, 'malformed'],
    ['a nested token', written('{"alg":"HS256","cty":"JWT"}', good), 'malformed'],
    ['a JWE', `${encode('{"alg":"dir","enc":"A256GCM"}')}..aaaa.bbbb.cccc`, 'malformed'],
    [
      'half a signature',
      `${header}.${payload}.${encode(Buffer.from(signature, 'base64url').subarray(0, 16))}`,
      'wrong_signature'
    ],
    [
      'a longer signature',
      `${header}.${payload}.${encode(Buffer.concat([Buffer.from(signature, 'base64url'), Buffer.from([0])]))}`,
      'wrong_signature'
    ],
    ['a signature of zeros', `${header}.${payload}.${encode(Buffer.alloc(32))}`, 'wrong_signature']
  ]
  for (const [name, hostile, reason] of cases) t.same(await verdict(hostile), fails(reason), name)
  t.same(await verdict(good), PASSES)
})

t.test('H-53 a "kid" is a name and nothing else', async t => {
  const { verdict } = await start(t, {}, { server: { limits: { header_bytes: '2mb' } } })
  for (const kid of [
    '../../../../dev/null',
    '/etc/passwd',
    "x' UNION SELECT 'AAAA'; --",
    'http://127.0.0.1:9/',
    '\0',
    '__proto__',
    ''
  ])
    t.same(await verdict(token({}, { header: { kid } })), PASSES, `${JSON.stringify(kid)}, and the key has none`)
  t.same(await verdict(token({}, { header: { kid: 'x'.repeat(1_000_000) } })), fails('malformed'))
})

t.test('H-56 issuer and audience are compared character by character, and "exp" has to be there', async t => {
  const issuer = 'https://idp.example.com'
  const { verdict } = await start(t, {
    issuers: [{ issuer, secret: `${SECRET}!`, audience: ['api', 'web'] }],
    jwt: { issuer: 'gateway' }
  })
  const of = (claims: object): string => token({ iss: issuer, aud: 'api', ...claims }, { secret: `${SECRET}!` })
  t.same(await verdict(of({})), PASSES)
  t.same(await verdict(of({ aud: ['other', 'web'] })), PASSES)
  for (const iss of [
    [issuer],
    `${issuer}/`,
    issuer.toUpperCase(),
    issuer.slice(0, -1),
    ` ${issuer}`,
    'https://evil.example.com',
    '',
    null,
    7,
    { a: issuer },
    true
  ])
    t.same(await verdict(of({ iss })), fails('wrong_issuer'), JSON.stringify(iss))
  t.same(await verdict(of({ iss: undefined })), fails('wrong_issuer'))
  for (const aud of [
    undefined,
    'ap',
    'apis',
    'API',
    'api ',
    'api/',
    ['ap', 'i'],
    [],
    [['api']],
    ['api', 7],
    { api: true },
    null
  ])
    t.same(await verdict(of({ aud })), fails('wrong_audience'), JSON.stringify(aud))
  t.same(await verdict(of({ exp: undefined })), fails('no_expiry'))
  t.same(await verdict(of({ sub: undefined })), fails('no_subject'))
  t.same(await verdict(token({ iss: 'gateway' })), PASSES, 'the gateway’s own')
  t.same(
    await verdict(token({ iss: issuer, aud: 'api' })),
    fails('wrong_signature'),
    'one issuer cannot speak for another'
  )
  t.same(await verdict(token({})), fails('wrong_issuer'))
})

t.test('C-01 one issuer cannot take another’s name, and two with one name are refused', async t => {
  const issuers = (...more: object[]): object => ({ issuers: [{ issuer: 'a', secret: `${SECRET}!` }, ...more] })
  await t.rejects(start(t, issuers({ issuer: 'a', secret: SECRET })), /issuers\[1\]\.issuer {2}"a" is there twice/)
  await t.rejects(
    start(t, { ...issuers(), jwt: { issuer: 'a' } }),
    /issuers\[0\]\.issuer {2}"a" is identity\.jwt\.issuer, too/
  )
  await t.rejects(
    start(t, { issuers: [{ issuer: 'a' }] }),
    /issuers\[0\] {2}needs "secret", "public_key", "jwks_url", "introspection_url" or "userinfo_url"/
  )
  await t.rejects(
    start(t, { issuers: [{ issuer: 'a', secret: SECRET, jwks_url: 'http://127.0.0.1:9/' }] }),
    /issuers\[0\] {2}has several of/
  )
  const { verdict, call } = await start(t, issuers())
  const { headers } = await call('/x', { token: token({ iss: 'a' }, { secret: `${SECRET}!` }) })
  t.ok(headers['x-request-id'])
  t.same(await verdict(token({ iss: 'a' })), fails('wrong_signature'))
})

t.test('H-57 IDN-16 times hold to the millisecond, with the skew that is configured', async t => {
  const now = Date.UTC(2026, 5, 1)
  const at = (seconds: number): number => now / 1000 + seconds
  for (const skew of [0, 60]) {
    const clock = new FakeClock(now)
    const { verdict } = await start(t, { jwt: { clock_skew: skew } }, { clock })
    const cases: [claims: object, expected: unknown][] = [
      [{ exp: at(0.001 - skew) }, PASSES],
      [{ exp: at(-skew) }, fails('expired')],
      [{ exp: at(-skew - 1) }, fails('expired')],
      [{ exp: 0 }, fails('expired')],
      [{ exp: -1 }, fails('expired')],
      [{ exp: 1e20 }, PASSES],
      [{ exp: 1e308 }, PASSES],
      [{ exp: at(60), nbf: at(skew) }, PASSES],
      [{ exp: at(60), nbf: at(skew + 0.001) }, fails('not_yet_valid')],
      [{ exp: at(60), nbf: 1e20 }, fails('not_yet_valid')],
      [{ exp: at(60), nbf: -1e20, iat: -1 }, PASSES],
      [{ exp: at(60), iat: at(1000) }, PASSES],
      [{ exp: String(at(60)) }, fails('wrong_time')],
      [{ exp: [at(60)] }, fails('wrong_time')],
      [{ exp: null }, fails('wrong_time')],
      [{ exp: true }, fails('wrong_time')],
      [{ exp: at(60), nbf: '0' }, fails('wrong_time')],
      [{ exp: at(60), iat: {} }, fails('wrong_time')]
    ]
    for (const [claims, expected] of cases)
      t.same(await verdict(token({ exp: at(60), ...claims })), expected, `${JSON.stringify(claims)} with ${skew} s`)
    t.same(await verdict(written(HS256, '{"sub":"a","exp":1e999}')), fails('wrong_time'), 'a number that is none')
  }
})

t.test('H-61 signatures that prove nothing, and keys that prove little, are refused', async t => {
  const issuers = [
    { issuer: 'p256', public_key: pem(p256.publicKey) },
    { issuer: 'p384', public_key: pem(p384.publicKey) },
    { issuer: 'rsa', public_key: pem(rsa.publicKey) },
    { issuer: 'ed', public_key: pem(ed25519.publicKey) }
  ]
  const { verdict } = await start(t, { issuers })
  const n = Buffer.from('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551', 'hex')
  const zero = Buffer.alloc(32)
  const one = Buffer.concat([Buffer.alloc(31), Buffer.from([1])])
  const max = Buffer.alloc(32, 0xff)
  const input = (iss: string, alg: string): string =>
    `${encode(JSON.stringify({ alg }))}.${encode(JSON.stringify({ sub: 'root', exp: FAR, iss }))}`
  for (const [r, s] of [
    [zero, zero],
    [zero, one],
    [one, zero],
    [n, n],
    [n, one],
    [one, n],
    [one, one],
    [max, max]
  ] as const)
    t.same(
      await verdict(`${input('p256', 'ES256')}.${encode(Buffer.concat([r, s]))}`),
      fails('wrong_signature'),
      r.toString('hex', 30) + s.toString('hex', 30)
    )
  for (const length of [1, 63, 65, 96, 128])
    t.same(
      await verdict(`${input('p256', 'ES256')}.${encode(Buffer.alloc(length, 1))}`),
      fails('wrong_signature'),
      `${length} bytes`
    )
  const der = sign('sha256', Buffer.from(input('p256', 'ES256')), p256.privateKey)
  t.same(await verdict(`${input('p256', 'ES256')}.${encode(der)}`), fails('wrong_signature'), 'DER instead of r and s')
  t.same(
    await verdict(signedToken(p384.privateKey, 'ES384', { iss: 'p256' })),
    fails('wrong_algorithm'),
    'another curve'
  )
  t.same(
    await verdict(signedToken(p256.privateKey, 'ES256', { iss: 'p384' })),
    fails('wrong_algorithm'),
    'another curve'
  )
  t.same(await verdict(`${input('rsa', 'RS256')}.${encode(Buffer.alloc(256))}`), fails('wrong_signature'))
  t.same(await verdict(`${input('rsa', 'PS256')}.${encode(Buffer.alloc(256, 0xff))}`), fails('wrong_signature'))
  t.same(await verdict(`${input('ed', 'EdDSA')}.${encode(Buffer.alloc(64))}`), fails('wrong_signature'))
  const weak = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey
  await t.rejects(
    start(t, { issuers: [{ issuer: 'a', public_key: pem(weak) }] }),
    /issuers\[0\]\.public_key {2}is an RSA key of 1024 bits/
  )
  const trivial = createPublicKey({ key: { ...rsa.publicKey.export({ format: 'jwk' }), e: 'AQ' }, format: 'jwk' })
  await t.rejects(
    start(t, { issuers: [{ issuer: 'a', public_key: pem(trivial) }] }),
    /issuers\[0\]\.public_key {2}is an RSA key with the exponent 1/
  )
})

t.test('H-62 a token of 100 kB is refused for its length alone', async t => {
  const { verdict, upstream } = await start(t, {}, { server: { limits: { header_bytes: '256kb' } } })
  t.same(await verdict(token({ padding: 'x'.repeat(75_000) })), fails('malformed'))
  t.same(await verdict('x'.repeat(100_000)), fails('malformed'))
  t.same(await verdict(token({ padding: 'x'.repeat(5_000) })), PASSES)
  t.equal(upstream.seen.length, 1)
})

t.test(
  'H-62 IDN-35 a flood of bad tokens costs one check of a signature each at most, and nothing is kept of them',
  async t => {
    const { gateway, verdict } = await start(t)
    const { authenticator } = gateway.server.current.app
    const good = token()
    t.same(await verdict(good), PASSES)
    t.equal(authenticator.tokens.size, 1)
    const { jwt } = gateway.server.current.app
    const { verify } = jwt
    const [header, payload, signature = ''] = good.split('.')
    let checks = 0
    jwt.verify = ((...args: Parameters<typeof verify>) => {
      checks++
      return verify(...args)
    }) as typeof verify
    for (let i = 0; i < 200; i++)
      t.same(await verdict(token({ sub: `u${i}` }, { secret: 'another' })), fails('wrong_signature'))
    t.equal(checks, 200)
    t.equal(authenticator.tokens.size, 1)
    for (let i = 0; i < 200; i++)
      t.same(
        await verdict(`${header}.${payload}.${encode(String(i).padStart(15, '0'))}${signature.slice(20)}`),
        fails('wrong_signature')
      )
    t.equal(authenticator.tokens.size, 1)
    for (const bad of ['rubbish', written('{"alg":"none"}'), token({ iss: 7 }), `${good}.`]) await verdict(bad)
    t.equal(checks, 400, 'what is refused for its form is not checked at all')
    t.same(await verdict(good), PASSES)
    t.equal(checks, 400, 'and what is known is not checked again')
  }
)

t.test(
  'H-58 IDN-35 only the very same token is taken for one that is known, and its time is asked at every use',
  async t => {
    const clock = new FakeClock(Date.UTC(2026, 5, 1))
    const exp = clock.now() / 1000 + 60
    const { verdict, call, configure, gateway } = await start(t, {}, { clock })
    const good = token({ exp, nbf: clock.now() / 1000 })
    t.same(await verdict(good), PASSES)
    const [header, payload, signature] = good.split('.') as [string, string, string]
    for (const other of [
      `${header}.${payload}.${encode(Buffer.alloc(32))}`,
      `${good}A`,
      good.slice(0, -1),
      `${header}.${encode(JSON.stringify({ sub: 'root', exp }))}.${signature}`
    ])
      t.not((await call('/x', { token: other })).status, 200, other.slice(-10))
    clock.set(clock.now() - 1000)
    t.same(await verdict(good), fails('not_yet_valid'), 'somebody has set the clock back')
    clock.set(clock.now() + 1000 + 59_999)
    t.same(await verdict(good), PASSES)
    clock.advance(1)
    t.same(await verdict(good), fails('expired'))
    const longer = token({ exp: exp + 600 })
    t.same(await verdict(longer), PASSES)
    const upstream = await startUpstream(t)
    configure({
      services: { orders: { url: upstream.url } },
      routes: [{ path: '/**', service: 'orders' }],
      identity: { jwt: { secret: `${SECRET}, and another` } }
    })
    await gateway.reload()
    t.same(await verdict(longer), fails('wrong_signature'), 'the secret has changed')
  }
)

t.test('IDN-35 no more tokens are kept than are configured', async t => {
  const { gateway, verdict } = await start(t, { token_cache: 10 })
  for (let i = 0; i < 50; i++) t.same(await verdict(token({ sub: `u${i}` })), PASSES)
  t.ok(gateway.server.current.app.authenticator.tokens.size <= 20)
})

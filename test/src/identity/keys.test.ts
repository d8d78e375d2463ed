import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import t from 'tap'
import { parseKeySet } from '../../../src/identity/key-set.ts'
import { isStrongSecret, KeyError, publicKey, StaticKeys, secretKey } from '../../../src/identity/keys.ts'

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey
const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey
const ed25519 = generateKeyPairSync('ed25519').publicKey
const pem = (key: KeyObject): string => key.export({ type: 'spki', format: 'pem' }) as string
const jwk = (key: KeyObject, more: object = {}): object => ({ ...key.export({ format: 'jwk' }), ...more })
/** Why a key is refused; undefined for one that is taken. */
function objection(act: () => unknown): string | undefined {
  try {
    act()
    return undefined
  } catch (error) {
    if (!(error instanceof KeyError)) throw error
    return error.message
  }
}

const set = (...keys: unknown[]): string => JSON.stringify({ keys })

t.test('C-02 IDN-14 what a key may verify follows from the key', async t => {
  const cases: [KeyObject, string[]][] = [
    [rsa, ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']],
    [p256, ['ES256']],
    [generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey, ['ES384']],
    [generateKeyPairSync('ec', { namedCurve: 'P-521' }).publicKey, ['ES512']],
    [ed25519, ['EdDSA']]
  ]
  for (const [key, algorithms] of cases) t.same([...publicKey(pem(key)).algorithms], algorithms)
  t.same([...secretKey('a secret').algorithms], ['HS256', 'HS384', 'HS512'])
  t.same([...publicKey(pem(rsa), undefined, ['PS256', 'ES256']).algorithms], ['PS256'], 'narrowed to what is wanted')
  t.equal(
    objection(() => publicKey(pem(p256), undefined, ['RS256'])),
    'fits ES256, but only RS256 is allowed'
  )
  t.equal(
    objection(() => secretKey('a secret', ['RS256'])),
    'fits HS256, HS384, HS512, but only RS256 is allowed'
  )
})

t.test('H-61 weak keys, odd ones and what is no key are refused', async t => {
  const weak: Record<string, string> = {
    'RSA of 1024 bits': pem(generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey),
    'RSA with e = 1': pem(createPublicKey({ key: { ...rsa.export({ format: 'jwk' }), e: 'AQ' }, format: 'jwk' })),
    'RSA with an exponent as long as its modulus': pem(
      createPublicKey({
        key: { ...rsa.export({ format: 'jwk' }), e: Buffer.alloc(200, 0xff).toString('base64url') },
        format: 'jwk'
      })
    ),
    'a curve for coins': pem(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey),
    Ed448: pem(generateKeyPairSync('ed448').publicKey),
    'X25519, which signs nothing': pem(generateKeyPairSync('x25519').publicKey),
    DSA: pem(generateKeyPairSync('dsa', { modulusLength: 2048, divisorLength: 256 }).publicKey),
    'no key': 'no key',
    'half a PEM': pem(rsa).slice(0, 100)
  }
  const objections: Record<string, RegExp> = {
    'RSA of 1024 bits': /1024 bits/,
    'RSA with e = 1': /exponent 1,/,
    'RSA with an exponent as long as its modulus': /exponent/
  }
  for (const [name, key] of Object.entries(weak))
    t.match(
      objection(() => publicKey(key)),
      objections[name] ?? /^is (of the type|on the curve|no public key)/,
      name
    )
})

t.test('H-51 a key of a key pair is no shared secret, however it is written', async t => {
  const der = (key: KeyObject, type: 'spki' | 'pkcs1'): string =>
    key.export({ type, format: 'der' } as never).toString('base64')
  const disguises = [
    pem(rsa),
    ` \n${pem(rsa)}`,
    `x${pem(rsa)}`,
    pem(p256),
    pem(rsa).replaceAll('\n', '\\n'),
    JSON.stringify(jwk(rsa)),
    ` ${JSON.stringify(jwk(p256))}`,
    set(jwk(rsa)),
    `[${JSON.stringify(jwk(rsa))}]`,
    der(rsa, 'spki'),
    der(rsa, 'pkcs1'),
    der(p256, 'spki'),
    der(ed25519, 'spki'),
    rsa.export({ type: 'pkcs1', format: 'pem' }) as string
  ]
  for (const secret of disguises)
    t.match(
      objection(() => secretKey(secret)),
      /must never be a shared secret/,
      secret.slice(0, 30)
    )
  for (const secret of ['MII', 'MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A', '{"a":1}', 'a secret'])
    t.equal(
      objection(() => secretKey(secret)),
      undefined,
      secret
    )
  t.equal(
    objection(() => secretKey('')),
    'is empty'
  )
})

t.test('C-02 production trusts a secret of 32 bytes that is in nobody’s example', async t => {
  t.equal(isStrongSecret('x'.repeat(31)), false)
  t.equal(isStrongSecret('x'.repeat(32)), true)
  t.equal(isStrongSecret('ä'.repeat(16)), true, 'bytes count, not letters')
  t.equal(isStrongSecret('a-string-secret-at-least-256-bits-long'), false)
  t.equal(isStrongSecret('your-secret-key'), false)
})

t.test('H-53 a "kid" is compared as it is', async t => {
  const a = publicKey(pem(rsa), 'a')
  const b = publicKey(pem(p256), 'b')
  const keys = new StaticKeys([a, b])
  t.same(keys.find('a'), [a])
  for (const kid of ['A', 'a ', '', 'c', '__proto__', 'constructor']) t.same(keys.find(kid), [], kid)
  t.same(keys.find(undefined), [a, b], 'a token that names no key may be of any')
  const nameless = publicKey(pem(ed25519))
  t.same(new StaticKeys([nameless]).find('whatever'), [nameless])
})

t.test('H-53 H-66 of a published set only keys that verify signatures are used', async t => {
  const kids = (text: string, wanted: string[] = []): (string | undefined)[] =>
    parseKeySet(text, wanted).map(key => key.kid)
  const priv = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  t.same(
    kids(
      set(
        jwk(rsa, { kid: 'a' }),
        jwk(p256, { kid: 'b', use: 'sig' }),
        jwk(ed25519, { kid: 'c', key_ops: ['verify'] }),
        jwk(rsa)
      )
    ),
    ['a', 'b', 'c', undefined]
  )
  const useless = [
    jwk(rsa, { kid: 'x', use: 'enc' }),
    jwk(rsa, { kid: 'x', key_ops: ['encrypt'] }),
    jwk(rsa, { kid: 'x', alg: 'RSA-OAEP' }),
    jwk(rsa, { kid: 'x', alg: 'HS256' }),
    jwk(rsa, { kid: 'x', alg: 'none' }),
    jwk(p256, { kid: 'x', alg: 'ES384' }),
    jwk(priv, { kid: 'x' }),
    { kty: 'oct', kid: 'x', k: 'c2VjcmV0', alg: 'HS256' },
    { kty: 'RSA', kid: 'x', n: 7, e: 'AQAB' },
    { kty: 'EC', kid: 'x', crv: 'P-256', x: 'AAAA', y: 'AAAA' },
    { kty: '__proto__', kid: 'x' },
    {},
    null,
    'key',
    7,
    []
  ]
  for (const key of useless)
    t.same(kids(set(key, jwk(p256, { kid: 'good' }))), ['good'], JSON.stringify(key)?.slice(0, 60))
  t.same(
    kids(set(jwk(rsa, { kid: 'a' }), jwk(p256, { kid: 'a' }), jwk(ed25519, { kid: 'b' }))),
    ['b'],
    'a name that two keys share is neither’s'
  )
  t.same(kids(set(jwk(rsa, { kid: 'a' }), jwk(p256, { kid: 'b' })), ['ES256']), ['b'], 'the configuration’s algorithms')
  t.same(
    [...(parseKeySet(set(jwk(rsa, { alg: 'PS256' })), [])[0]?.algorithms ?? [])],
    ['PS256'],
    'the key’s own algorithm'
  )
  t.same(kids(set(jwk(rsa, { alg: 'PS256', kid: 'a' }), jwk(p256, { kid: 'b' })), ['RS256', 'ES256']), ['b'], 'both')
  const numbered = jwk(p256, { kid: 7 })
  t.same(kids(set(numbered)), [undefined])
})

t.test('H-66 what is no key set is an error, so that the last good one stays', async t => {
  for (const text of [
    '',
    'null',
    '[]',
    '{}',
    '{"keys":{}}',
    '{"keys":[]}',
    '<html>',
    '{"keys":[null]}',
    set({ kty: 'oct', k: 'AAAA' })
  ])
    t.throws(() => parseKeySet(text, []), Error, text)
  const many = Array.from({ length: 101 }, (_, i) => (i < 100 ? { kty: 'oct', k: 'AAAA' } : jwk(rsa)))
  t.throws(() => parseKeySet(set(...many), []), Error, 'the hundred-and-first key is not looked at')
})

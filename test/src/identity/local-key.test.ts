import { generateKeyPairSync } from 'node:crypto'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { IdentityError } from '../../../src/identity/identity-error.ts'
import { type LocalKey, localKey } from '../../../src/identity/local-key.ts'
import { signToken } from '../../../src/token.ts'
import { SECRET } from '../../support/tokens.ts'

type Snapshot = Parameters<typeof localKey>[0]

interface Sketch {
  readonly jwt?: object
  readonly issuers?: unknown[]
  readonly environment?: string
  readonly folder?: string
}

const JWT = { algorithm: 'HS256', audience: [], clock_skew: 0, access_minutes: 60, refresh_days: 30 }

function snapshot(t: Test, { jwt = {}, issuers = [], environment = 'development', folder }: Sketch): Snapshot {
  return {
    identity: { jwt: { ...JWT, ...jwt }, issuers },
    storage: { data_dir: folder ?? join(t.testdirName, 'other') },
    gateway: { environment }
  } as unknown as Snapshot
}

function keyOf(t: Test, sketch: Sketch): LocalKey | undefined {
  return localKey(snapshot(t, sketch))
}

function objection(t: Test, sketch: Sketch): [path: string, message: string] | undefined {
  try {
    keyOf(t, sketch)
    return undefined
  } catch (error) {
    if (!(error instanceof IdentityError)) throw error
    return [error.path.join('.'), error.message]
  }
}

t.test('C-02 without a secret one is made, kept where only its owner reads it, and mentioned', async t => {
  const folder = join(t.testdir({}), 'a', 'data')
  const key = keyOf(t, { folder })
  const file = join(folder, 'jwt-secret')
  t.equal(key?.signing, readFileSync(file, 'utf8').trim())
  t.equal(statSync(file).mode & 0o777, 0o600)
  t.equal(Buffer.from(key?.signing as string, 'base64url').length, 32)
  t.match(key?.notice, /no JWT secret is configured/)
  t.notMatch(key?.notice, key?.signing as string)
  t.equal(keyOf(t, { folder })?.signing, key?.signing, 'the next start finds it')
  t.not(keyOf(t, {})?.signing, key?.signing, 'another folder has another')
  t.equal(keyOf(t, { folder, jwt: { secret: '' } })?.signing, key?.signing, 'an empty secret is none')
})

t.test('C-02 half a secret in the folder is none, and a folder that cannot be written is said', async t => {
  const folder = t.testdir({ 'jwt-secret': 'half\n' })
  t.match(objection(t, { folder }), ['identity.jwt.secret', /holds none; delete that file/])
  const file = join(t.testdir({ file: '' }), 'file')
  t.match(objection(t, { folder: join(file, 'data') }), ['identity.jwt.secret', /none can be kept in .*ENOTDIR/])
})

t.test('C-02 production takes no secret that is missing, short or well known', async t => {
  for (const environment of ['production', 'Production', 'prod']) {
    t.match(objection(t, { environment }), ['identity.jwt', /production needs a "secret"/])
    for (const secret of ['short', 'x'.repeat(31), 'your-secret-key', 'a-string-secret-at-least-256-bits-long'].concat(
      ...[
        'change-me-in-production-please-32b',
        'CHANGEME_0123456789_0123456789_0123',
        'your-very-own-and-rather-long-secret'
      ]
    ))
      t.match(
        objection(t, { environment, jwt: { secret } }),
        ['identity.jwt.secret', /too short or too well known/],
        secret
      )
    t.equal(keyOf(t, { environment, jwt: { secret: SECRET } })?.notice, undefined)
    t.equal(keyOf(t, { environment, issuers: [{}] }), undefined, 'tokens may all be somebody else’s')
  }
  const folder = join(t.testdir({}), 'data')
  objection(t, { environment: 'production', folder })
  t.equal(existsSync(folder), false, 'production makes no secret')
})

t.test('C-02 development takes a weak secret, and says that production would not', async t => {
  const key = keyOf(t, { jwt: { secret: 'short' } })
  t.equal(key?.signing, 'short')
  t.match(key?.notice, /production would refuse it/)
  t.equal(keyOf(t, { jwt: { secret: SECRET } })?.notice, undefined)
})

t.test('C-02 IDN-14 a key pair signs with its private half, or only verifies', async t => {
  const pair = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const other = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const pem = (key: typeof pair.privateKey): string =>
    key.export({ type: key.type === 'private' ? 'pkcs8' : 'spki', format: 'pem' } as never) as string
  const secret = pem(pair.privateKey)
  const public_key = pem(pair.publicKey)
  const algorithm = 'RS256'
  t.match(keyOf(t, { jwt: { algorithm, secret } }), {
    algorithm,
    signing: secret,
    verification: { material: public_key }
  })
  t.match(keyOf(t, { jwt: { algorithm, secret, public_key } }), {
    signing: secret,
    verification: { material: public_key }
  })
  const only = keyOf(t, { jwt: { algorithm, public_key } })
  t.match(only, { signing: undefined, verification: { material: public_key } })

  t.match(objection(t, { jwt: { algorithm } }), ['identity.jwt', /RS256 needs "public_key", or the private key/])
  t.match(objection(t, { jwt: { algorithm, secret: pem(other.privateKey), public_key } }), [
    'identity.jwt.secret',
    /is not the private key that belongs/
  ])
  t.match(objection(t, { jwt: { algorithm, secret: 'no key', public_key } }), [
    'identity.jwt.secret',
    /is not the private key that belongs/
  ])
  t.match(objection(t, { jwt: { algorithm: 'ES256', public_key } }), [
    'identity.jwt.public_key',
    /but only ES256 is allowed/
  ])
  t.match(objection(t, { jwt: { algorithm: 'HS256', secret: public_key } }), [
    'identity.jwt.secret',
    /must never be a shared secret/
  ])
  await t.rejects(
    signToken(snapshot(t, { jwt: { algorithm, public_key } }) as never, { subject: 'alice', seconds: 60 }),
    /no key to sign with/
  )
})

t.test(
  'IDN-13 a token that the gateway signs lives as long as it is told, and can be taken back by its id',
  async t => {
    const shot = snapshot(t, { jwt: { secret: SECRET, issuer: 'https://gateway', audience: ['api', 'web'] } })
    const signed = await signToken(shot as never, { subject: 'alice', roles: ['user'], tier: 'pro', seconds: 90 })
    const [header, payload] = signed
      .split('.')
      .map(part =>
        part.length > 60 || part.startsWith('ey') ? JSON.parse(Buffer.from(part, 'base64url').toString()) : part
      )
    t.match(header, { alg: 'HS256', typ: 'JWT' })
    t.match(payload, {
      sub: 'alice',
      roles: ['user'],
      permissions: [],
      tier: 'pro',
      iss: 'https://gateway',
      aud: 'api',
      jti: /^[0-9a-f-]{36}$/
    })
    t.equal(payload.exp - payload.iat, 90)
  }
)

import { constants, createHmac, type KeyObject, sign } from 'node:crypto'

/** The secret of every test's gateway. */
export const SECRET = 'a secret of the tests, long enough to be one'

const encode = (value: unknown): string =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

/** A token made by hand, so that nothing but the gateway decides whether it is good. */
export function token(
  claims: object | string = {},
  { header = {}, secret = SECRET }: { header?: object; secret?: string } = {}
): string {
  const payload =
    typeof claims === 'string' ? claims : { sub: 'alice', exp: Math.floor(Date.now() / 1000) + 600, ...claims }
  const input = `${encode({ alg: 'HS256', typ: 'JWT', ...header })}.${encode(payload)}`
  return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`
}

/** A token signed with a private key, by Node's own crypto. @param algorithm RS*, PS*, ES* or EdDSA, of which the hash is taken */
export function signedToken(key: KeyObject, algorithm: string, claims: object = {}, header: object = {}): string {
  const payload = { sub: 'alice', exp: Math.floor(Date.now() / 1000) + 600, ...claims }
  const input = `${encode({ alg: algorithm, typ: 'JWT', ...header })}.${encode(payload)}`
  const hash = algorithm === 'EdDSA' ? null : `sha${algorithm.slice(2)}`
  const padding = algorithm.startsWith('PS')
    ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
    : {}
  const signature = sign(hash, Buffer.from(input), { key, ...padding, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}

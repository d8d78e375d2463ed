import { createHmac } from 'node:crypto'
import { SECRET } from './contenders/contender.ts'

const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
const DAY = 86_400

/** A token of some 270 bytes, as an identity provider would make it. @param expiresIn seconds */
export function token(subject = 'user-1', expiresIn = DAY, roles: readonly string[] = ['user']): string {
  const now = Math.floor(Date.now() / 1000)
  const claims = {
    sub: subject,
    name: 'Alice Example',
    roles,
    permissions: ['orders.read', 'orders.write'],
    iat: now,
    exp: now + expiresIn
  }
  const input = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`
  return `${input}.${createHmac('sha256', SECRET).update(input).digest('base64url')}`
}

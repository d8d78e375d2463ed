import { randomUUID } from 'node:crypto'
import fastifyJwt from '@fastify/jwt'
import Fastify from 'fastify'
import type { Snapshot } from './config/snapshot.ts'
import { localKey } from './identity/authenticator.ts'

/** What a token says. */
export interface TokenContent {
  readonly subject: string
  readonly roles?: readonly string[]
  readonly permissions?: readonly string[]
  readonly tier?: string | undefined
  readonly name?: string | undefined
  /** Its life, in seconds. */
  readonly seconds: number
}

/** Signs a token with the gateway's own key, as `@fastify/jwt` does. @throws {Error} when the configuration has no private key */
export async function signToken(snapshot: Snapshot, content: TokenContent): Promise<string> {
  const local = localKey(snapshot)
  if (local?.signing === undefined)
    throw new Error('this configuration has no key to sign with; tokens come from its issuers')
  const { algorithm, signing, verification } = local
  const app = Fastify()
  await app.register(fastifyJwt, {
    secret: algorithm.startsWith('HS') ? signing : { private: signing, public: verification.material },
    sign: { algorithm: algorithm as 'HS256' }
  })
  await app.ready()
  const { issuer, audience } = snapshot.identity.jwt
  const { subject, roles = [], permissions = [], tier, name, seconds } = content
  const claims = { name, roles, permissions, tier, iss: issuer, aud: audience[0], jti: randomUUID() }
  const given = Object.fromEntries(Object.entries(claims).filter(([, value]) => value !== undefined))
  const token = app.jwt.sign({ sub: subject, ...given }, { expiresIn: seconds })
  await app.close()
  return token
}

import { generateKeyPairSync, randomUUID } from 'node:crypto'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import type { Test } from 'tap'
import { signedToken } from './tokens.ts'

export interface OpenIdProvider {
  readonly issuer: string
  /** A code that is exchanged for an ID token with these claims. */
  codeFor(claims: object): string
}

/** An OpenID provider that says of people whatever it is told to; it has no login page. */
export async function startOpenIdProvider(t: Test, clientId: string): Promise<OpenIdProvider> {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const told = new Map<string, object>()
  let issuer = ''
  const idToken = (code: string): string => {
    const now = Math.floor(Date.now() / 1000)
    const all = { iss: issuer, aud: clientId, iat: now, exp: now + 60, ...told.get(code) }
    return signedToken(privateKey, 'ES256', all, { kid: 'k' })
  }
  const answers: Record<string, (body: URLSearchParams) => object> = {
    '/.well-known/openid-configuration': () => ({
      issuer,
      authorization_endpoint: `${issuer}/authorize`,
      token_endpoint: `${issuer}/token`,
      jwks_uri: `${issuer}/jwks`,
      id_token_signing_alg_values_supported: ['ES256']
    }),
    '/jwks': () => ({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k', alg: 'ES256', use: 'sig' }] }),
    '/token': body => ({
      access_token: 'none of ours',
      token_type: 'bearer',
      id_token: idToken(body.get('code') as string)
    })
  }
  const server = http.createServer(async (request, response) => {
    const body = new URLSearchParams(await text(request))
    const answer = answers[request.url as string]
    response.writeHead(answer === undefined ? 404 : 200, { 'content-type': 'application/json' })
    response.end(JSON.stringify(answer?.(body) ?? {}))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    issuer,
    codeFor(claims) {
      const code = randomUUID()
      told.set(code, claims)
      return code
    }
  }
}

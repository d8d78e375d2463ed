import { randomBytes } from 'node:crypto'
import fastifyJwt from '@fastify/jwt'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { type GatewayError, refuse } from '../src/errors.ts'
import { isApiKey } from '../src/identity/api-key.ts'
import type { Authenticator, LocalKey } from '../src/identity/authenticator.ts'
import type { Consumer } from '../src/identity/consumer.ts'
import type { CheckSignature } from '../src/identity/jwt.ts'
import { untrusted } from '../src/identity/trouble.ts'
import { definePolicy } from '../src/policy.ts'
import type { Exchange } from '../src/proxy/exchange.ts'
import type { Runtime } from '../src/runtime/runtime.ts'
import { oneOf, Type } from '../src/schema.ts'

declare module 'fastify' {
  interface FastifyInstance {
    readonly authenticator: Authenticator
  }
}

/** `@fastify/jwt` signs the gateway's own tokens, and checks the signature of every token that is seen for the first time. */
export const jwt = fp<{ authenticator: Authenticator; local: LocalKey | undefined }>(
  async (app, { authenticator, local }) => {
    await app.register(fastifyJwt, signingOptions(local))
    app.decorate('authenticator', authenticator)
  },
  { name: 'jwt' }
)

/** Without a key of its own the plugin must not have one that anybody could know. */
function signingOptions(local: LocalKey | undefined): Parameters<typeof fastifyJwt>[1] {
  if (local === undefined) return { secret: randomBytes(32).toString('hex') }
  const { algorithm, signing, verification } = local
  if (signing === undefined) return { secret: { public: verification.material } as never }
  const secret = algorithm.startsWith('HS') ? signing : { private: signing, public: verification.material }
  return { secret, sign: { algorithm: algorithm as 'HS256' } }
}

/** For those who have to choose a password of their own before anything else. */
const newcomer = refuse('password_change_required', { reason: 'password_change_required' })

const MODES = ['required', 'optional', 'none'] as const

/** Finds out who calls. Routes want to know unless they say otherwise (H-69). */
export default definePolicy({
  name: 'authentication',
  schema: Type.Union(
    [
      Type.String({ enum: [...MODES] }),
      Type.Object({
        mode: oneOf(MODES, {
          description: 'Whether callers have to, may, or need not say who they are.',
          default: 'required'
        }),
        forward_credentials: Type.Boolean({
          description: 'Pass the verified credential on to the service.',
          default: false
        }),
        query_parameter: Type.Optional(
          Type.String({
            description:
              'Query parameter that may hold the token, or a key (`sak_…`), for clients that cannot set header fields.'
          })
        ),
        websocket_protocol: Type.Optional(
          Type.String({
            description: 'A WebSocket subprotocol; the token may be offered as the one after it, as browsers have to.'
          })
        )
      })
    ],
    { description: 'Who may call: `required` (somebody known), `optional`, `none`.', default: 'required' }
  ),
  defaultOptions: () => 'required',
  compile(options, { app, runtime }) {
    const mode = typeof options === 'string' ? options : options.mode
    if (mode === 'none') return undefined
    const check = signatureCheck(app)
    const { authenticator } = app
    const anonymous = mode === 'required' ? untrusted('no_credentials') : undefined
    const places = typeof options === 'string' ? NO_PLACES : options
    const newcomers = typeof options === 'object' && (options as { newcomers?: boolean }).newcomers === true

    return {
      onRequest(request, _reply, done) {
        const { exchange } = request
        let found: Consumer | Promise<Consumer> | undefined
        try {
          found = identify(exchange, authenticator, check, runtime, places)
        } catch (error) {
          return done(count(error as GatewayError, runtime))
        }
        if (found instanceof Promise) return settle(found, exchange, newcomers, runtime, done)
        if (found === undefined) return done(anonymous)
        if (found.grant?.mustChangePassword && !newcomers) return done(count(newcomer, runtime))
        exchange.consumer = found
        done()
      }
    }
  }
})

/** Only tokens whose keys, or whose place on the revocation list, have to be asked for come this way. */
function settle(
  found: Promise<Consumer>,
  exchange: Exchange,
  newcomers: boolean,
  runtime: Runtime,
  done: (error?: Error) => void
): void {
  found.then(
    consumer => {
      if (consumer.grant?.mustChangePassword && !newcomers) return done(count(newcomer, runtime))
      exchange.consumer = consumer
      done()
    },
    error => done(count(error, runtime))
  )
}

function signatureCheck(app: FastifyInstance): CheckSignature {
  const times = { ignoreExpiration: true, ignoreNotBefore: true }
  return (token, material, algorithm) => {
    app.jwt.verify(token, { ...times, key: material, algorithms: [algorithm as 'HS256'] })
  }
}

function count(error: GatewayError, { metrics }: Runtime): GatewayError {
  metrics.authenticationFailures.inc({ reason: error.reason ?? 'error' })
  return error
}

/** Where else than in the header a token may be, for clients that cannot put it there (RFC 6750 section 2.3). */
interface Places {
  readonly query_parameter?: string
  readonly websocket_protocol?: string
}

const NO_PLACES: Places = {}

/** The caller, from whichever credential there is. @throws {GatewayError} 401 for a credential that is not good, 400 for two */
function identify(
  exchange: Exchange,
  { tokens, apiKeys }: Authenticator,
  check: CheckSignature,
  { clock }: Runtime,
  places: Places
): Consumer | Promise<Consumer> | undefined {
  const { authorization, apiKey } = exchange
  const token = places === NO_PLACES ? undefined : takeToken(exchange, places)
  if (token !== undefined) {
    if (authorization !== '' || apiKey !== '') throw untrusted('two_credentials')
    return isApiKey(token) ? apiKeys.authenticate(token, clock) : tokens.verify(token, check)
  }
  if (apiKey !== '') {
    if (authorization !== '') throw untrusted('two_credentials')
    return apiKeys.authenticate(apiKey, clock)
  }
  if (authorization === '') return undefined
  const bearer = credentialOf(authorization, 'bearer ')
  if (bearer !== undefined) return tokens.verify(bearer, check)
  const key = credentialOf(authorization, 'apikey ')
  if (key !== undefined) return apiKeys.authenticate(key, clock)
  throw untrusted('unknown_scheme')
}

/** What follows the scheme, which comes in any case and with one space or several (RFC 9110 section 11.4). */
function credentialOf(authorization: string, scheme: string): string | undefined {
  const { length } = scheme
  if (authorization.slice(0, length).toLowerCase() !== scheme) return undefined
  let start = length
  while (authorization[start] === ' ') start++
  return authorization.slice(start)
}

/** Takes a token out of the query or the offered subprotocols, so that it goes no further. @throws {GatewayError} 400 for two */
function takeToken(exchange: Exchange, { query_parameter, websocket_protocol }: Places): string | undefined {
  const offered = websocket_protocol === undefined ? undefined : exchange.takeSubprotocolAfter(websocket_protocol)
  const queried = query_parameter === undefined ? [] : exchange.takeQuery(query_parameter)
  if (queried.length + Number(offered !== undefined) > 1) throw untrusted('two_credentials')
  return offered ?? queried[0]
}

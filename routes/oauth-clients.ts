import { randomBytes, randomUUID } from 'node:crypto'
import type { FastifyPluginAsync } from 'fastify'
import { writeAudit } from '../src/database/audit.ts'
import type { Database } from '../src/database/database.ts'
import { endArtifactsOf } from '../src/database/oauth.ts'
import { deleteClient, findClient, insertClient, listClients, updateClient } from '../src/database/oauth-clients.ts'
import { refuse } from '../src/errors.ts'
import {
  advisoriesOn,
  type ClientSettings,
  hashSecret,
  type OAuthClient,
  problemsOfClient
} from '../src/identity/oauth2/clients.ts'
import { type AuthorizationServer, acquireAuthorizationServer } from '../src/identity/oauth2/server.ts'
import { oauthClient } from '../src/identity/settings.ts'
import { Type } from '../src/schema.ts'
import { auditOf, guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { listing, listOf, type Page, pageQuery, rangeOf } from './listing.ts'
import { administrators } from './operation.ts'

const SECRET_BYTES = 32

const instant = (description: string) =>
  Type.Union([Type.String({ format: 'date-time' }), Type.Null()], { description })
const id = Type.String({ description: 'Its `client_id`.', minLength: 1, maxLength: 200 })
const settings = Type.Object(oauthClient)
const shown = Type.Object({
  client_id: id,
  ...oauthClient,
  source: Type.String({ enum: ['configuration', 'database'], description: 'Where it is written down.' }),
  advisories: Type.Array(Type.String(), { description: 'What it is allowed and should give up.' }),
  created_at: instant('When it was registered; null for those of the configuration.'),
  updated_at: instant('When it was changed last; null for those of the configuration.')
})
const made = Type.Object({
  ...shown.properties,
  client_secret: Type.Optional(Type.String({ description: 'Shown this once, and kept as a hash.' }))
})
const KEY = Type.Object({
  kid: Type.String({ description: 'By which tokens name it.' }),
  algorithm: Type.String({ description: 'What it signs with.' }),
  created_at: Type.String({ format: 'date-time', description: 'When it was made.' }),
  retired_at: instant('When another took over; null for the one that signs.')
})
const params = Type.Object({ client_id: id })

/** Clients of OAuth, and the keys that its tokens are signed with (IDN-27 to IDN-31). */
const oauthClients: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  const acquired = acquireAuthorizationServer(snapshot.identity, runtime)
  if (acquired !== undefined) app.addHook('onClose', async () => runtime.leases.release(acquired.key))
  const server = acquired?.server as AuthorizationServer
  const database = runtime.database as Database
  const { clock, revocations } = runtime

  app.get<{ Querystring: Page }>(
    '/clients',
    administrators('Clients of OAuth', { query: Type.Object(pageQuery), answers: { 200: listOf(shown) } }),
    async request => {
      const configured = server.configuredClients().map(client => describe(client))
      const { limit, offset } = rangeOf(request.query)
      const page = configured.slice(offset, offset + limit)
      const { clients, total } = await listClients(database.db, {
        limit: limit - page.length,
        offset: Math.max(0, offset - configured.length)
      })
      return listing(
        request,
        request.query,
        { data: [...page, ...clients.map(describe)], total: configured.length + total },
        { version: snapshot.gateway.version, now: clock.now() }
      )
    }
  )

  app.post<{ Body: ClientSettings }>(
    '/clients',
    administrators('Registers a client of OAuth; its secret is in this answer and in no other', {
      body: settings,
      answers: { 201: made }
    }),
    async (request, reply) => {
      check(request.body)
      const { secret, secretHash } = secretFor(request.body)
      const client: OAuthClient = { id: randomUUID(), ...request.body, secretHash }
      const now = clock.now()
      await database.transaction(async transaction => {
        await insertClient(transaction, client, now)
        await writeAudit(transaction, [
          { ...auditOf(request, runtime), ...change('oauth_client.create', client.id), after: request.body }
        ])
      })
      return reply.code(201).send({ ...describe({ ...client, createdAt: now, updatedAt: now }), ...secret })
    }
  )

  app.get<{ Params: { client_id: string } }>(
    '/clients/:client_id',
    administrators('A client of OAuth', { params, answers: { 200: shown } }),
    async ({ params: { client_id } }) => describe(await existing(client_id))
  )

  app.put<{ Params: { client_id: string }; Body: ClientSettings }>(
    '/clients/:client_id',
    administrators('Changes a client of OAuth; what it was given before stays good', {
      params,
      body: settings,
      answers: { 200: made }
    }),
    async request => {
      const { client_id } = request.params
      check(request.body)
      const before = await ofDatabase(client_id)
      const keeps = (before.secretHash !== undefined) === hasSecret(request.body)
      const { secret, secretHash } = keeps ? { secret: {}, secretHash: before.secretHash } : secretFor(request.body)
      const client = { id: client_id, ...request.body, secretHash }
      const now = clock.now()
      await database.transaction(async transaction => {
        await updateClient(transaction, client, now)
        await writeAudit(transaction, [
          {
            ...auditOf(request, runtime),
            ...change('oauth_client.update', client_id),
            before: settingsOf(before),
            after: request.body
          }
        ])
      })
      return { ...describe({ ...client, createdAt: before.createdAt, updatedAt: now }), ...secret }
    }
  )

  app.post<{ Params: { client_id: string } }>(
    '/clients/:client_id/secret',
    administrators('Gives a client of OAuth another secret; the one before is refused from here on', {
      params,
      answers: {
        200: Type.Object({
          client_id: id,
          client_secret: Type.String({ description: 'Shown this once, and kept as a hash.' })
        })
      }
    }),
    async request => {
      const { client_id } = request.params
      const before = await ofDatabase(client_id)
      if (!hasSecret(before)) throw refuse('conflict', { details: 'This client has no secret.' })
      const { secret, secretHash } = secretFor(before)
      await database.transaction(async transaction => {
        await updateClient(transaction, { ...before, secretHash }, clock.now())
        await writeAudit(transaction, [{ ...auditOf(request, runtime), ...change('oauth_client.secret', client_id) }])
      })
      return { client_id, ...secret }
    }
  )

  app.delete<{ Params: { client_id: string } }>(
    '/clients/:client_id',
    administrators('Forgets a client of OAuth, and takes back everything it was given', {
      params,
      answers: { 204: null }
    }),
    async (request, reply) => {
      const { client_id } = request.params
      const before = await ofDatabase(client_id)
      await database.transaction(async transaction => {
        await deleteClient(transaction, client_id)
        await writeAudit(transaction, [
          { ...auditOf(request, runtime), ...change('oauth_client.delete', client_id), before: settingsOf(before) }
        ])
      })
      const now = clock.now()
      const tokens = await endArtifactsOf(database, client_id, now)
      await revocations.revoke(tokens.map(({ id, expires_at }) => ({ key: id, ttlMs: expires_at - now })))
      return reply.code(204).send()
    }
  )

  app.get(
    '/keys',
    administrators('Keys that tokens of OAuth are signed with: the one that signs, then those that still count', {
      answers: { 200: Type.Object({ keys: Type.Array(KEY, { description: 'The one that signs comes first.' }) }) }
    }),
    async () => ({ keys: server.keys.signing.map(describeKey) })
  )

  app.post(
    '/keys/rotate',
    administrators('Makes a new key that signs from now on; tokens of the ones before stay good', {
      answers: { 200: KEY }
    }),
    async request => {
      const before = server.keys.signing[0]?.kid
      await server.keys.rotate((transaction, kid) =>
        writeAudit(transaction, [
          {
            ...auditOf(request, runtime),
            ...change('oauth_key.rotate', kid),
            target: `oauth_key:${kid}`,
            before: { kid: before },
            after: { kid }
          }
        ])
      )
      return describeKey(server.keys.signing[0] as Parameters<typeof describeKey>[0])
    }
  )

  const existing = async (id: string): Promise<Described> => {
    const client = await server.findClient(id)
    if (client === undefined) throw refuse('not_found', { details: `There is no client "${id}".` })
    return client
  }

  /** Only what the API has made can be changed by it. */
  const ofDatabase = async (id: string) => {
    if (server.configuredClient(id) !== undefined)
      throw refuse('conflict', { details: `"${id}" stands in the configuration, and is changed there.` })
    const client = await findClient(database.db, id)
    if (client === undefined) throw refuse('not_found', { details: `There is no client "${id}".` })
    return client
  }
}

function describeKey({ kid, jwk, createdAt, retiredAt }: AuthorizationServer['keys']['signing'][number]) {
  return { kid, algorithm: jwk.alg, created_at: time(createdAt), retired_at: time(retiredAt) }
}

type Described = OAuthClient & { readonly createdAt?: number; readonly updatedAt?: number }

/** A client as it is shown: never with its secret, nor the hash of it. */
function describe(client: Described) {
  const { createdAt, updatedAt } = client
  return {
    client_id: client.id,
    ...settingsOf(client),
    source: createdAt === undefined ? 'configuration' : 'database',
    advisories: advisoriesOn(client),
    created_at: time(createdAt),
    updated_at: time(updatedAt)
  }
}

function settingsOf(client: OAuthClient): ClientSettings {
  const { id: _, secretHash: __, createdAt: ___, updatedAt: ____, ...settings } = client as Described
  return settings
}

function time(ms: number | undefined): string | null {
  return ms === undefined ? null : new Date(ms).toISOString()
}

function change(action: string, id: string): { action: string; target: string; outcome: 'changed' } {
  return { action, target: `client:${id}`, outcome: 'changed' }
}

/** @throws {GatewayError} 422 with everything that is wrong */
function check(client: ClientSettings): void {
  const problems = problemsOfClient(client)
  if (problems.length === 0) return
  throw refuse('validation_error', {
    details: problems.map(({ key, message }) => `${key} ${message}`).join('; '),
    fields: problems.map(({ key, message }) => ({ field: key, message, type: 'client' }))
  })
}

function hasSecret({ token_endpoint_auth_method: method }: ClientSettings): boolean {
  return method === 'client_secret_basic'
}

function secretFor(client: ClientSettings): { secret: { client_secret?: string }; secretHash: string | undefined } {
  if (!hasSecret(client)) return { secret: {}, secretHash: undefined }
  const client_secret = randomBytes(SECRET_BYTES).toString('base64url')
  return { secret: { client_secret }, secretHash: hashSecret(client_secret) }
}

export default oauthClients

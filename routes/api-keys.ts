import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import {
  type ApiKey,
  createApiKey,
  deleteApiKey,
  findApiKey,
  listApiKeys,
  rotateApiKey,
  updateApiKey
} from '../src/database/api-keys.ts'
import { writeAudit } from '../src/database/audit.ts'
import type { Database } from '../src/database/database.ts'
import { findUser, type Queries, type User } from '../src/database/users.ts'
import { refuse } from '../src/errors.ts'
import { makeApiKey } from '../src/identity/api-key.ts'
import { isUuid } from '../src/identity/claims.ts'
import type { Consumer } from '../src/identity/consumer.ts'
import { inCommon, isGranted } from '../src/identity/permissions.ts'
import { Type } from '../src/schema.ts'
import { auditOf, guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { listing, listOf, type Page, pageQuery, rangeOf } from './listing.ts'
import { type Operation, operation } from './operation.ts'

const DAY_MS = 86_400_000
/** Ten years. */
const LONGEST_DAYS = 3650
/** A week. */
const LONGEST_GRACE_SECONDS = 604_800

const NAME = Type.String({
  description: 'What it is for.',
  minLength: 1,
  maxLength: 100,
  pattern: '^\\P{Cc}+$',
  examples: ['Nightly import']
})
const PERMISSIONS = Type.Array(Type.String({ minLength: 1, maxLength: 200, pattern: '^[^\\s\\p{Cc}]+$' }), {
  description: 'What it may do, of what its owner may.',
  maxItems: 200,
  examples: [['projects.read']]
})
const EXPIRES_IN_DAYS = Type.Union([Type.Integer({ minimum: 1, maximum: LONGEST_DAYS }), Type.Null()], {
  description: 'When it ends, from now; null for never.'
})
const time = (description: string) => Type.String({ description, format: 'date-time' })
const timeOrNull = (description: string) =>
  Type.Union([Type.String({ format: 'date-time' }), Type.Null()], { description })

const SECRET = {
  id: Type.String({ description: 'Under which it is changed and taken back.', format: 'uuid' }),
  key: Type.String({
    description: 'The key itself, shown this once.',
    examples: ['sak_dev_r5mhyw3n7ktqz2vdb4xjcu6gsa']
  }),
  name: NAME,
  permissions: PERMISSIONS,
  created_at: time('When it was made.'),
  expires_at: timeOrNull('When it ends; null for never.')
}

/** A key as it is shown (IDN-25), without what it hashes to. */
const API_KEY = Type.Object({
  id: SECRET.id,
  user_id: Type.String({ description: 'Whose it is.', format: 'uuid' }),
  name: NAME,
  prefix: Type.String({ description: 'How it begins.', examples: ['sak_dev_r5mh'] }),
  permissions: PERMISSIONS,
  created_at: time('When it was made.'),
  updated_at: time('When it was changed or rotated last.'),
  expires_at: SECRET.expires_at,
  last_used_at: timeOrNull('When it was used last, to about ten seconds; null for never.'),
  previous_valid_until: timeOrNull('Until when the key that it has replaced is still good; null if that is over.')
})

interface KeyBody {
  readonly name?: string
  readonly permissions?: readonly string[]
  readonly expires_in_days?: number | null
}

interface ByKeyId {
  Params: { key_id: string }
}

/** Keys that users make for their programs (IDN-20 to IDN-25). */
const apiKeys: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  const { clock } = runtime
  // There is one wherever anybody asks; where only documents are made of this, nobody does.
  const database = runtime.database as Database
  const keyOperation = (summary: string, parts: Partial<Operation> = {}) =>
    operation({ summary, tag: 'API keys', access: 'user', ...parts })
  const params = Type.Object({ key_id: Type.String({ description: 'Id of the key.', format: 'uuid' }) })

  app.get<{ Querystring: Page & { user_id?: string } }>(
    '/',
    keyOperation('API keys, the youngest first', {
      description: 'Users see their own. Administrators see everybody’s, or those of one user.',
      query: Type.Object({
        ...pageQuery,
        user_id: Type.Optional(Type.String({ description: 'Whose keys.', format: 'uuid' }))
      }),
      answers: { 200: listOf(API_KEY) }
    }),
    async request => {
      const { query } = request
      const caller = callerOf(request)
      const whose = isAdministrator(caller) ? query.user_id : ((await userOf(database.db, caller))?.id ?? NOBODY)
      if (query.user_id !== undefined && query.user_id !== whose)
        throw refuse('insufficient_permissions', { details: 'Only administrators may see the keys of others.' })
      const { keys, total } = await listApiKeys(database.db, whose, rangeOf(query))
      const data = keys.map(show)
      return listing(request, query, { data, total }, { version: snapshot.gateway.version, now: clock.now() })
    }
  )

  app.post<{ Body: KeyBody & { name: string } }>(
    '/',
    keyOperation('Makes an API key', {
      description:
        'The key itself is in this answer and nowhere else. It may do what is listed, as long as its owner may.',
      body: Type.Object({
        name: NAME,
        expires_in_days: Type.Optional(EXPIRES_IN_DAYS),
        permissions: Type.Array(PERMISSIONS.items, { ...PERMISSIONS, default: [] })
      }),
      answers: { 201: Type.Object(SECRET) }
    }),
    async (request, reply) => {
      const { body } = request
      const caller = callerOf(request)
      const { key, ...print } = makeApiKey(snapshot.gateway.environment)
      const made = await database.transaction(async trx => {
        const now = clock.now()
        const owner = await ownerOf(trx, caller)
        const { name, permissions = [], expires_in_days: days } = body
        const expiresAt = expiryOf(caller, days, now)
        checkPermissions(caller, owner, permissions)
        checkEnd(caller, expiresAt)
        const id = await createApiKey(trx, { userId: owner.id, name, permissions, expiresAt, ...print }, now)
        const after = show((await findApiKey(trx, id)) as ApiKey)
        await writeAudit(trx, [{ ...entry(request, 'create', id), after }])
        return after
      })
      return secret(reply.code(201).header('location', `${snapshot.paths.api_keys}/${made.id}`), made, key)
    }
  )

  app.get<ByKeyId>('/:key_id', keyOperation('An API key', { params, answers: { 200: API_KEY } }), async request =>
    show((await visible(database.db, request)).key)
  )

  app.put<ByKeyId & { Body: KeyBody }>(
    '/:key_id',
    keyOperation('Changes what an API key is called, may do, and until when; what is not named stays', {
      params,
      body: Type.Object({
        name: Type.Optional(NAME),
        expires_in_days: Type.Optional(EXPIRES_IN_DAYS),
        permissions: Type.Optional(PERMISSIONS)
      }),
      answers: { 200: API_KEY }
    }),
    async request => {
      const { name, permissions, expires_in_days: days } = request.body
      return database.transaction(async (trx, changed) => {
        const { key, owner, caller } = await visible(trx, request)
        const now = clock.now()
        const expiresAt = days === undefined ? undefined : (expiryOf(caller, days, now) ?? null)
        checkPermissions(caller, owner, permissions ?? [])
        if (expiresAt !== undefined) checkEnd(caller, expiresAt ?? undefined)
        await updateApiKey(trx, key.id, { name, permissions, expiresAt }, now)
        const after = show((await findApiKey(trx, key.id)) as ApiKey)
        await writeAudit(trx, [{ ...entry(request, 'update', key.id), before: show(key), after }])
        changed.push({ kind: 'api_key', subject: key.id })
        return after
      })
    }
  )

  app.post<ByKeyId & { Body: { grace_seconds?: number } | null | undefined }>(
    '/:key_id/rotate',
    keyOperation('Puts a new key in the place of an API key', {
      description:
        'The new one is in this answer and nowhere else. The one before it is good for `grace_seconds` more.',
      params,
      body: Type.Union([
        Type.Object({
          grace_seconds: Type.Integer({
            description: 'How long the present key is still good.',
            default: 0,
            minimum: 0,
            maximum: LONGEST_GRACE_SECONDS
          })
        }),
        Type.Null()
      ]),
      answers: {
        200: Type.Object({ ...SECRET, previous_valid_until: timeOrNull('Until when the one before is good.') })
      }
    }),
    async (request, reply) => {
      const graceMs = (request.body?.grace_seconds ?? 0) * 1000
      const { key: secretKey, ...print } = makeApiKey(snapshot.gateway.environment)
      const after = await database.transaction(async (trx, changed) => {
        const { key, owner, caller } = await visible(trx, request)
        // What it says beyond what its owner may is nobody's.
        checkPermissions(caller, owner, inCommon(key.permissions, owner.permissions))
        checkEnd(caller, key.expiresAt)
        const now = clock.now()
        await rotateApiKey(trx, key.id, print, graceMs === 0 ? undefined : now + graceMs, now)
        const after = show((await findApiKey(trx, key.id)) as ApiKey)
        await writeAudit(trx, [{ ...entry(request, 'rotate', key.id), before: show(key), after }])
        changed.push({ kind: 'api_key', subject: key.id })
        return after
      })
      return { ...secret(reply, after, secretKey), previous_valid_until: after.previous_valid_until }
    }
  )

  app.delete<ByKeyId>(
    '/:key_id',
    keyOperation('Takes an API key back', { params, answers: { 204: null } }),
    async (request, reply) => {
      await database.transaction(async (trx, changed) => {
        const { key } = await visible(trx, request)
        if (!(await deleteApiKey(trx, key.id))) throw noSuchKey()
        await writeAudit(trx, [{ ...entry(request, 'delete', key.id), before: show(key) }])
        changed.push({ kind: 'api_key', subject: key.id })
      })
      return reply.code(204).send()
    }
  )

  function entry(request: FastifyRequest, action: string, id: string) {
    return {
      ...auditOf(request, runtime),
      action: `api_key.${action}`,
      target: `api_key:${id}`,
      outcome: 'changed' as const
    }
  }
}

const NOBODY = '00000000-0000-4000-8000-000000000000'

function callerOf({ consumer }: FastifyRequest): Consumer {
  return consumer as Consumer
}

function isAdministrator({ roles }: Consumer): boolean {
  return roles.includes('admin')
}

/** The user for whom the caller makes keys. @throws {GatewayError} 403 for callers who are no users of the database, or not in full */
async function ownerOf(db: Queries, caller: Consumer): Promise<User> {
  const owner = await userOf(db, caller)
  if (owner === undefined)
    throw refuse('insufficient_permissions', {
      details: 'API keys belong to users of the gateway, and the caller is none.'
    })
  return owner
}

/** The user of the database who the caller is; undefined if it is none. @throws {GatewayError} 403 for one who is it only in part */
async function userOf(db: Queries, caller: Consumer): Promise<User | undefined> {
  const user = isUuid(caller.userId) ? await findUser(db, caller.userId) : undefined
  if (user !== undefined) checkRoles(caller, user)
  return user
}

/** A key has its owner's roles: nobody may get at those by way of a token that was given without them. @throws {GatewayError} 403 */
function checkRoles(caller: Consumer, owner: User): void {
  if (owner.roles.every(role => caller.roles.includes(role))) return
  throw refuse('insufficient_permissions', {
    details: 'A key has roles of its owner that this credential lacks.'
  })
}

/** A key, if the caller may know of it, and its owner. @throws {GatewayError} 404, 403 for an owner who has not come in full */
async function visible(
  db: Queries,
  request: FastifyRequest<ByKeyId>
): Promise<{ key: ApiKey; owner: User; caller: Consumer }> {
  const caller = callerOf(request)
  const key = await findApiKey(db, request.params.key_id)
  if (key === undefined || (key.userId !== caller.userId && !isAdministrator(caller))) throw noSuchKey()
  const owner = await findUser(db, key.userId)
  if (owner === undefined) throw noSuchKey()
  if (!isAdministrator(caller)) checkRoles(caller, owner)
  return { key, owner, caller }
}

function noSuchKey() {
  return refuse('not_found', { details: 'There is no such API key.', reason: 'no_such_api_key' })
}

/** When a key ends, in milliseconds since 1970; undefined for never. One that a key makes ends with that key unless it says when. */
function expiryOf(caller: Consumer, days: number | null | undefined, now: number): number | undefined {
  if (typeof days === 'number') return now + days * DAY_MS
  return days === undefined && caller.kind === 'api_key' && caller.expiresAt < Number.POSITIVE_INFINITY
    ? caller.expiresAt
    : undefined
}

/**
 * A key may do no more than its owner, and no more than the credential by which it is made or changed; for administrators who
 * have logged in only the first holds. @throws {GatewayError} 403
 */
function checkPermissions(caller: Consumer, owner: User, permissions: readonly string[]): void {
  const beyond = (held: readonly string[]) => permissions.filter(permission => !isGranted(held, permission))
  deny(beyond(owner.permissions), 'its owner')
  if (caller.kind === 'api_key' || !isAdministrator(caller)) deny(beyond(caller.permissions), 'the caller')
}

/** @throws {GatewayError} 403 for a key that would be good for longer than the one that makes or changes it */
function checkEnd({ kind, expiresAt: end }: Consumer, expiresAt = Number.POSITIVE_INFINITY): void {
  if (kind === 'api_key' && expiresAt > end)
    throw refuse('insufficient_permissions', { details: 'A key may not outlive the one by which it is made.' })
}

function deny(beyond: readonly string[], whom: string): void {
  if (beyond.length > 0)
    throw refuse('insufficient_permissions', {
      details: `A key may not do what ${whom} may not: ${beyond.join(', ')}.`
    })
}

function show(key: ApiKey) {
  const time = (ms: number | undefined) => (ms === undefined ? null : new Date(ms).toISOString())
  return {
    id: key.id,
    user_id: key.userId,
    name: key.name,
    prefix: key.prefix,
    permissions: key.permissions,
    created_at: new Date(key.createdAt).toISOString(),
    updated_at: new Date(key.updatedAt).toISOString(),
    expires_at: time(key.expiresAt),
    last_used_at: time(key.lastUsedAt),
    previous_valid_until: time(key.previousUntil)
  }
}

/** The one answer that holds a key, for nobody's cache. */
function secret(
  reply: FastifyReply,
  { id, name, permissions, created_at, expires_at }: ReturnType<typeof show>,
  key: string
) {
  reply.header('cache-control', 'no-store')
  return { id, key, name, permissions, created_at, expires_at }
}

export default apiKeys

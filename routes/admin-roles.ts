import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import { writeAudit } from '../src/database/audit.ts'
import type { Database } from '../src/database/database.ts'
import { isDuplicate } from '../src/database/database-error.ts'
import {
  ADMIN,
  changeAccess,
  createRole,
  deleteRole,
  findRole,
  holdersOf,
  listRoles,
  type Role,
  updateRole
} from '../src/database/roles.ts'
import { type Queries, raiseTokenVersion } from '../src/database/users.ts'
import { refuse } from '../src/errors.ts'
import { endpointPermissions } from '../src/identity/endpoint-permissions.ts'
import { auditPermissions, routesOfRole } from '../src/identity/permission-audit.ts'
import { Type } from '../src/schema.ts'
import { auditOf, guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { listing, listOf, type Page, pageQuery, rangeOf } from './listing.ts'
import { administrators } from './operation.ts'

const NAME = Type.String({
  description: 'What routes and tokens call it.',
  pattern: '^[\\p{L}\\p{N}][\\p{L}\\p{N}._:-]*$',
  maxLength: 64,
  examples: ['clerk']
})
const DESCRIPTION = Type.Union([Type.String({ maxLength: 500 }), Type.Null()], { description: 'What it is for.' })
const PERMISSIONS = Type.Array(Type.String({ minLength: 1, maxLength: 200, pattern: '^[^\\s\\p{Cc}]+$' }), {
  description: 'What whoever has it may do; `*` stands for a segment, at the end for all that follow.',
  maxItems: 200,
  examples: [['orders.*']]
})
const time = (description: string) => Type.String({ description, format: 'date-time' })

const ROLE = Type.Object({
  id: Type.String({ description: 'Under which it is changed.', format: 'uuid' }),
  name: NAME,
  description: DESCRIPTION,
  permissions: PERMISSIONS,
  users: Type.Integer({ description: 'How many users have it.' }),
  created_at: time('When it was made.'),
  updated_at: time('When it was changed last.')
})

const text = (description: string) => Type.String({ description })
const texts = (description: string) => Type.Array(Type.String(), { description })
const keyOf = { id: text('Id of the key.'), name: text('Its name.'), username: text('Whose it is.') }
const routes = texts('Ids of the routes that ask for it.')

const PERMISSION_AUDIT = Type.Object({
  public_routes: Type.Array(
    Type.Object({
      route: text('Id of the route.'),
      path: text('Its path.'),
      service: text('Where it leads.'),
      authentication: text('`none`, or `optional`.')
    }),
    { description: 'Routes for which nobody has to say who he is.' }
  ),
  unmet_permissions: Type.Array(Type.Object({ permission: text('A permission.'), routes }), {
    description: 'Permissions that routes ask for, and no user, and no key of the configuration, has.'
  }),
  unmet_roles: Type.Array(Type.Object({ role: text('A role.'), routes }), { description: 'The same of roles.' }),
  unused_roles: Type.Array(Type.Object({ id: text('Id of the role.'), role: text('Its name.') }), {
    description: 'Roles that no user has.'
  }),
  unused_permissions: Type.Array(Type.Object({ role: text('A role.'), permission: text('One of its permissions.') }), {
    description: 'Permissions of roles that no route asks for.'
  }),
  users_without_roles: Type.Array(Type.Object({ id: text('Id of the user.'), username: text('Its name.') }), {
    description: 'Users who have no role.'
  }),
  wide_keys: Type.Array(Type.Object({ ...keyOf, beyond: texts('What its owner may not.') }), {
    description: 'Keys that list more than their owner may; that is of no use to them.'
  }),
  unused_keys: Type.Array(
    Type.Object({
      ...keyOf,
      last_used_at: Type.Union([Type.String(), Type.Null()], { description: 'Null for never.' })
    }),
    {
      description: 'Keys that have not been used for 90 days.'
    }
  ),
  keys_without_expiry: Type.Array(Type.Object(keyOf), { description: 'Keys that never end.' })
})

const ENDPOINT_PERMISSION = Type.Object({
  id: Type.String({ description: 'The same for the same endpoint and role.', format: 'uuid' }),
  endpoint_id: Type.String({ description: 'Id of the endpoint.', format: 'uuid' }),
  role_id: Type.String({ description: 'Id of the role.', format: 'uuid' }),
  endpoint: text('Its method and path.'),
  role: text('Name of the role.'),
  created_at: time('Since when there have been both.')
})

interface RoleBody {
  readonly name?: string
  readonly description?: string | null
  readonly permissions?: readonly string[]
}

interface ByRoleId {
  Params: { role_id: string }
}

/** Roles, for administrators (AZN-02, AZN-14). */
const adminRoles: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  const { clock } = runtime
  // There is one wherever anybody asks; where only documents are made of this, nobody does.
  const database = runtime.database as Database
  const params = Type.Object({ role_id: Type.String({ description: 'Id of the role.', format: 'uuid' }) })

  app.get<{ Querystring: Page }>(
    '/roles',
    administrators('Roles by name', { query: Type.Object(pageQuery), answers: { 200: listOf(ROLE) } }),
    async request => {
      const { query } = request
      const { roles, total } = await listRoles(database.db, rangeOf(query))
      const data = roles.map(role => show(role, role.users))
      return listing(request, query, { data, total }, { version: snapshot.gateway.version, now: clock.now() })
    }
  )

  app.post<{ Body: RoleBody & { name: string; permissions: readonly string[] } }>(
    '/roles',
    administrators('Makes a role', {
      body: Type.Object({
        name: NAME,
        description: Type.Optional(DESCRIPTION),
        permissions: Type.Array(PERMISSIONS.items, { ...PERMISSIONS, default: [] })
      }),
      answers: { 201: ROLE },
      refuses: ['conflict']
    }),
    async (request, reply) => {
      const { name, description, permissions } = request.body
      const role = await unlessTaken(() =>
        changeAccess(database, async trx => {
          const id = await createRole(trx, { name, description: description ?? undefined, permissions }, clock.now())
          const after = await shown(trx, id)
          await writeAudit(trx, [{ ...entry(request, 'create', after), after }])
          return after
        })
      )
      return reply.code(201).header('location', `${snapshot.paths.admin}/roles/${role.id}`).send(role)
    }
  )

  app.get<ByRoleId>(
    '/roles/:role_id',
    administrators('A role', { params, answers: { 200: ROLE }, refuses: ['not_found'] }),
    async ({ params }) => shown(database.db, params.role_id)
  )

  app.put<ByRoleId & { Body: RoleBody }>(
    '/roles/:role_id',
    administrators('Changes a role; what is not named stays', {
      description: 'Whoever has it needs new tokens, which a refresh gives.',
      params,
      body: Type.Object({
        name: Type.Optional(NAME),
        description: Type.Optional(DESCRIPTION),
        permissions: Type.Optional(PERMISSIONS)
      }),
      answers: { 200: ROLE },
      refuses: ['not_found', 'conflict']
    }),
    async request => {
      const { body } = request
      return unlessTaken(() =>
        changeAccess(database, async (trx, changed) => {
          const before = await shown(trx, request.params.role_id)
          const now = clock.now()
          if (before.name === ADMIN && (body.name ?? ADMIN) !== ADMIN) throw neededByUs('renamed')
          await updateRole(trx, before.id, body, now)
          const after = await shown(trx, before.id)
          const bites = after.name !== before.name || !sameWords(after.permissions, before.permissions)
          if (bites) {
            await raiseTokenVersion(trx, changed, await holdersOf(trx, before.id), now)
            changed.push({ kind: 'role', subject: before.id })
          }
          await writeAudit(trx, [{ ...entry(request, 'update', after), before, after }])
          return after
        })
      )
    }
  )

  app.delete<ByRoleId>(
    '/roles/:role_id',
    administrators('Deletes a role, and takes it away from all who have it', {
      params,
      answers: {
        200: Type.Object({
          id: ROLE.properties.id,
          users: Type.Integer({ description: 'Users from whom it was taken.' }),
          routes: texts('Ids of the routes that still ask for it.')
        })
      },
      refuses: ['not_found', 'conflict']
    }),
    async request =>
      changeAccess(database, async (trx, changed) => {
        const before = await shown(trx, request.params.role_id)
        if (before.name === ADMIN) throw neededByUs('deleted')
        const holders = await holdersOf(trx, before.id)
        await deleteRole(trx, before.id)
        await raiseTokenVersion(trx, changed, holders, clock.now())
        changed.push({ kind: 'role', subject: before.id })
        await writeAudit(trx, [{ ...entry(request, 'delete', before), before }])
        return { id: before.id, users: holders.length, routes: routesOfRole(snapshot.routes, before.name) }
      })
  )

  app.get<{ Querystring: Page & { endpoint_id?: string; role_id?: string } }>(
    '/endpoint-permissions',
    administrators('Which roles registered endpoints ask for', {
      description:
        'An endpoint lets whoever has one of them pass. They are changed with the service: `required_roles`.',
      query: Type.Object({
        ...pageQuery,
        endpoint_id: Type.Optional(Type.String({ description: 'Of one endpoint.', format: 'uuid' })),
        role_id: Type.Optional(Type.String({ description: 'Of one role.', format: 'uuid' }))
      }),
      answers: { 200: listOf(ENDPOINT_PERMISSION) }
    }),
    async request => {
      const { query } = request
      const all = await endpointPermissions(database.db, query)
      const { limit, offset } = rangeOf(query)
      const data = all
        .slice(offset, offset + limit)
        .map(({ created_at, ...rest }) => ({ ...rest, created_at: new Date(created_at).toISOString() }))
      const page = { data, total: all.length }
      return listing(request, query, page, { version: snapshot.gateway.version, now: clock.now() })
    }
  )

  app.get(
    '/permissions/audit',
    administrators('What to look at again: what is open, and what is granted or asked for in vain', {
      answers: { 200: PERMISSION_AUDIT }
    }),
    () => auditPermissions(database.db, snapshot, clock.now())
  )

  function entry(request: FastifyRequest, action: string, { name }: { name: string }) {
    return {
      ...auditOf(request, runtime),
      action: `role.${action}`,
      target: `role:${name}`,
      outcome: 'changed' as const
    }
  }
}

/** @throws {GatewayError} 404 */
async function shown(db: Queries, id: string) {
  const role = await findRole(db, id)
  if (role === undefined) throw refuse('not_found', { details: 'There is no such role.', reason: 'no_such_role' })
  return show(role, (await holdersOf(db, id)).length)
}

function show(role: Role, users: number) {
  return {
    id: role.id,
    name: role.name,
    description: role.description ?? null,
    permissions: role.permissions,
    users,
    created_at: new Date(role.createdAt).toISOString(),
    updated_at: new Date(role.updatedAt).toISOString()
  }
}

function neededByUs(what: string) {
  return refuse('conflict', { details: `The role ${ADMIN} is the gateway’s own, and cannot be ${what}.` })
}

function sameWords(some: readonly string[], others: readonly string[]): boolean {
  return some.length === others.length && some.every(word => others.includes(word))
}

/** @throws {GatewayError} 409 when the name is another role's */
async function unlessTaken<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act()
  } catch (error) {
    if (isDuplicate(error)) throw refuse('conflict', { details: 'The name is taken by another role.' })
    throw error
  }
}

export default adminRoles

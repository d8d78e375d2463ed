import type { FastifyPluginAsync, FastifyRequest } from 'fastify'
import type { Transaction } from 'kysely'
import { writeAudit } from '../src/database/audit.ts'
import type { Database } from '../src/database/database.ts'
import { isDuplicate } from '../src/database/database-error.ts'
import { assignRole, changeAccess, findRoles, type Role, removeRole } from '../src/database/roles.ts'
import { endSessionsOf } from '../src/database/sessions.ts'
import type { Tables } from '../src/database/tables.ts'
import {
  createUser,
  deleteUser,
  findUser,
  listUsers,
  raiseTokenVersion,
  setPassword,
  type User,
  updateUser
} from '../src/database/users.ts'
import { refuse } from '../src/errors.ts'
import { madeUpPassword } from '../src/identity/administrator.ts'
import { EMAIL, HUMAN_NAME, NEW_PASSWORD, showUser, USER, USERNAME } from '../src/identity/user-view.ts'
import { Type } from '../src/schema.ts'
import { auditOf, guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { filterWord, listing, listOf, type Page, pageQuery, rangeOf } from './listing.ts'
import { administrators } from './operation.ts'

const TIER = Type.Union([Type.String({ minLength: 1, maxLength: 64, pattern: '^\\P{Cc}+$' }), Type.Null()], {
  description: 'Tier whose limits the user has; null for none.'
})
const ACTIVE = Type.Boolean({ description: 'Whether the user may do anything at all.' })
const ROLE_NAME = Type.String({ description: 'Name of a role.', minLength: 1, maxLength: 64 })
const ONE_TIME = Type.String({ description: 'Good for choosing another one; shown this once.' })

interface ByUserId {
  Params: { user_id: string }
}

interface UserBody {
  readonly username?: string
  readonly email?: string
  readonly first_name?: string | null
  readonly last_name?: string | null
  readonly tier?: string | null
  readonly active?: boolean
}

interface NewUserBody extends UserBody {
  readonly username: string
  readonly email: string
  readonly password?: string
  readonly roles: readonly string[]
}

interface UserQuery extends Page {
  readonly name?: string
  readonly role?: string
  readonly active?: boolean
}

/** Users, for administrators (AZN-14). */
const adminUsers: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  const { clock, passwords } = runtime
  // There is one wherever anybody asks; where only documents are made of this, nobody does.
  const database = runtime.database as Database
  const hash = (password: string): Promise<string> => passwords.hash(password, snapshot.identity.password)
  const params = Type.Object({ user_id: Type.String({ description: 'Id of the user.', format: 'uuid' }) })

  app.get<{ Querystring: UserQuery }>(
    '/users',
    administrators('Users by name', {
      query: Type.Object({
        ...pageQuery,
        name: filterWord('What the username or the e-mail address begins with.'),
        role: filterWord('A role that they have.'),
        active: Type.Optional(Type.Boolean({ description: 'Whether they are active.' }))
      }),
      answers: { 200: listOf(USER) }
    }),
    async request => {
      const { query } = request
      const { users, total } = await listUsers(database.db, query, rangeOf(query))
      const data = users.map(showUser)
      return listing(request, query, { data, total }, { version: snapshot.gateway.version, now: clock.now() })
    }
  )

  app.post<{ Body: NewUserBody }>(
    '/users',
    administrators('Makes a user', {
      description:
        'Without a password it gets one that is in this answer and nowhere else, and has to choose another first.',
      body: Type.Object({
        username: USERNAME,
        email: EMAIL,
        password: Type.Optional(NEW_PASSWORD),
        first_name: Type.Optional(HUMAN_NAME),
        last_name: Type.Optional(HUMAN_NAME),
        tier: Type.Optional(TIER),
        active: Type.Optional(ACTIVE),
        roles: Type.Array(ROLE_NAME, { description: 'Names of its roles.', default: [] })
      }),
      answers: { 201: Type.Object({ ...USER.properties, password: Type.Optional(ONE_TIME) }) },
      refuses: ['conflict']
    }),
    async (request, reply) => {
      const { username, email, first_name, last_name, tier, active, roles, password } = request.body
      const given = password ?? madeUpPassword()
      const passwordHash = await hash(given)
      const user = await unlessTaken(() =>
        changeAccess(database, async trx => {
          const user = {
            ...{ username, email, passwordHash, active: active ?? true, mustChangePassword: password === undefined },
            ...{ firstName: first_name ?? undefined, lastName: last_name ?? undefined, tier: tier ?? undefined },
            roleIds: (await rolesOf(trx, roles)).map(({ id }) => id)
          }
          const after = showUser(await present(trx, await createUser(trx, user, clock.now())))
          await writeAudit(trx, [{ ...entry(request, 'create', after.id), after }])
          return after
        })
      )
      reply.code(201).header('cache-control', 'no-store').header('location', `${snapshot.paths.admin}/users/${user.id}`)
      return password === undefined ? { ...user, password: given } : user
    }
  )

  app.get<ByUserId>(
    '/users/:user_id',
    administrators('A user', { params, answers: { 200: USER }, refuses: ['not_found'] }),
    async ({ params }) => showUser(await present(database.db, params.user_id))
  )

  app.put<ByUserId & { Body: UserBody }>(
    '/users/:user_id',
    administrators('Changes a user; what is not named stays', {
      description: 'A user who is not active any more, or of another tier, has to log in again.',
      params,
      body: Type.Object({
        username: Type.Optional(USERNAME),
        email: Type.Optional(EMAIL),
        first_name: Type.Optional(HUMAN_NAME),
        last_name: Type.Optional(HUMAN_NAME),
        tier: Type.Optional(TIER),
        active: Type.Optional(ACTIVE)
      }),
      answers: { 200: USER },
      refuses: ['not_found', 'conflict']
    }),
    async request => {
      const { username, email, first_name: firstName, last_name: lastName, tier, active } = request.body
      return unlessTaken(() =>
        change(request, 'update', async (trx, before) => {
          const now = clock.now()
          await updateUser(trx, before.id, { username, email, firstName, lastName, tier, active }, now)
          if (active === false) await endSessionsOf(trx, before.id, 'administrator', now)
          const switched = active !== undefined && active !== before.active
          return { bites: switched || (tier !== undefined && (tier ?? undefined) !== before.tier) }
        })
      )
    }
  )

  app.delete<ByUserId>(
    '/users/:user_id',
    administrators('Deletes a user, with its API keys and sessions', {
      description:
        'What it has done stays in the audit log. To keep its keys and sessions for later, say `"active": false`.',
      params,
      answers: {
        200: Type.Object({
          id: USER.properties.id,
          api_keys: Type.Integer({ description: 'API keys that went with it.' }),
          sessions: Type.Integer({ description: 'Sessions that went with it.' })
        })
      },
      refuses: ['not_found', 'conflict']
    }),
    async request =>
      changeAccess(database, async (trx, changed) => {
        const { id } = await present(trx, request.params.user_id)
        const before = showUser(await present(trx, id))
        const taken = await deleteUser(trx, id)
        await writeAudit(trx, [{ ...entry(request, 'delete', id), before, details: JSON.stringify(taken) }])
        changed.push({ kind: 'user', subject: id })
        return { id, ...taken }
      })
  )

  app.post<ByUserId & { Body: { role: string } }>(
    '/users/:user_id/roles',
    administrators('Gives a user a role', {
      params,
      body: Type.Object({ role: ROLE_NAME }),
      answers: { 200: USER },
      refuses: ['not_found']
    }),
    async request =>
      change(request, 'roles', async (trx, { id }) => {
        const [role] = (await rolesOf(trx, [request.body.role], 'role')) as [Role]
        return { bites: await assignRole(trx, id, role.id, clock.now()) }
      })
  )

  app.delete<{ Params: { user_id: string; role: string } }>(
    '/users/:user_id/roles/:role',
    administrators('Takes a role away from a user', {
      params: Type.Object({ ...params.properties, role: ROLE_NAME }),
      answers: { 200: USER },
      refuses: ['not_found', 'conflict']
    }),
    async request =>
      change(request, 'roles', async (trx, { id }) => {
        const [role] = await findRoles(trx, [request.params.role])
        if (role === undefined || !(await removeRole(trx, id, role.id)))
          throw refuse('not_found', { details: `The user does not have the role "${request.params.role}".` })
        return { bites: true }
      })
  )

  app.post<ByUserId>(
    '/users/:user_id/password',
    administrators('Gives a user another password, and ends its sessions', {
      description:
        'The password is in this answer and nowhere else; the user has to choose another one before anything else.',
      params,
      answers: { 200: Type.Object({ password: ONE_TIME }) },
      refuses: ['not_found']
    }),
    async (request, reply) => {
      const password = madeUpPassword()
      const passwordHash = await hash(password)
      await change(request, 'password', async (trx, { id }) => {
        const now = clock.now()
        await setPassword(trx, id, { hash: passwordHash, mustChange: true, now })
        await endSessionsOf(trx, id, 'administrator', now)
        return { bites: true }
      })
      reply.header('cache-control', 'no-store')
      return { password }
    }
  )

  app.delete<ByUserId>(
    '/users/:user_id/sessions',
    administrators('Ends all sessions of a user', { params, answers: { 204: null }, refuses: ['not_found'] }),
    async (request, reply) => {
      await change(request, 'sessions', async (trx, { id }) => {
        await endSessionsOf(trx, id, 'administrator', clock.now())
        return { bites: true }
      })
      return reply.code(204).send()
    }
  )

  /** A change of a user with its entry in the audit log; if it `bites`, the tokens that it has by now are over. */
  function change(
    request: FastifyRequest<{ Params: { user_id: string } }>,
    action: string,
    work: (trx: Transaction<Tables>, before: User) => Promise<{ bites: boolean }>
  ) {
    return changeAccess(database, async (trx, changed) => {
      const before = await present(trx, request.params.user_id)
      const { bites } = await work(trx, before)
      if (bites) await raiseTokenVersion(trx, changed, [before.id], clock.now())
      const after = showUser(await present(trx, before.id))
      await writeAudit(trx, [{ ...entry(request, action, before.id), before: showUser(before), after }])
      return after
    })
  }

  function entry(request: FastifyRequest, action: string, id: string) {
    return { ...auditOf(request, runtime), action: `user.${action}`, target: `user:${id}`, outcome: 'changed' as const }
  }
}

/** @throws {GatewayError} 404 */
async function present(db: Parameters<typeof findUser>[0], id: string): Promise<User> {
  const user = await findUser(db, id)
  if (user === undefined) throw refuse('not_found', { details: 'There is no such user.', reason: 'no_such_user' })
  return user
}

/** The roles of these names. @throws {GatewayError} 422 for names that are no roles */
async function rolesOf(trx: Transaction<Tables>, names: readonly string[], field = 'roles'): Promise<Role[]> {
  const roles = await findRoles(trx, names)
  const unknown = names.filter(name => !roles.some(role => role.name === name))
  if (unknown.length === 0) return roles
  const message = `"${unknown.join('", "')}" is no role`
  throw refuse('validation_error', { details: `${field} ${message}`, fields: [{ field, message, type: 'reference' }] })
}

/** @throws {GatewayError} 409 when the name is another user's */
async function unlessTaken<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act()
  } catch (error) {
    if (isDuplicate(error)) throw refuse('conflict', { details: 'The username or the e-mail address is taken.' })
    throw error
  }
}

export default adminUsers

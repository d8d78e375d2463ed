import type { RouteConfig, Snapshot } from '../config/snapshot.ts'
import type { Queries } from '../database/users.ts'
import { isGranted } from './permissions.ts'

/** A key that nobody has used for so long is unused, in milliseconds. */
const UNUSED_MS = 90 * 86_400_000

/** What to look at again: what is open, and what is granted or asked for in vain (AZN-10). */
export interface PermissionAudit {
  /** Routes on which nobody is asked who he is, or need not say (`optional`). */
  readonly public_routes: readonly {
    route: string
    path: string
    service: string
    authentication: 'none' | 'optional'
  }[]
  /** Permissions that routes ask for, and no user, and no key of the configuration, has. */
  readonly unmet_permissions: readonly { permission: string; routes: readonly string[] }[]
  /** The same of roles. */
  readonly unmet_roles: readonly { role: string; routes: readonly string[] }[]
  /** Roles that no user has. */
  readonly unused_roles: readonly { id: string; role: string }[]
  /** Permissions of roles that no route asks for. */
  readonly unused_permissions: readonly { role: string; permission: string }[]
  readonly users_without_roles: readonly { id: string; username: string }[]
  /** Keys that list more than their owner may; what is beyond is of no use to them. */
  readonly wide_keys: readonly { id: string; name: string; username: string; beyond: readonly string[] }[]
  /** Keys that have not been used for 90 days. */
  readonly unused_keys: readonly { id: string; name: string; username: string; last_used_at: string | null }[]
  readonly keys_without_expiry: readonly { id: string; name: string; username: string }[]
}

/**
 * Holds what routes ask for against what users have. Tokens of other issuers are not looked at: nobody knows what they will say.
 * @param now milliseconds since 1970
 */
export async function auditPermissions(
  db: Queries,
  { routes, identity }: Pick<Snapshot, 'routes' | 'identity'>,
  now: number
): Promise<PermissionAudit> {
  const enabled = routes.filter(route => route.enabled)
  const asked = { permissions: new Map<string, string[]>(), roles: new Map<string, string[]>() }
  for (const route of enabled) {
    for (const permission of permissionsOf(route)) note(asked.permissions, permission, route.id)
    for (const role of rolesOf(route)) note(asked.roles, role, route.id)
  }
  const roles = await rolesWithHolders(db)
  const users = await db.selectFrom('users').select(['id', 'username', 'active']).orderBy('username_key').execute()
  const names = new Map(users.map(user => [user.id, user.username]))
  const held = heldBy(roles)
  const inUse = roles.filter(role => role.holders.length > 0)
  const fixed = identity.api_keys
  const permissions = [...inUse, ...fixed].flatMap(holder => holder.permissions)
  const roleNames = new Set([...inUse.map(role => role.name), ...fixed.flatMap(key => key.roles)])

  const rows = await db.selectFrom('api_keys').selectAll().orderBy('created_at').execute()
  const keys = rows.map(row => ({
    id: row.id,
    name: row.name,
    username: names.get(row.user_id) ?? '',
    permissions: JSON.parse(row.permissions) as string[],
    held: held.get(row.user_id) ?? [],
    usedAt: row.last_used_at,
    knownFor: now - (row.last_used_at ?? row.created_at),
    endless: row.expires_at === null
  }))
  const shown = ({ id, name, username }: (typeof keys)[number]) => ({ id, name, username })

  return {
    public_routes: enabled.flatMap(route => {
      const mode = authenticationOf(route)
      return mode === 'required'
        ? []
        : [{ route: route.id, path: route.label, service: route.service, authentication: mode }]
    }),
    unmet_permissions: [...asked.permissions].flatMap(([permission, routes]) =>
      isGranted(permissions, permission) ? [] : [{ permission, routes }]
    ),
    unmet_roles: [...asked.roles].flatMap(([role, routes]) => (roleNames.has(role) ? [] : [{ role, routes }])),
    unused_roles: roles.flatMap(({ id, name, holders }) => (holders.length === 0 ? [{ id, role: name }] : [])),
    unused_permissions: roles.flatMap(({ name, permissions }) =>
      permissions
        // Whoever may do everything may do more than is asked for.
        .filter(
          permission =>
            permission !== '*' && ![...asked.permissions.keys()].some(wanted => isGranted([permission], wanted))
        )
        .map(permission => ({ role: name, permission }))
    ),
    users_without_roles: users.flatMap(({ id, username }) => (held.has(id) ? [] : [{ id, username }])),
    wide_keys: keys.flatMap(key => {
      const beyond = key.permissions.filter(permission => !isGranted(key.held, permission))
      return beyond.length === 0 ? [] : [{ ...shown(key), beyond }]
    }),
    unused_keys: keys.flatMap(key =>
      key.knownFor < UNUSED_MS
        ? []
        : [{ ...shown(key), last_used_at: key.usedAt === null ? null : new Date(key.usedAt).toISOString() }]
    ),
    keys_without_expiry: keys.flatMap(key => (key.endless ? [shown(key)] : []))
  }
}

interface RoleInUse {
  readonly id: string
  readonly name: string
  readonly permissions: readonly string[]
  /** Ids of users. */
  readonly holders: readonly string[]
}

async function rolesWithHolders(db: Queries): Promise<RoleInUse[]> {
  const roles = await db.selectFrom('roles').select(['id', 'name', 'permissions']).orderBy('name').execute()
  const assigned = await db.selectFrom('user_roles').select(['user_id', 'role_id']).execute()
  const holders = Map.groupBy(assigned, row => row.role_id)
  return roles.map(({ id, name, permissions }) => ({
    id,
    name,
    permissions: JSON.parse(permissions) as string[],
    holders: (holders.get(id) ?? []).map(row => row.user_id)
  }))
}

/** What each user who has a role may do. */
function heldBy(roles: readonly RoleInUse[]): Map<string, string[]> {
  const held = new Map<string, string[]>()
  for (const { holders, permissions } of roles)
    for (const user of holders) held.set(user, [...(held.get(user) ?? []), ...permissions])
  return held
}

/** Ids of the routes that a role opens, alone or among others. */
export function routesOfRole(routes: readonly RouteConfig[], role: string): string[] {
  return routes.filter(route => rolesOf(route).has(role)).map(({ id }) => id)
}

function note(asked: Map<string, string[]>, word: string, route: string): void {
  asked.set(word, [...(asked.get(word) ?? []), route])
}

function authenticationOf({ concerns }: RouteConfig): 'none' | 'optional' | 'required' {
  const options = concerns.authentication?.options as { mode?: string } | string | undefined
  const mode = typeof options === 'object' ? options.mode : options
  return mode === 'none' || mode === 'optional' ? mode : 'required'
}

/** A condition of a route, as far as it is about what callers have. */
interface Rule {
  readonly roles?: readonly string[]
  readonly permissions?: readonly string[]
}

function rulesOf({ concerns }: RouteConfig): readonly Rule[] {
  const { allow = [] } = (concerns.conditions?.options ?? {}) as { allow?: readonly Rule[] }
  return allow
}

function permissionsOf(route: RouteConfig): Set<string> {
  const options = route.concerns.permissions?.options as
    | readonly string[]
    | { readonly all: readonly string[]; readonly any: readonly string[] }
    | undefined
  const wanted = options === undefined ? [] : 'all' in options ? [...options.all, ...options.any] : options
  return new Set([...wanted, ...rulesOf(route).flatMap(rule => rule.permissions ?? [])])
}

function rolesOf(route: RouteConfig): Set<string> {
  const wanted = (route.concerns.required_roles?.options ?? []) as readonly string[]
  return new Set([...wanted, ...rulesOf(route).flatMap(rule => rule.roles ?? [])])
}

import { grants, isGranted } from '../permissions.ts'
import { ROLES_SCOPE } from './clients.ts'

/** Whose roles and permissions a token is to carry, at most. */
export interface Holder {
  readonly roles: readonly string[]
  readonly permissions: readonly string[]
}

/**
 * What a token may do: what both its holder may and its scope says. The scope `roles` stands for all roles; every other word
 * is a permission, and where one side says `projects.*` and the other `projects.read`, the narrower one counts.
 */
export function withinScope(holder: Holder, scope: readonly string[]): Holder {
  const permissions = new Set<string>()
  for (const wanted of scope) {
    if (isGranted(holder.permissions, wanted)) permissions.add(wanted)
    else for (const held of holder.permissions) if (grants(wanted, held)) permissions.add(held)
  }
  return { roles: scope.includes(ROLES_SCOPE) ? holder.roles : [], permissions: [...permissions] }
}

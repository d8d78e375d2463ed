import type { Queries } from '../database/users.ts'
import { uuidOf } from '../runtime/uuid.ts'

/** That a registered endpoint lets whoever has a role pass (AZN-02). */
export interface EndpointPermission {
  readonly id: string
  readonly endpoint_id: string
  readonly role_id: string
  /** Since when there have been both, in milliseconds since 1970. */
  readonly created_at: number
  /** `GET /projects`. */
  readonly endpoint: string
  readonly role: string
}

/**
 * Which roles registered endpoints ask for, of those that there are. Endpoints keep them by name, since a role may also be
 * another issuer's; these are made of that, and change when the service is registered otherwise.
 */
export async function endpointPermissions(
  db: Queries,
  filter: { readonly endpoint_id?: string; readonly role_id?: string }
): Promise<EndpointPermission[]> {
  const roles = await db
    .selectFrom('roles')
    .select(['id', 'name', 'created_at'])
    .$if(filter.role_id !== undefined, query => query.where('id', '=', filter.role_id as string))
    .execute()
  const endpoints = await db
    .selectFrom('endpoints')
    .select(['id', 'method', 'path', 'required_roles', 'created_at'])
    .$if(filter.endpoint_id !== undefined, query => query.where('id', '=', filter.endpoint_id as string))
    .orderBy('path')
    .orderBy('method')
    .orderBy('id')
    .execute()
  const byName = new Map(roles.map(role => [role.name, role]))
  return endpoints.flatMap(({ required_roles, ...endpoint }) =>
    (JSON.parse(required_roles) as string[]).flatMap(name => {
      const role = byName.get(name)
      if (role === undefined) return []
      return {
        id: uuidOf(`${endpoint.id} ${role.id}`),
        endpoint_id: endpoint.id,
        role_id: role.id,
        created_at: Math.max(endpoint.created_at, role.created_at),
        endpoint: `${endpoint.method} ${endpoint.path}`,
        role: name
      }
    })
  )
}

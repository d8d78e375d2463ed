import type { Insertable, Kysely, Transaction } from 'kysely'
import type { RegisteredEndpoint, RegisteredInstance, RegisteredService } from '../registry/service.ts'
import type { EndpointsTable, InstancesTable, ServicesTable, Tables } from './tables.ts'

/** The list of registered services as it is at one moment. */
export interface ServiceList {
  /** How often it has changed. */
  readonly version: number
  /** The older before the younger. */
  readonly services: readonly RegisteredService[]
}

/** Rows of one statement; databases have a limit on the parameters of each. */
const ROWS = 500

/** How often the list of services has changed. */
export async function serviceListVersion(db: Kysely<Tables>): Promise<number> {
  const row = await db.selectFrom('registry').select('version').executeTakeFirst()
  return row?.version ?? 0
}

/** All registered services, as they are between two changes. */
export async function readServices(db: Kysely<Tables>): Promise<ServiceList> {
  for (;;) {
    const version = await serviceListVersion(db)
    const [services, endpoints, instances] = await Promise.all([
      db.selectFrom('services').selectAll().orderBy('created_at').orderBy('id').execute(),
      db.selectFrom('endpoints').selectAll().orderBy('position').execute(),
      db.selectFrom('instances').selectAll().orderBy('position').execute()
    ])
    // Somebody has written in between.
    if ((await serviceListVersion(db)) !== version) continue
    const endpointsOf = Map.groupBy(endpoints, row => row.service_id)
    const instancesOf = Map.groupBy(instances, row => row.service_id)
    return {
      version,
      services: services.map(({ tags, settings, active, ...row }) => ({
        ...row,
        active: Boolean(active),
        tags: JSON.parse(tags) as string[],
        settings: JSON.parse(settings) as Record<string, unknown>,
        instances: (instancesOf.get(row.id) ?? []).map(({ id, url, weight }) => ({ id, url, weight })),
        endpoints: (endpointsOf.get(row.id) ?? []).map(({ service_id, position, ...endpoint }) => ({
          ...endpoint,
          public: Boolean(endpoint.public),
          deprecated: Boolean(endpoint.deprecated),
          required_roles: JSON.parse(endpoint.required_roles) as string[]
        }))
      }))
    }
  }
}

/**
 * Makes `after` of `before`, unless somebody else has changed the list since `before` was read.
 * @returns whether it has been done
 */
export async function writeServices(
  db: Transaction<Tables>,
  before: ServiceList,
  after: ServiceList
): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable('registry')
    .set({ version: after.version })
    .where('version', '=', before.version)
    .executeTakeFirstOrThrow()
  if (numUpdatedRows === 0n) return false
  const old = new Map(before.services.map(service => [service.id, service]))
  const now = new Set(after.services.map(({ id }) => id))
  const gone = [...old.keys()].filter(id => !now.has(id))
  const added = after.services.filter(({ id }) => !old.has(id))
  const changed = after.services.filter(service => old.has(service.id) && old.get(service.id) !== service)
  for (const ids of piecesOf(gone)) await db.deleteFrom('services').where('id', 'in', ids).execute()
  for (const service of changed) {
    const { id, created_at, ...row } = rowOf(service)
    await db.updateTable('services').set(row).where('id', '=', id).execute()
    await db.deleteFrom('endpoints').where('service_id', '=', id).execute()
    await db.deleteFrom('instances').where('service_id', '=', id).execute()
  }
  for (const rows of piecesOf(added.map(rowOf))) await db.insertInto('services').values(rows).execute()
  const parts = [...added, ...changed]
  for (const rows of piecesOf(parts.flatMap(({ id, endpoints }) => endpoints.map(endpointRow(id)))))
    await db.insertInto('endpoints').values(rows).execute()
  for (const rows of piecesOf(parts.flatMap(({ id, instances }) => instances.map(instanceRow(id)))))
    await db.insertInto('instances').values(rows).execute()
  return true
}

function rowOf({ instances, endpoints, tags, settings, ...row }: RegisteredService): Insertable<ServicesTable> {
  return { ...row, tags: JSON.stringify(tags), settings: JSON.stringify(settings) }
}

function endpointRow(service_id: string) {
  return (endpoint: RegisteredEndpoint, position: number): Insertable<EndpointsTable> => ({
    ...endpoint,
    service_id,
    position,
    required_roles: JSON.stringify(endpoint.required_roles)
  })
}

function instanceRow(service_id: string) {
  return (instance: RegisteredInstance, position: number): Insertable<InstancesTable> => ({
    ...instance,
    service_id,
    position
  })
}

function* piecesOf<T>(rows: readonly T[]): Generator<T[]> {
  for (let start = 0; start < rows.length; start += ROWS) yield rows.slice(start, start + ROWS)
}

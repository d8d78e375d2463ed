import { createHash } from 'node:crypto'
import { overloadOf } from '../overload/settings.ts'
import { systemClock } from '../runtime/clock.ts'
import { Stretches } from '../runtime/stretches.ts'
import type { SourceDocument } from './document.ts'
import { type Dialect, Draft, type Settled } from './draft.ts'
import { breakersOf, concernsOf } from './forwarding.ts'
import { checkOAuth, hasAccounts, identityOf } from './identity.ts'
import { copyPlace, type Path } from './located.ts'
import { ConfigError, type Problem, Problems, whereIs } from './problem.ts'
import { checkAbuse, checkRecording, checkRedis, checkWorkers, geoOf, serverOf } from './process.ts'
import { checkReserved } from './reserved-paths.ts'
import { checkConflicts, checkIds, warnAboutUnused } from './route-checks.ts'
import { addCatchAll, addEndpoint, addRoute } from './routes.ts'
import { addService, checkBalancing, checkNetworks } from './services.ts'
import type { Snapshot } from './snapshot.ts'
import { readVariablesAs, settle, validate } from './validate.ts'

/** Checks and completes a document in canonical spelling. @throws {ConfigError} with every problem found */
export async function createSnapshot(source: SourceDocument, dialect: Dialect): Promise<Snapshot> {
  const { document } = source
  const stretches = new Stretches(systemClock)
  readVariablesAs(dialect.schema, document)
  const problems = new Problems(document)
  await stretches.next()
  validate(dialect.schema, document, problems)
  if (problems.failed)
    throw allOf(source, [...problems.list, ...(await furtherProblems(source, problems.paths, dialect))])
  await stretches.next()
  const settled = settle(dialect.schema, document) as unknown as Settled
  await stretches.next()
  const snapshot = await snapshotOf(new Draft(source, settled, dialect, problems))
  if (problems.failed || source.problems.some(isError)) throw allOf(source, problems.list)
  return snapshot
}

/** What was found, in the order of the files; without what follows from a variable that is not set. */
function allOf({ problems }: SourceDocument, found: readonly Problem[]): ConfigError {
  const errors = problems.filter(isError)
  const taken = new Set(errors.map(whereIs))
  const further = found.filter(problem => isError(problem) && !taken.has(whereIs(problem)))
  return new ConfigError([...errors, ...further].sort(byPlace))
}

function isError({ severity }: Problem): boolean {
  return severity === 'error'
}

/** What else is wrong, once the values that the schema refuses are left out: nobody wants to learn of it in a second round. */
async function furtherProblems(source: SourceDocument, refused: readonly Path[], dialect: Dialect): Promise<Problem[]> {
  const rest = without(source.document, refused) as Record<string, unknown>
  const problems = new Problems(rest)
  validate(dialect.schema, rest, problems)
  if (problems.failed) return []
  await snapshotOf(
    new Draft({ ...source, document: rest }, settle(dialect.schema, rest) as unknown as Settled, dialect, problems)
  )
  // That something is missing where a value was left out says nothing new.
  const echoes = problems.paths.map(path => refused.some(other => path.every((key, i) => key === other[i])))
  return problems.list.filter(isError).filter((_, i) => !echoes[i])
}

/** A copy of `data` without the values at `paths`. Items of lists stay, so that the others keep their places. */
function without(data: unknown, paths: readonly Path[]): unknown {
  if (paths.length === 0 || typeof data !== 'object' || data === null) return data
  const copy: Record<string | number, unknown> = Array.isArray(data) ? ([] as never) : {}
  for (const [key, value] of Object.entries(data)) {
    const inside = paths.filter(([first]) => String(first) === key)
    if (!Array.isArray(data) && inside.some(path => path.length === 1)) continue
    copy[key] = without(
      value,
      inside.map(path => path.slice(1)).filter(path => path.length > 0)
    )
    copyPlace(data, key, copy, key)
  }
  return copy
}

function byPlace(a: Problem, b: Problem): number {
  return (
    (a.file ?? '').localeCompare(b.file ?? '') || (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0)
  )
}

/** The snapshot; worth nothing when problems have been found on the way. */
async function snapshotOf(draft: Draft): Promise<Snapshot> {
  const { settled, source, problems } = draft
  const stretches = new Stretches(systemClock)
  await addAll(draft, stretches)
  await stretches.next()
  checkIds(draft)
  checkReserved(draft)
  checkOAuth(draft)
  await stretches.next()
  checkConflicts(draft)
  checkBalancing(draft)
  checkRecording(draft)
  checkAbuse(draft)
  checkRedis(draft)
  checkWorkers(draft)
  warnAboutUnused(draft)
  await stretches.next()
  const read = { server: serverOf(draft), geo: geoOf(draft), identity: identityOf(draft) }
  return deepFreeze({
    ...read,
    version: versionOf(draft, read),
    gateway: settled.gateway,
    storage: settled.storage,
    logging: settled.logging,
    recording: settled.recording,
    metrics: settled.metrics,
    paths: settled.paths,
    adminListen: settled.admin.listen,
    serviceConfigUrl: settled.service_config_url,
    rateLimits: settled.rate_limits,
    overload: settled.enabled ? overloadOf(settled.overload) : undefined,
    registry: settled.registry,
    batch: settled.batch,
    versioning: settled.versioning,
    services: draft.services,
    breakers: breakersOf(draft),
    routes: draft.routes.map(({ route }) => route),
    defaults: concernsOf(draft, [[settled.defaults, 'defaults', ['defaults']]]),
    plugins: settled.plugins,
    document: draft.document,
    warnings: [...source.problems, ...problems.list].filter(problem => !isError(problem)).sort(byPlace),
    files: source.files
  })
}

/** Services first, since routes lead to them; then what services say of routes themselves. */
async function addAll(draft: Draft, stretches: Stretches): Promise<void> {
  const { services, routes, catch_all } = draft.settled
  checkNetworks(draft)
  draft.local = hasAccounts(draft)
  for (const [name, service] of Object.entries(services)) {
    addService(draft, name, service)
    if (stretches.isOver) await stretches.next()
  }
  for (const [i, route] of routes.entries()) {
    addRoute(draft, route, ['routes', i])
    if (stretches.isOver) await stretches.next()
  }
  for (const [name, service] of Object.entries(services)) {
    for (const [i, endpoint] of service.endpoints.entries())
      addEndpoint(draft, name, endpoint, ['services', name, 'endpoints', i])
    if (catch_all) addCatchAll(draft, name)
  }
}

/** Twelve hexadecimal digits that change with what is served; `read` is what has been read from other files. */
function versionOf(
  { settled, services }: Draft,
  { server, identity, geo }: Pick<Snapshot, 'server' | 'identity' | 'geo'>
): string {
  const content = JSON.stringify([
    // Gateways with one configuration in several regions serve the same.
    {
      ...settled,
      server,
      identity,
      gateway: { ...settled.gateway, region: '' },
      geo: [geo.header, geo.database?.print]
    },
    [...services.values()].map(({ tls, discovery }) => [tls, discovery])
  ])
  return createHash('sha256').update(content).digest('hex').slice(0, 12)
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value) && !ArrayBuffer.isView(value)) {
    Object.freeze(value)
    for (const inner of Object.values(value)) deepFreeze(inner)
  }
  return value
}

import {
  type CanaryRelease,
  canaryRelease,
  type MirrorConfig,
  type Release,
  troubleWith,
  troubleWithNames,
  type Variant,
  type VariantSettings
} from '../releases/settings.ts'
import type { Block, Draft } from './draft.ts'
import type { Path } from './located.ts'
import { slipOf } from './problem.ts'
import type { RouteSettings } from './schema.ts'
import { checkUrl, serviceConfig } from './services.ts'
import type { RouteConfig } from './snapshot.ts'

/** What of a route says where its requests go. */
const DESTINATIONS = ['service', 'target', 'split', 'experiment'] as const

/** Where a route's requests go: to its service, or to one of several. */
export function destinationOf(
  draft: Draft,
  settings: RouteSettings & Block,
  path: Path
): Pick<RouteConfig, 'service' | 'release'> | undefined {
  const { split, experiment } = settings
  const given = DESTINATIONS.filter(key => settings[key] !== undefined)
  if (given.length !== 1) {
    const [one, other] = given
    const message =
      one === undefined ? 'needs "service" or "target"' : `has both "${one}" and "${other}"; keep one of them`
    draft.problems.add(path, message, 'key')
    return undefined
  }
  const shared = experiment?.variants ?? split
  if (shared !== undefined && settings.canary !== undefined) {
    draft.problems.add([...path, 'canary'], 'needs "service" or "target" beside it: its control', 'key')
    return undefined
  }
  if (shared === undefined) {
    const service = serviceOf(draft, settings, path)
    return service === undefined ? undefined : { service, release: undefined }
  }
  const at: Path = experiment === undefined ? [...path, 'split'] : [...path, 'experiment', 'variants']
  const variants = variantsOf(draft, shared, at)
  const trouble = troubleWith(variants) ?? (experiment && troubleWithNames(variants))
  if (trouble !== undefined && variants.length > 0) draft.problems.add([...at, ...trouble.at], trouble.message)
  const [first] = variants.filter(({ weight }) => weight > 0)
  if (first === undefined) return undefined
  const release: Release =
    experiment === undefined
      ? { kind: 'split', variants }
      : { kind: 'experiment', variants, name: experiment.name, header: experiment.header, cookie: experiment.cookie }
  return { service: first.service, release }
}

/** The service that is to take a route over, by and by. */
export function canaryOf(
  draft: Draft,
  { canary }: RouteSettings,
  control: string,
  route: string,
  path: Path
): CanaryRelease | undefined {
  if (canary === undefined) return undefined
  const at: Path = [...path, 'canary']
  const name = serviceOf(draft, canary, at)
  if (name === undefined) return undefined
  if (name === control) draft.problems.add(at, `"${name}" is its own control; name another service`)
  if (canary.steps.every(({ weight }) => weight === 0))
    draft.problems.add(
      [...at, 'steps'],
      'has no weight above 0, so nothing would be learnt before all requests go there'
    )
  const { database, redis_url } = draft.settled.storage
  if (!database && !redis_url)
    draft.problems.warn(
      at,
      'begins anew at each start, since there is neither "storage.database" nor "storage.redis_url"'
    )
  return canaryRelease(canary, { route, control, canary: name })
}

/** The service that gets copies of the requests. @param own the one that answers them */
export function mirrorOf(draft: Draft, { mirror }: RouteSettings, own: string, path: Path): MirrorConfig | undefined {
  if (mirror === undefined) return undefined
  const at: Path = [...path, 'mirror']
  const service = serviceOf(draft, mirror, at)
  if (service === undefined) return undefined
  if (service === own) draft.problems.add(at, `"${service}" has the requests already; name another service`)
  return { service, percent: mirror.percent, compare: mirror.compare }
}

/** The services that share a route's requests; none if one of them is none. */
function variantsOf(draft: Draft, settings: readonly VariantSettings[], path: Path): Variant[] {
  const variants = settings.flatMap((variant, i): Variant[] => {
    const service = serviceOf(draft, variant, [...path, i])
    return service === undefined ? [] : [{ name: variant.name ?? service, service, weight: variant.weight }]
  })
  return variants.length < settings.length ? [] : variants
}

/** The name of a service that something leads to; one that nobody defined is taken for a host name (contract section 21). */
function serviceOf(
  draft: Draft,
  { service, target }: { service?: string; target?: string },
  path: Path
): string | undefined {
  if ((service === undefined) === (target === undefined)) {
    draft.problems.add(
      path,
      service === undefined ? 'needs "service" or "target"' : 'has both "service" and "target"; keep one of them',
      'key'
    )
    return undefined
  }
  if (target !== undefined) {
    checkUrl(draft, target, [...path, 'target'])
    if (!draft.services.has(target))
      draft.services.set(target, serviceConfig(draft, target, [{ id: '0', url: target, weight: 1 }], {}, path))
    return target
  }
  const name = service as string
  if (draft.services.has(name)) return name
  const known = Object.keys(draft.settled.services)
  const meant = slipOf(name, known)
  if (meant !== undefined || !/^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$/i.test(name)) {
    draft.problems.add(
      [...path, 'service'],
      `"${name}" is not a service${meant === undefined ? '; there' : `, did you mean "${meant}"? There`} ${listed(known)}`
    )
    return undefined
  }
  draft.problems.warn(
    [...path, 'service'],
    `"${name}" is not defined, so it is taken for the host http://${name}`,
    'value'
  )
  draft.services.set(name, serviceConfig(draft, name, [{ id: '0', url: `http://${name}`, weight: 1 }], {}, path))
  return name
}

/** `are: orders, chat`, but not a thousand of them. */
function listed(names: readonly string[]): string {
  if (names.length === 0) return 'are none'
  const shown = names.slice(0, 10).join(', ')
  return `are: ${shown}${names.length > 10 ? ` and ${names.length - 10} more` : ''}`
}

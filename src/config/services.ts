import { readFileSync } from 'node:fs'
import type { ConnectionOptions } from 'node:tls'
import {
  type DiscoveryConfig,
  type DiscoverySettings,
  defaultDiscovery,
  discoveryConfig,
  discoverySchema
} from '../discovery/settings.ts'
import { type ConcurrencyConfig, type ConcurrencySettings, concurrencyOf } from '../overload/settings.ts'
import { addressOf, isNetwork, NETWORK_WORDS, networksOf } from '../registry/networks.ts'
import { tls } from '../runtime/node.ts'
import { Type } from '../schema.ts'
import { type BalancerConfig, balancerOf, balancerTrouble, selectionOf } from '../upstream/balancing-settings.ts'
import { healthCheckOf, outliersOf } from '../upstream/health/settings.ts'
import type { InstanceConfig } from '../upstream/instance.ts'
import type { ServiceConfig } from '../upstream/service.ts'
import type { Block, Draft } from './draft.ts'
import type { Path } from './located.ts'
import { withoutCredentials } from './mask.ts'
import type { ServiceSettings } from './schema.ts'
import { settle } from './validate.ts'

const CONNECT_MS = 5000
const IDLE_MS = 60_000

/** One entry of `services`. */
export function addService(draft: Draft, name: string, settings: ServiceSettings & Block): void {
  const path: Path = ['services', name]
  if (settings.url !== undefined && settings.instances !== undefined)
    draft.problems.add([...path, 'url'], 'stands beside "instances"; keep one of them', 'key')
  const listed = settings.instances ?? (settings.url === undefined ? [] : [{ url: settings.url, weight: 1 }])
  if (settings.instances?.length === 0 && !draft.settled.storage.database)
    draft.problems.add([...path, 'instances'], 'needs at least one entry: without "storage.database" none can register')
  const discovery = discoveryOf(draft, name, settings, path)
  if (listed.length > 0 && settings.discovery !== undefined)
    draft.problems.add([...path, 'discovery'], 'stands beside "url" or "instances"; keep one of them', 'key')
  const instances = listed.map((instance, i): InstanceConfig => {
    const at = settings.instances === undefined ? [...path, 'url'] : [...path, 'instances', i, 'url']
    checkUrl(draft, instance.url, at)
    checkNetwork(draft, name, instance.url, at)
    return {
      id: ('id' in instance ? instance.id : undefined) ?? String(i),
      url: instance.url,
      weight: instance.weight,
      ...('zone' in instance && { zone: instance.zone })
    }
  })
  const twice = instances.findIndex((instance, i) => instances.findIndex(other => other.id === instance.id) !== i)
  if (twice !== -1)
    draft.problems.add([...path, 'instances', twice], `the id "${instances[twice]?.id}" is taken already`)
  draft.services.set(name, {
    ...serviceConfig(draft, name, instances, settings, path),
    ...(discovery && { discovery, networks: discovery.networks })
  })
}

/** Who says where the instances are of a service that does not; undefined if it does. */
function discoveryOf(draft: Draft, name: string, settings: ServiceSettings, path: Path): DiscoveryConfig | undefined {
  const { discovery: given, url, instances } = settings
  const fallback = url === undefined && instances === undefined ? defaultDiscovery(draft.settled) : undefined
  if (given === undefined && fallback === undefined) {
    if (url === undefined && instances === undefined)
      draft.problems.add(path, 'needs "url", "instances" or "discovery"', 'key')
    return undefined
  }
  const at: Path = [...path, 'discovery']
  const schema = discoverySchema(Type.Unknown())
  const asked = given ?? (settle(schema, { [fallback as string]: {} }) as DiscoverySettings)
  for (const [i, entry] of (asked.allow ?? []).entries())
    if (!isNetwork(entry)) draft.problems.add([...at, 'allow', i], noNetwork(entry))
  return discoveryConfig(asked, {
    name,
    defaults: draft.settled,
    networks: draft.source.registered?.has(name) ? draft.settled.registry.allow : undefined,
    tls: kind => tlsOf(draft, asked[kind]?.tls as ServiceSettings['tls'], [...at, kind, 'tls']),
    fault: (keys, message) => draft.problems.add([...at, ...keys], message, keys.length < 3 ? 'key' : 'value')
  })
}

/**
 * A service as the gateway runs it: what its own entry says, then what the defaults say.
 * @param settings none for one that is no more than an address
 */
export function serviceConfig(
  draft: Draft,
  name: string,
  instances: readonly InstanceConfig[],
  settings: Partial<ServiceSettings> & Block,
  path: Path
): ServiceConfig {
  const { defaults } = draft.settled
  const timeouts = (settings.timeouts ?? defaults.timeouts) || {}
  // What is no more than an address has said nothing of how it could be checked.
  const checked = name in draft.settled.services ? defaults : {}
  return {
    name,
    instances,
    pool: {
      connections: settings.pool?.connections ?? 1024,
      connectTimeoutMs: timeouts.connect ?? CONNECT_MS,
      keepAliveMs: settings.pool?.keep_alive ?? 4000,
      idleTimeoutMs: timeouts.idle ?? IDLE_MS,
      maxHeaderBytes: settings.pool?.header_bytes ?? 32768
    },
    tls: tlsOf(draft, settings.tls, [...path, 'tls']),
    balancer: balancerFor(draft, settings, path) ?? balancerOf(defaults),
    selection: selectionOf(balancerOf(settings) === undefined ? defaults : settings, draft.settled.gateway.zone),
    healthCheck: healthCheckOf(settings.health_check ?? checked.health_check, {
      path: settings.health_check_path,
      intervalSeconds: checked.health_check_interval
    }),
    outliers: draft.settled.enabled ? outliersOf(settings.outlier_detection ?? defaults.outlier_detection) : undefined,
    concurrency: draft.settled.enabled ? concurrencyFor(draft, settings.concurrency, path) : undefined,
    ...(draft.source.registered?.has(name) && { networks: draft.settled.registry.allow })
  }
}

function concurrencyFor(draft: Draft, own: ConcurrencySettings | undefined, path: Path): ConcurrencyConfig | undefined {
  const config = concurrencyOf(own ?? draft.settled.defaults.concurrency)
  if (config !== undefined && config.min > config.max) {
    const place = own === undefined ? ['defaults'] : path
    const message = `${config.min} is more than "max", which is ${config.max}`
    // What stands under the defaults is wrong but once, however many services take it from there.
    if (!draft.problems.list.some(known => known.message === message))
      draft.problems.add([...place, 'concurrency', 'min'], message)
  }
  return config
}

function tlsOf(draft: Draft, settings: ServiceSettings['tls'], path: Path): ConnectionOptions | undefined {
  if (settings === undefined) return undefined
  const read = (key: 'ca' | 'cert' | 'key'): string | undefined => {
    const name = settings[key]
    if (name === undefined) return undefined
    const file = draft.file(name, [...path, key])
    try {
      return readFileSync(file, 'utf8')
    } catch (error) {
      draft.problems.add([...path, key], `"${file}" cannot be read: ${(error as NodeJS.ErrnoException).code}`)
      return undefined
    }
  }
  const options: ConnectionOptions = {}
  const [ca, cert, key] = [read('ca'), read('cert'), read('key')]
  if (ca !== undefined) options.ca = ca
  if (cert !== undefined) options.cert = cert
  if (key !== undefined) options.key = key
  if (settings.server_name !== undefined) options.servername = settings.server_name
  if ((settings.cert === undefined) !== (settings.key === undefined)) {
    const [given, missing] = settings.key === undefined ? ['cert', 'key'] : ['key', 'cert']
    draft.problems.add([...path, given], `"${given}" needs "${missing}" beside it`)
  }
  try {
    tls().createSecureContext(options)
  } catch (error) {
    draft.problems.add(path, `cannot be used: ${(error as Error).message}`)
  }
  return options
}

/** Whether instances can be at `url`. */
export function checkUrl(draft: Draft, url: string, path: Path): void {
  if (!URL.canParse(url)) {
    draft.problems.add(path, `"${withoutCredentials(url)}" is no URL: write http://host:port`)
    return
  }
  const { search, hash, username } = new URL(url)
  if (search !== '' || hash !== '') draft.problems.add(path, 'must not hold a query or a fragment')
  if (username !== '') draft.problems.add(path, 'must not hold credentials')
}

/** Addresses of registered services; what a name stands for is seen when it is asked for. */
function checkNetwork(draft: Draft, name: string, url: string, path: Path): void {
  if (!draft.source.registered?.has(name) || !URL.canParse(url)) return
  const address = addressOf(new URL(url))
  if (address !== undefined && !draft.networks.allows(address))
    draft.problems.add(path, `leads to ${address}, which "registry.allow" does not allow`)
}

/** Takes the networks that registered services may be in. */
export function checkNetworks(draft: Draft): void {
  for (const [i, entry] of draft.settled.registry.allow.entries()) {
    if (!isNetwork(entry)) draft.problems.add(['registry', 'allow', i], noNetwork(entry))
  }
  const good = draft.settled.registry.allow.filter(isNetwork)
  draft.networks = networksOf(good)
}

/** What is said of balancers where nobody in particular means it, and weights that nobody looks at. */
export function checkBalancing(draft: Draft): void {
  balancerFor(draft, draft.settled.defaults, ['defaults'])
  for (const [name, { balancer, instances }] of draft.services) {
    const weights = new Set(instances.map(({ weight }) => weight).filter(weight => weight > 0))
    if (balancer?.type === 'round_robin' && weights.size > 1 && name in draft.settled.services)
      draft.problems.warn(
        ['services', name, 'instances'],
        'have weights that "round_robin" does not look at: write "load_balancer_type: weighted_round_robin"'
      )
  }
}

/** Which instance is asked, as one level says it. */
export function balancerFor(draft: Draft, settings: Block, path: Path): BalancerConfig | undefined {
  for (const [keys, message] of balancerTrouble(settings)) draft.problems.add([...path, ...keys], message, 'key')
  return balancerOf(settings)
}

function noNetwork(entry: string): string {
  return `"${entry}" is no network: write ${NETWORK_WORDS.join(', ')}, 10.0.0.0/8 or fd00::/8`
}

import type { InstanceConfig } from '../upstream/instance.ts'

type Mapping = Record<string, unknown>

/**
 * The instance that somebody has written down: `"http://10.0.0.1:8080"`, `"10.0.0.1:8080"`, or a mapping with `url`, or `host` (or
 * `address`) and `port`, and perhaps `id`, `weight`, `zone` and `scheme`. Undefined for what is none, which is left out: one
 * bad entry must not hide the others.
 * @param scheme for those of which only host and port are known
 * @param name the id, if it brings none; else its address is
 */
export function instanceOf(entry: unknown, scheme: string, name?: string): InstanceConfig | undefined {
  if (typeof entry === 'string') return instanceOf({ url: entry }, scheme, name)
  if (typeof entry !== 'object' || entry === null) return undefined
  const { id = name, weight = 1, zone, ...place } = lowerCaseKeys(entry as Mapping)
  const url = urlOf(place, scheme)
  if (url === undefined) return undefined
  if (typeof weight !== 'number' || !Number.isFinite(weight) || weight < 0) return undefined
  return {
    id: typeof id === 'string' && id !== '' ? id : url.host,
    url: url.href,
    weight,
    ...(typeof zone === 'string' && zone !== '' && { zone })
  }
}

/** `http://10.0.0.1:8080`; IPv6 addresses get their brackets. @throws {TypeError} for what is no host */
export function originOf(scheme: string, host: string, port: number): string {
  return new URL(`${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`).href
}

function urlOf({ url, addr, host, address = host, port, scheme }: Mapping, fallback: string): URL | undefined {
  const given = scheme === 'http' || scheme === 'https' ? scheme : fallback
  const text = url ?? addr
  try {
    if (typeof text === 'string') return usable(new URL(text.includes('://') ? text : `${given}://${text}`))
    if (typeof address !== 'string' || !Number.isInteger(port)) return undefined
    return usable(new URL(originOf(given, address, port as number)))
  } catch {
    return undefined
  }
}

function usable(url: URL): URL | undefined {
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return undefined
  // URLs allow for more than anybody means.
  if (!/^(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])$/.test(url.hostname)) return undefined
  return url.username === '' && url.password === '' && url.search === '' && url.hash === '' ? url : undefined
}

/** etcd's own naming scheme writes `Addr`. */
function lowerCaseKeys(mapping: Mapping): Mapping {
  return Object.fromEntries(Object.entries(mapping).map(([key, value]) => [key.toLowerCase(), value]))
}

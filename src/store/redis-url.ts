/** Which Redis a URL means. */
export type RedisTarget = Single | Sentinels | Cluster

interface Single {
  readonly kind: 'single'
  readonly url: string
}

interface Access {
  readonly nodes: readonly { readonly host: string; readonly port: number }[]
  readonly tls: boolean
  readonly username: string | undefined
  readonly password: string | undefined
}

/** The primary that sentinels know by a name. */
interface Sentinels extends Access {
  readonly kind: 'sentinel'
  readonly name: string
  readonly db: number
  /** For the sentinels themselves, where they want one. */
  readonly sentinelPassword: string | undefined
}

interface Cluster extends Access {
  readonly kind: 'cluster'
}

const FORM =
  /^redis(?<tls>s?)\+(?<kind>sentinel|cluster):\/\/(?:(?<user>[^:@/]*):(?<password>[^@/]*)@)?(?<hosts>[^/?@]+)(?:\/(?<path>[^?]*))?(?:\?(?<query>.*))?$/
const HOST = /^(?:\[([0-9a-fA-F:.]+)\]|([\w.-]+))(?::(\d{1,5}))?$/
const PORTS = { sentinel: 26379, cluster: 6379 }

/**
 * Reads `redis://` and `rediss://` (which ioredis reads itself), `redis+sentinel://host:26379,host/name/db` and
 * `redis+cluster://host:6379,host`, these two with `rediss+` for TLS.
 * @throws {Error} for one that means nothing; the message is safe to show
 */
export function parseRedisUrl(url: string): RedisTarget {
  const { groups } = FORM.exec(url) ?? {}
  if (groups === undefined) {
    if (/^redis?s?\+|^redis-/.test(url)) throw new Error(FORMS)
    return { kind: 'single', url }
  }
  const kind = groups.kind as keyof typeof PORTS
  const access: Access = {
    nodes: (groups.hosts as string).split(',').map(host => nodeOf(host, PORTS[kind])),
    tls: groups.tls === 's',
    username: decoded(groups.user),
    password: decoded(groups.password)
  }
  const [name = '', db = '0'] = (groups.path ?? '').split('/').map(part => decodeURIComponent(part))
  if (kind === 'cluster') {
    if (name !== '' && name !== '0') throw new Error('names a database, and a cluster has only the first')
    return { ...access, kind }
  }
  if (name === '') throw new Error('does not say which primary: redis+sentinel://host:26379,host:26379/name')
  if (!/^\d+$/.test(db)) throw new Error('has no number for its database: redis+sentinel://host:26379/name/0')
  const sentinelPassword = new URLSearchParams(groups.query).get('sentinel_password') ?? undefined
  return { ...access, kind, name, db: Number(db), sentinelPassword }
}

const FORMS = 'is no Redis: write redis://host:6379, redis+sentinel://host:26379,…/name or redis+cluster://host:6379,…'

function nodeOf(text: string, standard: number): { host: string; port: number } {
  const [found, ipv6, name, port] = HOST.exec(text) ?? []
  if (found === undefined || Number(port ?? 0) > 65535) throw new Error(FORMS)
  return { host: (ipv6 ?? name) as string, port: Number(port ?? standard) }
}

function decoded(text: string | undefined): string | undefined {
  return text === undefined || text === '' ? undefined : decodeURIComponent(text)
}

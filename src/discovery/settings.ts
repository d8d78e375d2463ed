import { isIP, isIPv4, isIPv6 } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import type { Path } from '../config/located.ts'
import { duration, listOf, oneOf, type Static, secret, type TSchema, Type, text } from '../schema.ts'

const address = (description: string) => text(description, { pattern: '^https?://' })

/** @param tls the schema of `services.*.tls`: it is the same for who says where a service is */
export const discoverySchema = (tls: TSchema) => {
  const secured = { tls: Type.Optional({ ...tls, description: 'TLS towards it. Certificates are always verified.' }) }
  return Type.Object(
    {
      dns: Type.Optional(
        Type.Object(
          {
            url: Type.String({
              description:
                '`http://orders.internal:8080`: each address of the name is an instance. A name that begins with `_` is asked for SRV records, which say the port, too.',
              pattern: '^https?://'
            }),
            servers: listOf(Type.String(), {
              description: 'Name servers, `10.0.0.53` or `10.0.0.53:5353`; those of the system if not given.',
              default: []
            })
          },
          { description: 'Ask the DNS.' }
        )
      ),
      http: Type.Optional(
        Type.Object(
          {
            url: address(
              'What answers with a list; `{service}` stands for the name. `service_discovery_url` and `/services/{service}/instances` if not given.'
            ),
            interval: duration({ description: 'How often it is asked.', default: '10s', positive: true }),
            token: secret('Sent as `Authorization: Bearer`.'),
            ...secured
          },
          { description: 'Ask an HTTP server, with `ETag`.' }
        )
      ),
      consul: Type.Optional(
        Type.Object(
          {
            url: address('Address of the agent; `consul_url` if not given.'),
            service: text('Its name there; the service’s own if not given.'),
            tag: text('Only instances with this tag.'),
            datacenter: text('The datacenter; the agent’s if not given.'),
            token: secret('ACL token.'),
            ...secured
          },
          { description: 'Follow the healthy instances of Consul.' }
        )
      ),
      etcd: Type.Optional(
        Type.Object(
          {
            urls: listOf(Type.String({ pattern: '^https?://' }), {
              description: 'Members of the cluster; the next one is asked when one does not answer.',
              default: ['http://127.0.0.1:2379']
            }),
            prefix: text('What the keys of its instances begin with; `/services/<name>/` if not given.', {
              minLength: 1
            }),
            username: text('User, if the cluster asks who one is.'),
            password: secret('His password.'),
            ...secured
          },
          { description: 'Follow the keys of etcd v3 below a prefix.' }
        )
      ),
      kubernetes: Type.Optional(
        Type.Object(
          {
            url: Type.String({
              description: 'Address of the API server.',
              default: 'https://kubernetes.default.svc',
              pattern: '^https?://'
            }),
            namespace: text('Namespace of the service; the gateway’s own if not given.'),
            service: text('Its name there; the service’s own if not given.'),
            selector: text('Label selector of the EndpointSlices, instead of `service`.'),
            port: Type.Optional(
              Type.Union([Type.Integer({ minimum: 1, maximum: 65535 }), Type.String({ minLength: 1 })], {
                description: 'Number or name of the port; the first one if not given.'
              })
            ),
            token_file: Type.String({
              description: 'File with the token of the service account; read again for every request.',
              default: '/var/run/secrets/kubernetes.io/serviceaccount/token'
            }),
            ...secured
          },
          { description: 'Follow the EndpointSlices of a Kubernetes service.' }
        )
      ),
      scheme: oneOf(['http', 'https'], {
        description: 'How instances are spoken to of which only host and port are known.',
        default: 'http'
      }),
      allow: Type.Optional(
        Type.Array(Type.String(), {
          description:
            'Networks in which instances may be, as in `registry.allow`; others are left out. Anywhere if not given.',
          minItems: 1
        })
      ),
      empty_after: duration({
        description: 'How long there have to be no instances at all before that is believed; until then the last stay.',
        default: '5m'
      })
    },
    {
      description:
        'Who says where the instances are, instead of `url` and `instances`. One of dns, http, consul, etcd and kubernetes.'
    }
  )
}

export type DiscoverySettings = Static<ReturnType<typeof discoverySchema>>

/** Who is asked, and how. All times are in milliseconds. */
export type Source =
  | { readonly kind: 'dns'; readonly url: string; readonly servers: readonly string[] }
  | (Secured & {
      readonly kind: 'http'
      readonly url: string
      readonly intervalMs: number
      readonly token: string | undefined
    })
  | (Secured & {
      readonly kind: 'consul'
      readonly url: string
      readonly service: string
      readonly tag: string | undefined
      readonly datacenter: string | undefined
      readonly token: string | undefined
    })
  | (Secured & {
      readonly kind: 'etcd'
      readonly urls: readonly string[]
      readonly prefix: string
      readonly username: string | undefined
      readonly password: string | undefined
    })
  | (Secured & {
      readonly kind: 'kubernetes'
      readonly url: string
      readonly namespace: string | undefined
      readonly selector: string
      readonly port: number | string | undefined
      readonly tokenFile: string
    })

interface Secured {
  readonly tls: ConnectionOptions | undefined
}

export type SourceOf<K extends Source['kind']> = Extract<Source, { readonly kind: K }>

/** How the instances of a service are found. */
export interface DiscoveryConfig {
  readonly source: Source
  /** For instances of which only host and port are known. */
  readonly scheme: 'http' | 'https'
  /** Networks in which they may be; anywhere if undefined. */
  readonly networks: readonly string[] | undefined
  /** How long a list has to have been empty before it is believed, in milliseconds. */
  readonly emptyAfterMs: number
}

/** What services ask unless they say otherwise, by the top level of the document. */
export interface DiscoveryDefaults {
  readonly service_discovery_url?: string | undefined
  readonly consul_url?: string | undefined
}

const KINDS = ['dns', 'http', 'consul', 'etcd', 'kubernetes'] as const

/** Everything of a {@link DiscoveryConfig} that its service says elsewhere. */
export interface DiscoveryContext {
  /** Of the service. */
  readonly name: string
  readonly defaults: DiscoveryDefaults
  readonly networks: readonly string[] | undefined
  /** Reads the files of `tls` below `kind`. */
  tls(kind: Exclude<Source['kind'], 'dns'>): ConnectionOptions | undefined
  /** Says what is wrong with the value at these keys below `discovery`. */
  fault(keys: Path, message: string): void
}

/** What a service without any address asks, if the document names somebody for all services. */
export function defaultDiscovery({
  service_discovery_url,
  consul_url
}: DiscoveryDefaults): 'http' | 'consul' | undefined {
  return service_discovery_url ? 'http' : consul_url ? 'consul' : undefined
}

/** The configuration that settings mean; undefined when they mean none, which `context.fault` has been told. */
export function discoveryConfig(settings: DiscoverySettings, context: DiscoveryContext): DiscoveryConfig | undefined {
  const given = KINDS.filter(kind => settings[kind] !== undefined)
  const [kind, other] = given
  if (kind === undefined) return void context.fault([], `needs one of ${KINDS.join(', ')}`)
  if (other !== undefined) return void context.fault([other], `stands beside "${kind}"; keep one of them`)
  const source = sourceOf(kind, settings, context)
  if (source === undefined) return undefined
  return {
    source,
    scheme: settings.scheme,
    networks: settings.allow ?? context.networks,
    emptyAfterMs: settings.empty_after
  }
}

function sourceOf(
  kind: (typeof KINDS)[number],
  { dns, http, consul, etcd, kubernetes }: DiscoverySettings,
  context: DiscoveryContext
): Source | undefined {
  const { name, defaults } = context
  const tls = kind === 'dns' ? undefined : context.tls(kind)
  if (dns !== undefined) {
    for (const [i, server] of dns.servers.entries())
      if (!isServer(server))
        context.fault(['dns', 'servers', i], `"${server}" is no name server: write 10.0.0.53 or 10.0.0.53:53`)
    return { kind: 'dns', url: dns.url, servers: dns.servers }
  }
  if (http !== undefined) {
    const base = defaults.service_discovery_url
    const template = http.url ?? (base && `${base.replace(/\/+$/, '')}/services/{service}/instances`)
    if (template === undefined) return void context.fault(['http'], 'needs "url", or "service_discovery_url" for all')
    const url = template.replaceAll('{service}', encodeURIComponent(name))
    return { kind: 'http', url, intervalMs: http.interval, token: http.token, tls }
  }
  if (consul !== undefined) {
    const url = consul.url ?? defaults.consul_url
    if (url === undefined) return void context.fault(['consul'], 'needs "url", or "consul_url" for all')
    const { service = name, tag, datacenter, token } = consul
    return { kind: 'consul', url, service, tag, datacenter, token, tls }
  }
  if (etcd !== undefined) {
    const { urls, prefix = `/services/${name}/`, username, password } = etcd
    if ((username === undefined) !== (password === undefined))
      return void context.fault(['etcd'], 'needs "username" and "password", or neither')
    return { kind: 'etcd', urls, prefix, username, password, tls }
  }
  const { url, namespace, service = name, port, token_file } = kubernetes as NonNullable<typeof kubernetes>
  const selector = kubernetes?.selector ?? `kubernetes.io/service-name=${service}`
  return { kind: 'kubernetes', url, namespace, selector, port, tokenFile: token_file, tls }
}

/** Who is asked, for people: `dns http://orders.internal:8080`. */
export function describeSource(source: Source): string {
  return `${source.kind} ${'urls' in source ? source.urls.join(' ') : source.url}`
}

/** An address, and perhaps a port. */
function isServer(text: string): boolean {
  const [, v6 = '', v4 = ''] = /^(?:\[(.+)\]|([^:]+)):\d{1,5}$/.exec(text) ?? []
  return isIP(text) !== 0 || isIPv6(v6) || isIPv4(v4)
}

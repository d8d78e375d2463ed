import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http, { type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { Gateway } from './gateway.ts'
import { signToken, type TokenContent } from './token.ts'

/** What a plugin is tested with. */
export interface PluginTest {
  /** The plugin's file, as a path or a `file:` URL: `import.meta.resolve('./maintenance.ts')`. */
  readonly use: string
  /** Next to which concern it runs. */
  readonly before?: string
  readonly after?: string
  /** What the route `/**` says under `plugins`: `{ maintenance: { message: 'Back at noon.' } }`. */
  readonly plugins?: Readonly<Record<string, unknown>>
  /** Options of a plain Fastify plugin. */
  readonly options?: Readonly<Record<string, unknown>>
  /** More of the configuration, instead of what is there otherwise: `{ rate_limits: { guest: 1 } }`. */
  readonly document?: Readonly<Record<string, unknown>>
}

/** A request as it has reached the service. */
export interface Forwarded {
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** A gateway with one plugin. Ends with `close()`, or with the block when it is held by `await using`. */
export interface PluginGateway extends AsyncDisposable {
  /** `http://127.0.0.1:49152` */
  readonly url: string
  /** What the service has got so far. */
  readonly forwarded: readonly Forwarded[]
  /** One request; the global `fetch`, from the gateway's root. */
  fetch(path: string, init?: RequestInit): Promise<Response>
  /** A token that the gateway takes, for an hour. */
  token(content?: Partial<TokenContent>): Promise<string>
  /** Puts a new configuration in charge while the gateway runs, as a change of its file does. @throws {ConfigError} */
  reload(change: Pick<PluginTest, 'plugins' | 'document'>): Promise<void>
  close(): Promise<void>
}

/**
 * Starts a gateway on a free port with one plugin, loaded from its file as a configuration would, in front of a service that
 * answers 200 with what it got, as JSON. Callers need no credentials unless `document` says so.
 *
 * @example
 * await using gateway = await startGateway({
 *   use: import.meta.resolve('./maintenance.ts'),
 *   plugins: { maintenance: { message: 'Back at noon.' } }
 * })
 * const answer = await gateway.fetch('/')
 * assert.equal(answer.status, 503)
 * @throws {ConfigError} when the plugin cannot be loaded, or does not like its options
 */
export async function startGateway(plugin: PluginTest): Promise<PluginGateway> {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-plugin-'))
  const file = join(folder, 'gateway.yaml')
  const forwarded: Forwarded[] = []
  const service = await startService(forwarded)
  const configure = (change: Pick<PluginTest, 'plugins' | 'document'>): void =>
    writeFileSync(file, stringify(documentFor({ ...plugin, ...change }, folder, service)))
  const stopService = (): void => {
    service.close()
    service.closeAllConnections()
    rmSync(folder, { recursive: true })
  }
  configure({})
  let gateway: Gateway
  try {
    gateway = await Gateway.start({ files: [file], env: {}, overrides: [] })
  } catch (error) {
    stopService()
    throw error
  }
  const url = `http://127.0.0.1:${gateway.port}`
  const close = async (): Promise<void> => {
    await gateway.close(0)
    stopService()
  }
  return {
    url,
    forwarded,
    fetch: (path, init) => fetch(url + path, init),
    token: content => signToken(gateway.snapshot, { subject: 'alice', seconds: 3600, ...content }),
    reload: async change => {
      configure(change)
      await gateway.reload()
    },
    close,
    [Symbol.asyncDispose]: close
  }
}

function documentFor(
  { use, before, after, plugins = {}, options, document }: PluginTest,
  folder: string,
  service: http.Server
): Record<string, unknown> {
  const path = use.startsWith('file:') ? fileURLToPath(use) : use
  const { port } = service.address() as AddressInfo
  return {
    server: { host: '127.0.0.1', port: 0 },
    storage: { database: false, data_dir: join(folder, 'data') },
    logging: { level: 'error' },
    defaults: { authentication: 'none' },
    services: { service: { url: `http://127.0.0.1:${port}` } },
    routes: [{ path: '/**', service: 'service', plugins }],
    plugins: [{ use: path, before, after, options }],
    ...document
  }
}

async function startService(forwarded: Forwarded[]): Promise<http.Server> {
  const server = http.createServer((request, response) => {
    let body = ''
    request.setEncoding('utf8')
    request.on('data', chunk => {
      body += chunk
    })
    request.on('end', () => {
      const { method = '', url = '', headers } = request
      const got: Forwarded = { method, url, headers, body }
      forwarded.push(got)
      response.setHeader('content-type', 'application/json').end(JSON.stringify(got))
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  return server
}

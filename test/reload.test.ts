import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { dirname, join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t, { type Test } from 'tap'
import { type WebSocket as Accepted, WebSocketServer } from 'ws'
import { stringify } from 'yaml'
import { watchFiles } from '../src/config/watch.ts'
import { startGateway, type TestGateway } from './support/gateway.ts'
import { token } from './support/tokens.ts'
import { until } from './support/until.ts'
import { startService, startUpstream } from './support/upstream.ts'

const boss = token({ sub: 'root', roles: ['admin'] })
const json = { 'content-type': 'application/json' }

/** A configuration with `/open`, and one further route by which it can be told from others. */
const numbered = (url: string, n: number | string): object => ({
  services: { s: { url } },
  routes: [`/open`, `/number-${n}`].map(path => ({ path, service: 's', authentication: 'none' }))
})

/** Requests on as many connections at once as there are workers, half of which open a new one each time. */
class Load {
  answered = 0
  fresh = 0
  readonly failures: string[] = []
  #running = true
  #waiting: { count: number; resolve: () => void } | undefined
  readonly #call: TestGateway['call']
  readonly #agent = new http.Agent({ keepAlive: true })
  readonly #workers: Promise<void>[]

  constructor({ call }: TestGateway, workers: number) {
    this.#call = call
    this.#workers = Array.from({ length: workers }, (_, i) => this.#work(i % 2 === 0, i % 4 < 2))
  }

  async #work(fresh: boolean, posts: boolean): Promise<void> {
    const body = 'x'.repeat(64)
    while (this.#running) {
      try {
        const request = posts ? { method: 'POST', body } : {}
        const { status, json } = await this.#call('/open', { ...request, agent: fresh ? false : this.#agent })
        if (status !== 200 || (posts && json.body !== body)) this.failures.push(`status ${status}`)
      } catch (error) {
        this.failures.push(String(error))
      }
      this.answered++
      if (fresh) this.fresh++
      if (this.#waiting !== undefined && this.answered >= this.#waiting.count) this.#waiting.resolve()
    }
  }

  /** Resolves when so many more requests have been answered. */
  more(count: number): Promise<void> {
    return new Promise(resolve => {
      this.#waiting = { count: this.answered + count, resolve }
    })
  }

  async stop(): Promise<void> {
    this.#running = false
    await Promise.all(this.#workers)
    this.#agent.destroy()
  }
}

t.test('H-118 CFG-06 a hundred changes under load lose no request, on old connections or new ones', async t => {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(t, numbered(upstream.url, 'first'))
  const load = new Load(gateway, 8)
  for (let i = 0; i < 100; i++) {
    gateway.configure(numbered(upstream.url, i))
    const [reloaded] = await Promise.all([gateway.gateway.reload(), load.more(8)])
    t.ok(reloaded.changed)
    if (i % 20 === 0) t.equal((await gateway.call(`/number-${i}`)).status, 200, 'and each takes effect')
  }
  await load.stop()
  t.strictSame(load.failures, [])
  t.ok(load.answered >= 800 && load.fresh > load.answered / 4, `${load.answered} requests, ${load.fresh} of them fresh`)
})

/** One request of each kind that takes as long as it likes. */
async function startLongLived(t: Test, drain: string) {
  const streams: http.ServerResponse[] = []
  const service = await startService(t, (request, response) => {
    if (request.url === '/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write('data: 0\n\n')
      streams.push(response)
    } else request.pipe(response)
  })
  const peers: Accepted[] = []
  new WebSocketServer({ server: service.server }).on('connection', peer => {
    peers.push(peer)
    peer.on('message', data => peer.send(`echo ${data}`))
  })
  const document = (n: number): object => ({
    server: { timeouts: { drain } },
    services: { s: { url: service.url } },
    routes: [
      { path: '/**', service: 's', authentication: 'none', websocket: true },
      { path: `/number-${n}`, service: 's' }
    ]
  })
  const gateway = await startGateway(t, document(0))
  const { port } = gateway

  const socket = new WebSocket(`ws://127.0.0.1:${port}/socket`)
  const messages: unknown[] = []
  socket.onmessage = ({ data }) => messages.push(data)
  const closed = new Promise<{ code: number; reason: string }>(resolve => {
    socket.onclose = resolve
  })
  await new Promise((resolve, reject) => Object.assign(socket, { onopen: resolve, onerror: reject }))

  const events = await get(port, '/events')
  let text = ''
  events.setEncoding('utf8').on('data', chunk => {
    text += chunk
  })
  const cut = new Promise<boolean>(resolve => {
    events.on('error', () => resolve(true))
    events.on('end', () => resolve(false))
  })
  await until(() => text === 'data: 0\n\n')

  const upload = http.request({ port, path: '/upload', method: 'POST', agent: false })
  const uploaded = new Promise<string>((resolve, reject) => {
    upload.on('error', reject)
    upload.on('response', response => {
      let body = ''
      response.setEncoding('utf8').on('data', chunk => {
        body += chunk
      })
      response.on('end', () => resolve(body))
      response.on('error', reject)
    })
  })
  upload.write('first half, ')
  await until(() => gateway.gateway.server.inFlight === 3)

  const swap = async (n: number): Promise<void> => {
    gateway.configure(document(n))
    t.match(await gateway.gateway.reload(), { changed: true })
  }
  return { ...gateway, swap, socket, messages, closed, events: () => text, cut, streams, upload, uploaded }
}

function get(port: number, path: string): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => http.get({ port, path, agent: false }, resolve).on('error', reject))
}

t.test('H-118 RTE-19 what is open stays open, on the configuration that it began with', async t => {
  const open = await startLongLived(t, '30s')
  for (let i = 1; i <= 5; i++) await open.swap(i)
  t.equal((await open.call('/number-5')).status, 401, 'the newest is in charge')

  open.socket.send('hello')
  await until(() => open.messages.includes('echo hello'))
  open.streams[0]?.end('data: 1\n\n')
  t.equal(await open.cut, false)
  t.equal(open.events(), 'data: 0\n\ndata: 1\n\n')
  open.upload.end('second half')
  t.equal(await open.uploaded, 'first half, second half')
  open.socket.close(1000)
  t.match(await open.closed, { code: 1000 })
  await until(() => open.gateway.server.inFlight === 0)
})

t.test(
  'H-116 H-118 what is still open when the drain time is over is ended: WebSockets with 1001, the rest cut',
  async t => {
    const open = await startLongLived(t, '50ms')
    const uploaded = t.rejects(open.uploaded)
    await open.swap(1)
    t.match(await open.closed, { code: 1001, reason: /configuration has changed/ })
    t.equal(await open.cut, true, 'an answer that is cut does not look complete')
    await uploaded
    await until(() => open.gateway.server.inFlight === 0)
  }
)

t.test('H-118 two hundred changes leave nothing behind: memory, handles, leases', async t => {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(t, {})
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  // What the test itself would keep: the log, and what the service has seen.
  gateway.gateway.runtime.log.level = 'silent'
  const change = async (from: number, to: number): Promise<void> => {
    for (let i = from; i < to; i++) {
      const paths = Array.from({ length: 10 }, (_, j) => ({ path: `/${i}/${j}`, service: 's', timeout: `${i + 1}s` }))
      const services = { s: { url: upstream.url, retry: i % 5 } }
      gateway.configure({ logging: { access: false }, services, routes: paths })
      await gateway.gateway.reload()
      await gateway.call(`/${i}/0`, { token: token() })
    }
    upstream.seen.length = 0
    await until(() => leases() === held, 'generations that are over give back what they held')
  }
  // One collection is not enough: the last generations are held by sockets and finalizers for some turns more.
  const heap = async (): Promise<number> => {
    let least = Number.POSITIVE_INFINITY
    for (let i = 0; i < 10; i++) {
      await new Promise(resolve => setImmediate(resolve))
      collect()
      least = Math.min(least, process.memoryUsage().heapUsed)
    }
    return least
  }
  const leases = (): number => gateway.gateway.runtime.leases.keys.length
  const held = 13 // One service, what tells who calls, and the series of the service and of ten routes.
  const handles = (): string => process.getActiveResourcesInfo().sort().join(' ')
  await change(0, 50)
  const before = { heap: await heap(), handles: handles() }
  await change(50, 250)
  await until(() => handles() === before.handles, 'every handle is closed')
  const grown = ((await heap()) - before.heap) / 200
  // A generation with ten routes takes a hundred times as much.
  t.ok(grown < 10_000, `${Math.round(grown)} bytes per change`)
})

t.test(
  'CFG-06 what only a start can change is said by name, until it is as it was; the level of the log follows',
  async t => {
    const { gateway, configure, lines } = await startGateway(t, { logging: { level: 'info' } })
    const pending = async (document: object): Promise<string[]> => {
      const { length } = lines()
      configure(document)
      await gateway.reload()
      return lines()
        .slice(length)
        .flatMap(({ msg }) => /^"(.+)" has changed; that takes effect at the next start$/.exec(String(msg))?.[1] ?? [])
    }
    t.strictSame(await pending({ logging: { level: 'warn' } }), [])
    t.equal(gateway.runtime.log.level, 'warn')
    const changed = {
      server: { limits: { headers: 50 } },
      storage: { redis_url: 'redis://elsewhere', redis_timeout: '1s' },
      logging: { level: 'info', format: 'json' }
    }
    const keys = ['server', 'storage.redis_url', 'storage.redis_timeout', 'logging.format']
    t.strictSame(await pending(changed), keys)
    t.strictSame(await pending({ logging: { level: 'info' } }), [])
  }
)

t.test('MON-03 H-126 series end with what they are about, and not before', async t => {
  const upstream = await startUpstream(t)
  const document = (n: number): object => ({
    services: { [`s-${n}`]: { url: upstream.url }, kept: { url: upstream.url } },
    routes: [
      { path: `/${n}`, service: `s-${n}`, authentication: 'none', rate_limit: { daily_limit: 1 } },
      { path: '/kept', service: 'kept', authentication: 'none' }
    ]
  })
  const { gateway, call, configure } = await startGateway(t, document(0))
  const gone = async (n: number): Promise<boolean> => !RegExp(`"(/|s-)${n}"`).test((await call('/metrics')).text)
  for (let n = 0; n < 5; n++) {
    if (n > 0) {
      configure(document(n))
      await gateway.reload()
    }
    for (let i = 0; i < 2; i++) await call(`/${n}`)
    await call('/kept')
    t.equal(await gone(n), false)
    if (n > 0) await until(() => gone(n - 1), 'what is no more has no series')
  }
  const { text } = await call('/metrics')
  t.match(text, /^http_request_count\{method="GET",endpoint="\/kept",status="200"\} 5$/m)
  t.match(text, /^service_request_count\{service="kept",status="200"\} 5$/m)
})

t.test('H-118 CFG-06 a bad file changes nothing, and everybody can see it', async t => {
  const upstream = await startUpstream(t)
  const { gateway, call, configure, lines } = await startGateway(t, numbered(upstream.url, 1))
  const { version } = gateway.snapshot
  configure('routes: [{ path: /x, servcie: s }]\n')
  const answer = await call('/gateway/reload', { method: 'POST', token: boss })
  t.equal(answer.status, 422)
  t.match(
    answer.json.error.details,
    /gateway\.yaml:1:\d+ {2}routes\[0\]\.servcie {2}unknown key, did you mean "service"\?/
  )
  t.equal((await call('/number-1')).status, 200)
  t.match((await call('/health/dependencies')).json, {
    status: 'degraded',
    configuration: { status: 'refused', version, error: '1 problem' }
  })
  t.match((await call('/metrics')).text, /^gateway_config_reloads_total\{result="refused"\} 1$/m)
  const refused = lines().find(({ problems }) => problems !== undefined)
  t.match(refused, { level: 50, msg: /still serving/, problems: [/gateway\.yaml:1:\d+ {2}routes\[0\]\.servcie/] })

  configure(numbered(upstream.url, 2))
  t.match((await call('/gateway/reload', { method: 'POST', token: boss })).json, { changed: true })
  t.match((await call('/health/dependencies')).json, { status: 'ok', configuration: { error: null } })
  t.match((await call('/metrics')).text, /^gateway_config_reloads_total\{result="applied"\} 1$/m)
})

t.test('H-118 CFG-06 a change on disk takes effect, however it is made', async t => {
  const upstream = await startUpstream(t)
  const write = (folder: string, n: number | string): void =>
    writeFileSync(join(folder, 'routes.yaml'), stringify(numbered(upstream.url, n)))
  const gateway = await startGateway(t, 'include: ./config/routes.yaml\n', {
    files: {
      'volume-1': { 'routes.yaml': stringify(numbered(upstream.url, 'start')) },
      config: { 'routes.yaml': t.fixture('symlink', '../data/routes.yaml') },
      data: t.fixture('symlink', 'volume-1')
    }
  })
  const folder = dirname(gateway.file)
  const takesEffect = (n: number | string): Promise<void> =>
    until(async () => (await gateway.call(`/number-${n}`)).status === 200, `/number-${n} is there`)
  gateway.gateway.watch()

  write(join(folder, 'volume-1'), 'written')
  await takesEffect('written')

  // As editors do it.
  writeFileSync(join(folder, 'volume-1', '.routes.swp'), stringify(numbered(upstream.url, 'renamed')))
  renameSync(join(folder, 'volume-1', '.routes.swp'), join(folder, 'volume-1', 'routes.yaml'))
  await takesEffect('renamed')

  // As Kubernetes does it: the link of the whole volume is put in the place of the one before.
  for (const n of [2, 3]) {
    mkdirSync(join(folder, `volume-${n}`))
    write(join(folder, `volume-${n}`), n)
    symlinkSync(`volume-${n}`, join(folder, 'data-tmp'))
    renameSync(join(folder, 'data-tmp'), join(folder, 'data'))
    await takesEffect(n)
  }
})

/** Resolves when whoever follows files had the time to notice changes that are there already, and to act on them. */
async function quiet(folder: string): Promise<void> {
  for (let i = 0; i < 2; i++) {
    await new Promise<void>(resolve => {
      const stop = watchFiles(new Map([[folder, 'otherwise']]), () => {
        stop()
        resolve()
      })
    })
  }
}

t.test('H-118 what mends a refused change may be in a file that was not come to', async t => {
  const upstream = await startUpstream(t)
  const main = (text = ''): string => `include: [./first.yaml, ./second.yaml]\n${text}`
  const gateway = await startGateway(t, main(), {
    files: { 'first.yaml': stringify(numbered(upstream.url, 1)), 'second.yaml': 'logging: { level: info }\n' }
  })
  const folder = dirname(gateway.file)
  const write = (name: string, text: string): void => writeFileSync(join(folder, name), text)
  const refusals = (): number =>
    gateway.lines().filter(({ msg }) => String(msg).startsWith('configuration refused')).length
  gateway.gateway.watch()

  // The first does not even parse, so nobody looks at the second, which has changed as well.
  write('second.yaml', 'logging: { level: deubg }\n')
  gateway.configure(main('{{'))
  await until(() => refusals() === 1)
  await quiet(folder)
  t.equal(refusals(), 1, 'and files that stay as they are, are read once')
  gateway.configure(main('# mended\n'))
  await until(() => refusals() === 2)
  write('second.yaml', 'logging: { level: debug }\n')
  await until(() => gateway.gateway.snapshot.logging.level === 'debug')
  t.equal(refusals(), 2)
})

t.test('H-118 a change that is made while another is being applied is not lost', async t => {
  const upstream = await startUpstream(t)
  const during: { act?: (() => void) | undefined } = {}
  Object.assign(globalThis, { duringSetup: during })
  const plugin = `export default {
    name: 'slow', schema: { type: 'object' }, compile() {},
    setup() { globalThis.duringSetup.act?.() }
  }`
  const gateway = await startGateway(t, numbered(upstream.url, 0), { files: { 'slow.js': plugin } })
  const withPlugin = (n: number) => ({ ...numbered(upstream.url, n), plugins: [{ use: './slow.js' }] })
  gateway.gateway.watch()
  // By now the file has been read, and the generation made from it is not in charge yet.
  during.act = () => gateway.configure(withPlugin(2))
  gateway.configure(withPlugin(1))
  await gateway.gateway.reload()
  await until(async () => (await gateway.call('/number-2')).status === 200)
})

t.test('H-118 changes that are asked for all at once come one after the other', async t => {
  const upstream = await startUpstream(t)
  const { call, configure } = await startGateway(t, numbered(upstream.url, 1))
  configure(numbered(upstream.url, 2))
  const answers = await Promise.all(
    Array.from({ length: 5 }, () => call('/gateway/reload', { method: 'POST', token: boss }))
  )
  t.strictSame(
    answers.map(({ json }) => json.changed),
    [true, false, false, false, false]
  )
})

t.test('RTE-05 a route that an administrator has switched off stays off when the configuration changes', async t => {
  const upstream = await startUpstream(t)
  const { call, configure } = await startGateway(t, numbered(upstream.url, 1))
  const toggle = (enabled: boolean) =>
    call('/admin/routes', {
      method: 'PATCH',
      token: boss,
      headers: json,
      body: JSON.stringify({ id: '/open', enabled })
    })
  t.equal((await toggle(false)).status, 200)
  configure(numbered(upstream.url, 2))
  t.match((await call('/gateway/reload', { method: 'POST', token: boss })).json, { changed: true })
  t.equal((await call('/number-2')).status, 200)
  t.equal((await call('/open')).status, 404)
  await toggle(true)
  t.equal((await call('/open')).status, 200)
})

t.test('H-118 a gateway that is shutting down takes no more changes', async t => {
  const upstream = await startUpstream(t)
  const { gateway, configure } = await startGateway(t, numbered(upstream.url, 1))
  gateway.watch()
  configure(numbered(upstream.url, 2))
  const reload = gateway.reload()
  await gateway.close(0)
  await reload
  await t.rejects(gateway.reload(), { code: 'service_unavailable' })
})

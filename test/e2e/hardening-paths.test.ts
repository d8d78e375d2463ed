import http2 from 'node:http2'
import t, { type Test } from 'tap'
import { makeCertificate, writeCertificate } from '../support/certificates.ts'
import { HOST, startDoor } from '../support/door.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startGateway } from '../support/gateway.ts'
import { raw } from '../support/raw.ts'
import { token } from '../support/tokens.ts'
import { startUpstream, type Upstream } from '../support/upstream.ts'

const get = (target: string, fields = ''): string => `GET ${target} HTTP/1.1\r\n${HOST}${fields}\r\n`

/** Whatever is under /vault needs the permission; everything else is for everybody, and goes to the same service. */
async function startGuarded(t: Test, more: object = {}) {
  const service = await startUpstream(t)
  const gateway = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [
      { path: '/vault/**', service: 'service', permissions: ['vault'] },
      { path: '/**', service: 'service', authentication: 'none' }
    ],
    ...more
  })
  /** What became of a target: the path that the service saw, or the status. */
  const outcome = async (target: string, fields = ''): Promise<string> => {
    const before = service.seen.length
    const { status } = await raw(gateway.port, get(target, fields), { quietMs: 15 })
    return service.seen.length > before ? service.last().url : String(status)
  }
  return { service, gateway, outcome }
}

const GUARDED = [
  '/vault',
  '/vault/',
  '/vault/x',
  '//vault',
  '//vault//x',
  '/./vault',
  '/vault/.',
  '/a/../vault',
  '/a/%2e%2e/vault',
  '/a/.%2E/vault/x',
  '/%76ault',
  '/%76%61%75%6c%74/x',
  '/VAULT',
  '/Vault/x',
  '/%56AULT',
  '/vault;x=1',
  '/vault;x=1/y;z',
  '/VAULT;a/../vault',
  '/vault?x=1',
  '/public/..//vault',
  '/vault/%2e/x',
  '///vault',
  '/x/./../vault/'
]

t.test('AZN-13 RTE-11 H-26 H-30 H-31 every spelling of a guarded path is guarded', async t => {
  const { service, outcome } = await startGuarded(t)
  for (const target of GUARDED) t.equal(await outcome(target), '401', target)
  t.equal(service.seen.length, 0)
  const bearer = `Authorization: Bearer ${token({ permissions: ['vault'] })}\r\n`
  for (const target of GUARDED)
    t.match(await outcome(target, bearer), /^\/vault(?:[/;?]|$)/i, `${target} with the permission`)
})

t.test('AZN-13 H-27 H-28 H-29 H-32 nothing that another server could take for a guarded path gets through', async t => {
  const { outcome } = await startGuarded(t)
  const refused = [
    '/a/..%2fvault',
    '/a%2f..%2fvault',
    '/a/%2e%2e%2fvault',
    '/a/..%5cvault',
    '/a\\..\\vault',
    '/\\vault',
    '/a/..;/vault',
    '/a/..;x=1/vault',
    '/a/.;/vault',
    '/a/..%3b/vault',
    '/a/%2e%2e%3bx/vault',
    '/;/vault',
    '/;x/vault',
    '/a/../../vault',
    '/../vault',
    '/%2e%2e/vault',
    '/a%00/../vault',
    '/vault%00',
    '/a/%c0%ae%c0%ae/vault',
    '/a/%e0%80%ae/vault',
    '/%zz/vault',
    '/a%0d%0a/vault',
    '/vault%0a',
    '/a/.%00./vault',
    '/a%2f',
    '/%2fvault',
    '/a/%2e%2e%252fvault/..%2f'
  ]
  for (const target of refused) t.equal(await outcome(target), '400', target)
  const once = [
    '/a/%252e%252e/vault',
    '/a%252fvault',
    '/..a/vault',
    '/.../vault',
    '/%25%76ault',
    '/a/..%20/vault',
    '/a/%EF%BC%8E%EF%BC%8E/vault',
    '/vaulted',
    '/xvault'
  ]
  for (const target of once) t.equal(await outcome(target), target.replace('%76', 'v'), `${target} goes on as it is`)
})

t.test('AZN-13 RLM-32 the query and other fields make no difference to where a request belongs', async t => {
  const { service, outcome } = await startGuarded(t)
  for (const query of ['?', '?/../public', '?x=/public', '??', '?x=%2e%2e%2f', '?;/public'])
    t.equal(await outcome(`/vault${query}`), '401', query)
  for (const name of [
    'X-Original-URL',
    'X-Rewrite-URL',
    'X-HTTP-Method-Override',
    'X-HTTP-Method',
    'X-Method-Override',
    'X-Forwarded-Prefix',
    'X-Forwarded-Path',
    'X-Forwarded-Uri',
    'X-Original-Path',
    'X-Accel-Redirect',
    'X-Rewrite-Url'
  ])
    t.equal(await outcome('/vault', `${name}: /public\r\n`), '401', `H-44 ${name}`)
  t.equal(service.seen.length, 0)
  t.equal(
    await outcome(
      '/public',
      'X-Original-URL: /vault\r\nX-Rewrite-URL: /vault\r\nX-Forwarded-Prefix: /vault\r\nX_Original_URL: /vault\r\n'
    ),
    '/public'
  )
  for (const name of Object.keys(service.last().headers))
    t.notMatch(name, /original|rewrite|prefix/, 'H-44 what other servers take for the path goes no further')
})

t.test('H-33 a fragment is refused, wherever it stands; escaped it stays what it is', async t => {
  const door = await startDoor(t)
  for (const target of ['/a#b', '/#', '/a?b#c', '/a%20b#', '#', '/#/../vault'])
    await door.refuses(t, target, get(target))
  const { outcome } = await startGuarded(t)
  t.equal(await outcome('/a%23b%3fc%3Fd?e=%23%3f'), '/a%23b%3Fc%3Fd?e=%23%3f')
})

t.test('H-34 a parameter that is put into another path stays one segment', async t => {
  const service = await startUpstream(t)
  const { port } = await startGateway(t, {
    services: { service: { url: `${service.url}/base` } },
    routes: [
      {
        path: '/users/{id}/files',
        service: 'service',
        authentication: 'none',
        rewrite: '/files/{id}',
        encoded_slash: true
      },
      { path: '/plain/{id}', service: 'service', authentication: 'none', rewrite: '/p/{id}' }
    ]
  })
  const outcome = async (target: string): Promise<string> => {
    const before = service.seen.length
    const { status } = await raw(port, get(target), { quietMs: 15 })
    return service.seen.length > before ? service.last().url : String(status)
  }
  t.equal(await outcome('/users/a%2Fb/files'), '/base/files/a%2Fb')
  t.equal(await outcome('/users/a%23b/files'), '/base/files/a%23b')
  t.equal(await outcome('/users/a%3fb/files?c'), '/base/files/a%3Fb?c')
  t.equal(await outcome('/users/a%252fb/files'), '/base/files/a%252fb')
  t.equal(await outcome('/users/..%2f..%2fetc/files'), '400')
  t.equal(await outcome('/users/%2e%2e/files'), '404')
  t.equal(await outcome('/plain/a%2Fb'), '400', 'a slash has to be asked for')
  t.equal(await outcome('/plain/a;v=1'), '/base/p/a;v=1')
  t.equal(await outcome('/plain/%7B%24x%7D'), '/base/p/%7B%24x%7D')
})

t.test('RTE-11 a route that asks for encoded slashes gets them, but for dot segments behind them', async t => {
  const service = await startUpstream(t)
  const { port, call } = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/files/**', service: 'service', authentication: 'none', encoded_slash: true }]
  })
  t.equal((await call('/files/a%2fb%2Fc')).json.url, '/files/a%2Fb%2Fc')
  for (const target of ['/files/a%2F..%2Fb', '/files/..%2fb', '/files/a%2f.', '/files/a%2f..;x'])
    t.equal((await raw(port, get(target))).status, 400, target)
})

t.test('H-35 a prefix ends at a slash', async t => {
  const service = await startUpstream(t)
  const { call } = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [
      { path: '/v2/**', service: 'service', authentication: 'none' },
      { path: '/v3', service: 'service', authentication: 'none' }
    ]
  })
  for (const path of ['/v2', '/v2/', '/v2/example', '/v3', '/v3/']) t.equal((await call(path)).status, 200, path)
  for (const path of ['/v2example', '/v2.', '/v2%2e', '/v', '/v3/x', '/v2-x', '/v2%3Fx', '/xv2'])
    t.equal((await call(path)).status, 404, path)
})

t.test('H-36 a host is matched whole: in lower case, without port and without the dot of the root', async t => {
  const service = await startUpstream(t)
  const { port } = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [
      { path: '/**', service: 'service', authentication: 'none', host: 'api.example.com' },
      { path: '/**', service: 'service', authentication: 'none', host: '*.wild.example' }
    ]
  })
  const at = async (host: string): Promise<number> =>
    (await raw(port, `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`, { quietMs: 15 })).status
  for (const host of [
    'api.example.com',
    'API.Example.COM',
    'api.example.com.',
    'api.example.com:8080',
    'Api.Example.Com.:80',
    'a.wild.example',
    'a.b.wild.example'
  ])
    t.equal(await at(host), 200, host)
  for (const host of [
    'api.example.com.evil.test',
    'evil-api.example.com',
    'example.com',
    'xapi.example.com',
    'api.example.co',
    'wild.example',
    'evilwild.example',
    'a.wild.example.evil.test',
    '[::1]',
    'api-example.com'
  ])
    t.equal(await at(host), 404, host)
  t.equal(await at('api.example.com..'), 400)
})

t.test('H-37 the longest of targets are decided like any other', async t => {
  const { outcome } = await startGuarded(t)
  t.equal(await outcome(`/${'../'.repeat(60)}vault`), '400')
  t.equal(await outcome(`/${'a/../'.repeat(1600)}vault`), '401')
  t.equal(await outcome(`/${'a/../'.repeat(2000)}vault`), '414')
  t.equal(await outcome(`${'/'.repeat(8000)}vault`), '401')
  t.equal(await outcome(`/${'%2e%2e%2f'.repeat(800)}vault`), '400')
  t.equal(await outcome(`/${';'.repeat(8000)}`), '400')
  t.equal(await outcome(`/a${';'.repeat(8000)}`), `/a${';'.repeat(8000)}`)
})

t.test('H-38 what could be read as another server stays a path', async t => {
  const { outcome } = await startGuarded(t)
  t.equal(await outcome('//evil.test/x'), '/evil.test/x')
  t.equal(await outcome('///evil.test'), '/evil.test')
  t.equal(await outcome('/http://evil.test/x'), '/http:/evil.test/x')
  t.equal(await outcome('/@evil.test/x'), '/@evil.test/x')
  t.equal(await outcome('/:80@evil.test'), '/:80@evil.test')
  t.equal(await outcome('/.evil.test'), '/.evil.test')
  t.equal(await outcome('/?//evil.test'), '/?//evil.test')
  t.equal(await outcome('http://evil.test/x'), '400')

  const service = await startUpstream(t)
  const { port } = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [
      { path: '/strip/**', service: 'service', authentication: 'none', strip_prefix: true },
      { path: '/re/**', service: 'service', authentication: 'none', rewrite: '/' }
    ]
  })
  for (const prefix of ['/strip', '/re']) {
    for (const [target, url] of [
      ['//evil.test/x', '/evil.test/x'],
      ['/@evil.test', '/@evil.test'],
      ['', '/'],
      ['/', '/'],
      ['/http://evil.test', '/http:/evil.test']
    ] as const) {
      await raw(port, get(prefix + target), { quietMs: 15 })
      t.equal(service.last().url, url, prefix + target)
    }
  }
})

t.test('RLM-32 all spellings of a path share one limit', async t => {
  const service = await startUpstream(t)
  const { port } = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/api/**', service: 'service', authentication: 'none', rate_limit: { requests_per_hour: 4 } }]
  })
  const statuses: number[] = []
  for (const target of [
    '/api/x',
    '/API/x',
    '//api//x/',
    '/%61pi/x',
    '/api;a=1/x',
    '/api/./x',
    '/b/../api/x',
    '/api/x?y=1'
  ])
    statuses.push((await raw(port, get(target), { quietMs: 15 })).status)
  t.same(statuses, [200, 200, 200, 200, 429, 429, 429, 429])
})

t.test('RLM-32 case and spelling of header fields, and forged addresses, share one limit', async t => {
  const service = await startUpstream(t)
  const { port } = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none', rate_limit: { requests_per_hour: 3 } }]
  })
  const statuses: number[] = []
  for (const fields of [
    '',
    'X-Forwarded-For: 192.0.2.1\r\n',
    'x-forwarded-for: 192.0.2.2\r\n',
    'X-FORWARDED-FOR: 192.0.2.3, 192.0.2.4\r\n',
    'Forwarded: for=192.0.2.5\r\n',
    'X-Real-IP: 192.0.2.6\r\n',
    'X-Client-ID: somebody\r\n',
    'X_Forwarded_For: 192.0.2.7\r\n',
    'True-Client-IP: 192.0.2.8\r\n',
    'X-Request-ID: a\r\n'
  ])
    statuses.push((await raw(port, get('/', fields), { quietMs: 15 })).status)
  t.same(statuses, [200, 200, 200, 429, 429, 429, 429, 429, 429, 429])
})

t.test('H-40 AZN-13 HTTP/1.1, HTTP/2 and WebSockets are decided alike', async t => {
  const service = await startUpstream(t)
  const files = writeCertificate(temporaryFolder(t), 'door', makeCertificate({ name: 'door', hosts: ['localhost'] }))
  const routes = [
    { path: '/vault/**', service: 'service', permissions: ['vault'], websocket: true },
    { path: '/**', service: 'service', authentication: 'none', websocket: true }
  ]
  const document = { services: { service: { url: service.url } }, routes }
  const plain = await startGateway(t, document)
  const secure = await startGateway(t, { ...document, server: { tls: files } })
  const session = http2.connect(`https://localhost:${secure.port}`, { rejectUnauthorized: false })
  t.teardown(() => session.close())
  const overHttp2 = (path: string): Promise<number> =>
    new Promise((resolve, reject) => {
      const stream = session.request({ ':path': path, ':authority': 'door.test' })
      stream.on('response', headers => resolve(Number(headers[':status'])))
      stream.on('error', reject)
      stream.resume()
    })
  const webSocket =
    'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n'
  const targets = [
    '/public',
    '/vault',
    '//vault',
    '/VAULT/x',
    '/a/../vault',
    '/%76ault',
    '/vault;x',
    '/a/..%2fvault',
    '/a/..;/vault',
    '/a%00',
    '/a%2fb',
    '/%252e%252e/vault',
    '/;/vault',
    '/a#b',
    '/nowhere/../public',
    `/${'a'.repeat(8192)}`
  ]
  for (const target of targets) {
    const expected = (await raw(plain.port, get(target), { quietMs: 15 })).status
    t.equal(await overHttp2(target), expected, `${target.slice(0, 30)} over HTTP/2`)
    t.equal(
      (await raw(plain.port, get(target, webSocket), { quietMs: 15 })).status,
      expected,
      `${target.slice(0, 30)} as a WebSocket`
    )
  }
  const before: Upstream['seen'] = service.seen
  t.notOk(
    before.some(({ url }) => /vault/i.test(url) && !url.includes('%252e')),
    'nothing guarded was reached'
  )
})

import { readFileSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import { SEEDS } from '../support/config.ts'
import { freePort } from '../support/free-port.ts'
import { startGateway } from '../support/gateway.ts'
import { raw } from '../support/raw.ts'
import { token } from '../support/tokens.ts'
import { startRawUpstream, startService, startUpstream } from '../support/upstream.ts'

const open = { authentication: 'none' }

t.test('RTE-02 RTE-03 a prefix leads to its service, path and query as they came', async t => {
  const users = await startUpstream(t, undefined, 'users')
  const credits = await startUpstream(t, undefined, 'credits')
  const { call } = await startGateway(t, {
    defaults: open,
    services: { users: { url: users.url }, credits: { url: credits.url } },
    routes: [
      { path: '/api/users/**', service: 'users' },
      { path: '/api/credits/*', service: 'credits' }
    ]
  })
  t.match((await call('/api/users/7/notes?a=%20b&a=c&=&x')).json, {
    from: 'users',
    url: '/api/users/7/notes?a=%20b&a=c&=&x'
  })
  t.match((await call('/api/credits/balance')).json, { from: 'credits', url: '/api/credits/balance' })
})

t.test('RTE-23 TST-01 the routes of seed 001 lead where its own test says', async t => {
  const services = ['rd-service', 'pm-service', 'slack-connector']
  const upstreams = await Promise.all(services.map(name => startUpstream(t, undefined, name)))
  const { call } = await startGateway(t, {
    ...parse(readFileSync(join(SEEDS, '001-routes.yaml'), 'utf8')),
    services: Object.fromEntries(services.map((name, i) => [name, { url: upstreams[i]?.url }]))
  })
  const caller = token({ sub: 'test-user', roles: ['admin'], permissions: ['manage:integrations'] })
  for (const [path, service] of [
    ['/api/v1/rd/tasks', 'rd-service'],
    ['/api/v1/pm/projects', 'pm-service'],
    ['/api/v1/integrations/slack/events', 'slack-connector']
  ] as const) {
    const answer = await call(path, { token: caller })
    t.match({ status: answer.status, json: answer.json }, { status: 200, json: { from: service, url: path } }, path)
  }
  t.equal((await call('/api/v1/integrations/slack/events', { token: token() })).status, 403)
  t.equal((await call('/api/v1/none')).status, 404)
})

t.test('RTE-04 a method and path lead to a target of their own', async t => {
  const agents = await startUpstream(t, undefined, 'agents')
  const threads = await startUpstream(t, undefined, 'threads')
  const { call } = await startGateway(t, {
    defaults: open,
    routes: [
      { path: '/api/v1/agents', methods: 'GET', target: agents.url },
      { path: '/api/v1/threads', methods: 'POST', target: threads.url }
    ]
  })
  t.equal((await call('/api/v1/agents')).json.from, 'agents')
  t.match((await call('/api/v1/threads', { method: 'POST', body: '{}' })).json, { from: 'threads', body: '{}' })
})

t.test('RTE-01 with catch_all the first segment names the service, whatever the method', async t => {
  const upstream = await startUpstream(t)
  const { call } = await startGateway(t, {
    catch_all: true,
    defaults: open,
    services: { billing: { url: upstream.url } }
  })
  for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])
    t.match((await call('/billing/invoices/3?full=1', { method })).json, { method, url: '/invoices/3?full=1' })
  t.equal((await call('/billing')).json.url, '/')
})

t.test('RTE-07 header and user agent decide between two services', async t => {
  const beta = await startUpstream(t, undefined, 'beta')
  const stable = await startUpstream(t, undefined, 'stable')
  const { call } = await startGateway(t, {
    defaults: open,
    services: { beta: { url: beta.url }, stable: { url: stable.url } },
    routes: [
      { path: '/app/**', headers: { 'X-Channel': 'beta' }, service: 'beta' },
      { path: '/app/**', headers: { 'user-agent': { regex: '^Bot/' } }, service: 'beta', priority: 1 },
      { path: '/app/**', service: 'stable' }
    ]
  })
  t.equal((await call('/app/x')).json.from, 'stable')
  t.equal((await call('/app/x', { headers: { 'x-channel': 'beta' } })).json.from, 'beta')
  t.equal((await call('/app/x', { headers: { 'user-agent': 'Bot/2' } })).json.from, 'beta')
})

t.test('RTE-24 a method that no route takes is 405 with Allow, and no service hears of it', async t => {
  const upstream = await startUpstream(t)
  const { call } = await startGateway(t, {
    defaults: open,
    services: { s: { url: upstream.url } },
    routes: [{ path: '/x', methods: ['GET', 'PUT'], service: 's' }]
  })
  const answer = await call('/x', { method: 'POST', body: 'x' })
  t.equal(answer.status, 405)
  t.same(answer.headers.allow?.split(', ').sort(), ['GET', 'HEAD', 'PUT'])
  t.equal(upstream.seen.length, 0)
})

t.test(
  'RTE-14 RTE-16 the service learns where a request comes from, and hop-by-hop fields end here in both directions',
  async t => {
    const upstream = await startUpstream(t, (_request, response) => {
      response.writeHead(200, [
        'Connection',
        'keep-alive, X-Hop',
        'Keep-Alive',
        'timeout=60',
        'X-Hop',
        '1',
        'Proxy-Authenticate',
        'Basic',
        'X-End',
        '1',
        'Content-Length',
        '2'
      ])
      response.end('ok')
    })
    const { call, port } = await startGateway(t, {
      defaults: open,
      services: { s: { url: upstream.url } },
      routes: [{ path: '/**', service: 's' }]
    })
    const answer = await call('/a', {
      headers: {
        host: `Gate.Example:${port}`,
        connection: 'close, X-Drop',
        'x-drop': '1',
        'x-keep': '1',
        'keep-alive': 'timeout=9',
        'proxy-connection': 'keep-alive',
        'proxy-authorization': 'Basic eA==',
        te: 'deflate',
        upgrade: 'h2c',
        'http2-settings': 'AAMAAABk'
      }
    })
    t.equal(answer.status, 200)
    const { headers } = upstream.last()
    t.match(headers, {
      'x-keep': '1',
      host: `127.0.0.1:${upstream.port}`,
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': /^gate\.example/i,
      forwarded: /^for=127\.0\.0\.1;host="gate\.example.*";proto=http$/i,
      via: /^1\.1 sallyport-[0-9a-f]+$/,
      'x-request-id': answer.headers['x-request-id'],
      connection: 'keep-alive'
    })
    for (const name of [
      'x-drop',
      'keep-alive',
      'proxy-connection',
      'proxy-authorization',
      'te',
      'upgrade',
      'http2-settings'
    ])
      t.notOk(name in headers, name)
    t.match(answer.headers, { 'x-end': '1', 'x-request-id': /^req_[0-9a-z]{26}$/ })
    for (const name of ['x-hop', 'proxy-authenticate', 'keep-alive']) t.notOk(name in answer.headers, name)
  }
)

t.test('RTE-13 H-44 fields that claim another method or path change nothing', async t => {
  const upstream = await startUpstream(t)
  const { call } = await startGateway(t, {
    defaults: open,
    services: { s: { url: upstream.url } },
    routes: [
      { path: '/public/**', methods: 'GET', service: 's' },
      { path: '/private/**', service: 's', authentication: 'required' }
    ]
  })
  const answer = await call('/public/x', {
    headers: { 'x-http-method-override': 'DELETE', 'x-original-url': '/private/x', 'x-rewrite-url': '/private/x' }
  })
  t.match(answer.json, { method: 'GET', url: '/public/x' })
  t.notOk('x-original-url' in upstream.last().headers)
  t.notOk('x-rewrite-url' in upstream.last().headers)
})

t.test(
  'IDN-18 H-43 the service is told who calls, by the gateway alone, and gets no verified credential unless the route says so',
  async t => {
    const upstream = await startUpstream(t)
    const forged = {
      'X-User-ID': 'root',
      'X-USER-ROLES': 'admin',
      x_user_name: 'root',
      'X-Auth-Method': 'none',
      'X-User-Permissions': '*',
      'X-Consumer-Username': 'root',
      'X-Client-ID': 'c',
      'X-User': 'root'
    }
    const { call } = await startGateway(t, {
      services: { s: { url: upstream.url } },
      routes: [
        { path: '/plain/**', service: 's' },
        { path: '/open/**', service: 's', authentication: 'none' },
        { path: '/passed/**', service: 's', authentication: { mode: 'required', forward_credentials: true } }
      ]
    })
    const bearer = token({ sub: 'alice', name: 'Alice Ä', roles: ['user', 'a,b'], permissions: ['read:x'] })
    await call('/plain/x', { token: bearer, headers: forged })
    const plain = upstream.last()
    t.match(plain.headers, {
      'x-user-id': 'alice',
      'x-user-name': 'Alice %C3%84',
      'x-user-roles': 'user,a%2Cb',
      'x-user-permissions': 'read:x',
      'x-auth-method': 'jwt'
    })
    t.notOk('authorization' in plain.headers)
    t.equal(plain.rawHeaders.filter(name => /^x.user.(id|name|roles)$/i.test(name)).length, 3)
    for (const name of ['x_user_name', 'x-user', 'x-consumer-username', 'x-client-id'])
      t.notOk(name in plain.headers, name)

    await call('/open/x', { headers: forged })
    t.same(
      Object.keys(upstream.last().headers).filter(name => /user|consumer|client|auth/.test(name)),
      []
    )

    // What the gateway has not looked at is between the client and the service.
    await call('/open/x', { headers: { authorization: 'Basic eDp5', 'x-api-key': 'theirs' } })
    t.match(upstream.last().headers, { authorization: 'Basic eDp5', 'x-api-key': 'theirs' })

    await call('/passed/x', { token: bearer })
    t.match(upstream.last().headers, { authorization: `Bearer ${bearer}`, 'x-user-id': 'alice' })
  }
)

t.test('RTE-17 a service’s answer comes back as it is, errors and repeated fields included', async t => {
  const upstream = await startUpstream(t, (request, response) => {
    const status = Number(request.url?.slice(1))
    response.writeHead(status, [
      'Set-Cookie',
      'a=1',
      'Set-Cookie',
      'b=2',
      'X-Name',
      'caf\u00e9',
      'Content-Type',
      'application/json',
      'Server',
      'theirs'
    ])
    response.end('{"error":"theirs"}')
  })
  const { call } = await startGateway(t, {
    defaults: open,
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's' }]
  })
  for (const status of [200, 301, 404, 418, 500, 503]) {
    const answer = await call(`/${status}`)
    t.equal(answer.status, status)
    t.equal(answer.text, '{"error":"theirs"}')
    t.same(answer.headers['set-cookie'], ['a=1', 'b=2'])
    t.match(answer.headers, { 'x-name': 'caf\u00e9', server: 'theirs' })
    t.notOk('proxy-status' in answer.headers, 'what the service says is not the gateway’s')
  }
})

t.test('RTE-17 H-95 answers without a body have none, and what they say of its length stands', async t => {
  const upstream = await startUpstream(t, (request, response) => {
    const status = Number(/\d+/.exec(request.url as string)?.[0])
    response.writeHead(status, status === 200 ? { 'content-length': '1234', etag: '"x"' } : { etag: '"x"' })
    response.end()
  })
  const { port } = await startGateway(t, {
    defaults: open,
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's' }]
  })
  const { text } = await raw(port, [
    'HEAD /200 HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /204 HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /304 HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /404 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
  ])
  const heads = text.split('\r\n\r\n')
  t.match(
    heads,
    [/^HTTP\/1.1 200 OK\r\n[\s\S]*content-length: 1234/i, /^HTTP\/1.1 204 /, /^HTTP\/1.1 304 /, /^HTTP\/1.1 404 /],
    'each answer begins where the one before ended'
  )
  t.notMatch(heads[1], /transfer-encoding|content-length/i)
  t.notMatch(heads[2], /transfer-encoding/i)
})

t.test('H-17 a GET with a body goes on with its body', async t => {
  const upstream = await startUpstream(t)
  const { call, port } = await startGateway(t, {
    defaults: open,
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's' }]
  })
  t.match((await call('/x', { body: 'asked' })).json, { method: 'GET', body: 'asked' })
  await raw(
    port,
    'DELETE /y HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n'
  )
  t.match(upstream.last(), { method: 'DELETE', body: 'abc' })
})

t.test('RTE-18 trailers reach a client that takes them, and only those that may be trailers (H-13)', async t => {
  const upstream = await startService(t, (request, response) => {
    response.writeHead(200, { trailer: 'x-sum', 'x-te': request.headers.te ?? 'none' })
    response.write('body')
    response.addTrailers([
      ['X-Sum', '42'],
      ['Authorization', 'x'],
      ['Set-Cookie', 'a=b']
    ])
    response.end()
  })
  const { port } = await startGateway(t, {
    defaults: open,
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's' }]
  })
  const taken = await raw(port, 'GET / HTTP/1.1\r\nHost: x\r\nTE: trailers, deflate\r\nConnection: TE, close\r\n\r\n')
  t.match(taken.text, /trailer: x-sum\r\n[\s\S]*\r\n0\r\nX-Sum: 42\r\n\r\n$/i)
  t.match(taken.text, /x-te: trailers/)
  t.notMatch(taken.text, /authorization|set-cookie/i)
  const not = await raw(port, 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
  t.match(not.text, /\r\n0\r\n\r\n$/)
  t.notMatch(not.text, /x-sum|trailer/i)
  // Those of a request end here, and the body is whole.
  const posted = await raw(
    port,
    'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: host\r\nConnection: close\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n'
  )
  t.equal(posted.status, 200)
})

t.test('RTE-18 trailers that are announced where none can follow are not announced to the client', async t => {
  const answers: Record<string, string> = {
    '/chunked': '200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n',
    '/length': '200 OK\r\nContent-Length: 2\r\n\r\nok',
    '/none': '204 No Content\r\n\r\n',
    '/same': '304 Not Modified\r\n\r\n'
  }
  const upstream = await startRawUpstream(t, (socket, received) => {
    const [method, path = ''] = received.split(' ')
    const [line, ...rest] = (answers[path] as string).split('\r\n')
    const answer = ['HTTP/1.1 '.concat(line as string), 'Trailer: X-Sum', 'Connection: close', ...rest].join('\r\n')
    socket.end(method === 'HEAD' ? answer.slice(0, answer.indexOf('\r\n\r\n') + 4) : answer)
  })
  const { port } = await startGateway(t, {
    defaults: open,
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's' }]
  })
  const ask = (target: string, version = '1.1') =>
    raw(port, `${target} HTTP/${version}\r\nHost: x\r\nTE: trailers\r\nConnection: close\r\n\r\n`)
  t.match((await ask('GET /chunked')).text, /trailer: X-Sum\r\n[\s\S]*\r\nX-Sum: 42\r\n\r\n$/i)
  for (const [target, line] of [
    ['HEAD /chunked', '200 OK'],
    ['GET /length', '200 OK'],
    ['GET /none', '204 No Content'],
    ['GET /same', '304 Not Modified']
  ] as const) {
    const { text } = await ask(target)
    t.equal(text.slice(0, text.indexOf('\r\n')), `HTTP/1.1 ${line}`, target)
    t.notMatch(text, /trailer|x-sum/i, target)
  }
  const { text } = await ask('GET /chunked', '1.0')
  t.match(text, /^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\nok$/, 'HTTP/1.0 has no chunks')
})

t.test('a head that cannot be written is a 502 from its first line on', async t => {
  const plugin = `export default {
    name: 'control',
    schema: { type: 'object', properties: {}, description: 'Adds what no field can hold.' },
    compile: () => ({
      onRequest(request, reply, done) {
        request.exchange.fields.push('x-control', '\\u0001')
        done()
      }
    })
  }`
  const upstream = await startUpstream(t)
  const { port } = await startGateway(
    t,
    {
      plugins: [{ use: './control.ts' }],
      services: { s: { url: upstream.url } },
      routes: [{ path: '/**', service: 's', authentication: 'none', plugins: { control: {} } }]
    },
    { files: { 'control.ts': plugin } }
  )
  t.match((await raw(port, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n')).text, /^HTTP\/1\.1 502 Bad Gateway\r\n/)
})

t.test('H-20 Expect: 100-continue: 100 once, when a service is there to take the body', async t => {
  const upstream = await startUpstream(t)
  const { port } = await startGateway(t, {
    services: { s: { url: upstream.url }, gone: { url: `http://127.0.0.1:${await freePort()}` } },
    routes: [
      { path: '/open/**', service: 's', authentication: 'none' },
      { path: '/gone', service: 'gone', authentication: 'none' },
      { path: '/limited', service: 's', authentication: 'none', body_limit: '4b' },
      { path: '/closed', service: 's' }
    ]
  })
  const head = (path: string, more = ''): string =>
    `POST ${path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n${more}\r\n`
  const statuses = (text: string): string[] =>
    [...text.matchAll(/^HTTP\/1\.1 (\d{3})/gm)].map(match => match[1] as string)

  const asked = await raw(port, head('/open/x'))
  t.same(statuses(asked.text), ['100'], 'nothing more before there is a body')
  const sent = await raw(port, [`${head('/open/x', 'Connection: close\r\n')}hello`])
  t.same(statuses(sent.text), ['100', '200'])
  t.equal(upstream.last().body, 'hello')
  t.notOk('expect' in upstream.last().headers, 'the gateway has taken the body, so there is nothing left to expect')

  for (const [path, status] of [
    ['/closed', '401'],
    ['/gone', '502'],
    ['/limited', '413'],
    ['/nowhere', '404']
  ] as const) {
    const refused = await raw(port, head(path), { patienceMs: 8000 })
    t.same(statuses(refused.text), [status], `${path} is refused without a 100`)
    t.match(refused.text, /^connection: close/im, 'since nobody knows whether a body follows')
    t.ok(refused.closed)
  }
  const unknown = await raw(
    port,
    'POST /open/x HTTP/1.1\r\nHost: x\r\nExpect: 200-maybe\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
  )
  t.equal(unknown.status, 417)
  const empty = await raw(port, 'GET /open/x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n')
  t.same(statuses(empty.text), ['200'], 'no body, no 100')
})

t.test(
  'H-94 an early answer is passed on, the upload stops, and a client in the middle of sending still gets it',
  async t => {
    const upstream = await startService(t, (request, response) => {
      request.once('data', () => {
        response.writeHead(413, { 'content-type': 'text/plain' })
        response.end('too much, said the service')
      })
    })
    const { port, line } = await startGateway(t, {
      defaults: open,
      services: { s: { url: upstream.url } },
      routes: [{ path: '/**', service: 's' }]
    })
    const { status, text } = await upload(port, '/early', 1000)
    t.equal(status, 413)
    t.match(text, /^connection: close\r\n/im)
    t.match(text, /too much, said the service/)
    const { bytes_in } = await line({ path: '/early' })
    t.ok((bytes_in as number) < 1000 * 65536, 'not all of it was taken')
  }
)

t.test('H-94 a refusal of the gateway’s own reaches a client in the middle of a large upload', async t => {
  const upstream = await startUpstream(t)
  const { port } = await startGateway(t, {
    services: { s: { url: upstream.url } },
    routes: [
      { path: '/closed', service: 's' },
      { path: '/limited', service: 's', authentication: 'none', body_limit: '100kb' }
    ]
  })
  t.equal((await upload(port, '/closed', 500)).status, 401)
  t.equal((await upload(port, '/limited', 500)).status, 413)
  t.equal((await upload(port, '/limited', 500, 500 * 65536)).status, 413)
  t.equal(upstream.seen.length, 0)
})

t.test('H-95 interim answers end at the gateway, and a final one follows', async t => {
  const upstream = await startRawUpstream(t, socket => {
    socket.write('HTTP/1.1 102 Processing\r\n\r\n'.repeat(50))
    socket.write(
      'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
    )
  })
  const { call } = await startGateway(t, {
    defaults: open,
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's' }]
  })
  const answer = await call('/x')
  t.equal(answer.status, 200)
  t.equal(answer.text, 'ok')
  t.notOk('link' in answer.headers)
})

t.test('PRF-07 connections to a service are used again', async t => {
  const upstream = await startService(t, (request, response) => {
    request.resume().on('end', () => response.end('ok'))
  })
  const { call } = await startGateway(t, {
    defaults: open,
    services: { s: { url: upstream.url } },
    routes: [{ path: '/**', service: 's' }]
  })
  for (let i = 0; i < 30; i++) await call('/x', { method: i % 2 ? 'POST' : 'GET', ...(i % 2 ? { body: 'x' } : {}) })
  t.equal(upstream.connections(), 1)
})

t.test('RTE-13 RTE-15 H-34 rewrites: parameters stay one segment, encoded as they came', async t => {
  const upstream = await startUpstream(t)
  const { call } = await startGateway(t, {
    defaults: open,
    services: { s: { url: upstream.url }, based: { instances: [{ url: `${upstream.url}/base/v1/` }] } },
    routes: [
      { path: '/u/{id}/notes/{note}', service: 's', rewrite: '/notes/{note}/of/{id}', encoded_slash: true },
      { path: '/strict/{id}', service: 's', rewrite: '/x/{id}' },
      { path: '/public/**', service: 's', rewrite: '/pub/' },
      { path: '/strip/**', service: 's', strip_prefix: true },
      { path: '/api/v2/things/**', service: 's', strip_prefix: '/api/v2' },
      { path: '/based/**', service: 'based', strip_prefix: true },
      { path: '/keep/**', service: 'based' }
    ]
  })
  const sent = async (path: string): Promise<string> => (await call(path)).json.url
  t.equal(await sent('/u/a%2Fb/notes/c%3Fd%23e?q=1'), '/notes/c%3Fd%23e/of/a%2Fb?q=1')
  t.equal((await call('/strict/a%2Fb')).status, 400, '%2F is refused unless the route allows it')
  t.equal(await sent('/strict/a%3fb'), '/x/a%3Fb')
  t.equal(await sent('/strict/%7Eme'), '/x/~me', 'unreserved characters are themselves')
  t.equal(await sent('/public/a/b'), '/pub/a/b')
  t.equal(await sent('/public'), '/pub/')
  t.equal(await sent('/PUBLIC/A'), '/pub/A')
  t.equal(await sent('/strip/a/b?x=%2F'), '/a/b?x=%2F')
  t.equal(await sent('/strip'), '/')
  t.equal(await sent('/strip/'), '/')
  t.equal(await sent('/api/v2/things/1'), '/things/1')
  t.equal(await sent('/based/a'), '/base/v1/a')
  t.equal(await sent('/based'), '/base/v1/')
  t.equal(await sent('/keep/a'), '/base/v1/keep/a')
})

t.test('H-38 a path that looks like another host stays a path on the service', async t => {
  const upstream = await startUpstream(t)
  const { call } = await startGateway(t, {
    defaults: open,
    services: { s: { url: upstream.url } },
    routes: [
      { path: '/strip/**', service: 's', strip_prefix: true },
      { path: '/to/{where}', service: 's', rewrite: '/{where}', encoded_slash: true }
    ]
  })
  for (const [path, sent] of [
    ['/strip//evil.test/x', '/evil.test/x'],
    ['/strip/http://evil.test/x', '/http:/evil.test/x'],
    ['/strip/@evil.test/', '/@evil.test/'],
    ['/strip/:80/', '/:80/'],
    ['/to/%2Fevil.test', '/%2Fevil.test']
  ] as const) {
    const answer = await call(path)
    t.match(answer.json, { url: sent, headers: { host: `127.0.0.1:${upstream.port}` } }, path)
  }
})

t.test('RTE-14 H-123 a request that comes back to where it started is stopped', async t => {
  const port = await freePort()
  const { call, line } = await startGateway(t, {
    server: { port },
    defaults: open,
    services: { self: { url: `http://127.0.0.1:${port}` } },
    routes: [{ path: '/**', service: 'self' }]
  })
  const answer = await call('/round')
  t.equal(answer.status, 508)
  t.match(answer.headers['proxy-status'], /proxy_loop_detected/)
  t.match(await line({ status_code: 508, error: 'loop_detected' }), { path: '/round' })
})

/** Sends a body like a client that does not look for an answer before it is done, and then reads. */
function upload(
  port: number,
  path: string,
  chunks: number,
  length?: number
): Promise<{ status: number; text: string }> {
  const chunk = Buffer.alloc(65536, 'x')
  const framing = length === undefined ? 'Transfer-Encoding: chunked' : `Content-Length: ${length}`
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: '127.0.0.1' })
    socket.pause()
    let text = ''
    socket.on('data', data => {
      text += data.toString('latin1')
    })
    socket.on('error', reject)
    socket.on('close', () => resolve({ status: Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1]), text }))
    socket.write(`POST ${path} HTTP/1.1\r\nHost: x\r\n${framing}\r\n\r\n`)
    let sent = 0
    const more = (): void => {
      while (sent < chunks) {
        sent++
        if (length === undefined) socket.write('10000\r\n')
        const taken = socket.write(chunk)
        if (length === undefined) socket.write('\r\n')
        if (!taken) {
          socket.once('drain', more)
          return
        }
      }
      socket.write(length === undefined ? '0\r\n\r\n' : '', () => socket.resume())
    }
    more()
  })
}

import net from 'node:net'
import t from 'tap'
import { HOST, MARK, startDoor } from '../support/door.ts'
import { startGateway } from '../support/gateway.ts'
import { raw } from '../support/raw.ts'
import { startUpstream } from '../support/upstream.ts'

/** A request with another host than the usual one. */
const at = (...hosts: string[]): string =>
  `GET / HTTP/1.1\r\n${hosts.map(host => `Host: ${host}\r\n`).join('')}X-Mark: ${MARK}\r\n\r\n`

t.test('H-14 a request has one host, and that is one', async t => {
  const door = await startDoor(t)
  await door.refuses(t, 'none', at(), { reason: 'no_host' })
  await door.refuses(t, 'an empty one', at(''), { reason: 'no_host' })
  await door.refuses(t, 'two', at('a.test', 'b.test'), { reason: 'two_hosts' })
  await door.refuses(t, 'the same one twice', at('a.test', 'a.test'), { reason: 'two_hosts' })
  const odd = [
    'user@a.test',
    'a.test/b',
    'a.test b',
    'a.test,b.test',
    'a.test\\b',
    'a.test?b',
    'a.test#b',
    '"a.test"',
    'a.test%00',
    'a\tb',
    'é.test',
    '.',
    '..',
    '.a',
    'a..b',
    'http://a.test',
    '<a>',
    'a;b'
  ]
  for (const host of odd) await door.refuses(t, host, at(host), { reason: 'bad_host' })
  for (const host of ['a.test:x', 'a.test:-1', 'a.test:80:80', 'a.test:65536', 'a.test:999999', 'a.test: 80', ':80'])
    await door.refuses(t, `port of ${host}`, at(host), { reason: 'bad_host' })
  for (const host of ['[::1', '::1', '[x]', '[::1]x', '[1::2::3]', '[1.2.3.4]', '[]', '[fe80::1%25eth0]'])
    await door.refuses(t, `address ${host}`, at(host), { reason: 'bad_host' })
})

t.test('H-14 H-36 what is a host is accepted', async t => {
  const { port } = await startDoor(t)
  for (const host of [
    'a.test',
    'A.Test.',
    'a.test:',
    'a.test:0',
    'a.test:65535',
    'a_b-c.test',
    'xn--bcher-kva.test',
    '192.0.2.1:80',
    '[::1]',
    '[2001:DB8::1]:8080',
    'a'
  ])
    t.equal((await raw(port, at(host), { quietMs: 20 })).status, 200, host)
  const old = await raw(port, 'GET / HTTP/1.0\r\n\r\n')
  t.equal(old.status, 200, 'HTTP/1.0 needs none')
  t.ok(old.closed)
})

t.test('H-15 a target with a host of its own has to agree with Host', async t => {
  const service = await startUpstream(t)
  const { port } = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none', host: 'door.test' }]
  })
  const get = async (target: string, fields = HOST, version = '1.1'): Promise<string> => {
    service.seen.length = 0
    const { status } = await raw(port, `GET ${target} HTTP/${version}\r\n${fields}\r\n`, { quietMs: 20 })
    return service.seen.length === 0 ? String(status) : service.last().url
  }
  t.equal(await get('http://door.test/path?x=1'), '/path?x=1')
  t.equal(await get('HTTP://Door.Test/path'), '/path', 'in any case')
  t.equal(await get('http://door.test'), '/')
  t.equal(await get('http://door.test?x=/y'), '/?x=/y')
  t.equal(await get('http://door.test//a/../b'), '/b', 'and is made canonical')
  t.equal(await get('http://door.test/path', '', '1.0'), '/path', 'HTTP/1.0 may leave it to the target')
  t.equal(await get('http://other.test/path'), '400')
  t.equal(await get('http://door.test:8080/path'), '400')
  t.equal(await get('http://user@door.test/path'), '400')
  t.equal(await get('http://user@door.test/path', 'Host: user@door.test\r\n'), '400')
  t.equal(await get('http:///path'), '400')
  t.equal(await get('http://door.test/path', ''), '400')
  t.equal(await get('http://door.test/path', 'Host: \r\n', '1.0'), '/path')
  t.equal(await get('http://other.test/path', '', '1.0'), '404', 'which is the one to route by')
  t.equal(await get('ftp://door.test/path'), '400')
  t.equal(await get('file:///etc/passwd'), '400')
})

t.test('H-16 nothing tunnels, nothing is echoed, and only paths are targets', async t => {
  const door = await startDoor(t)
  const method = { status: 405, reason: 'method_not_offered' }
  const connect = await door.refuses(
    t,
    'CONNECT',
    `CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\nX-Mark: ${MARK}\r\n\r\n`,
    method
  )
  t.match(connect.text, /^allow: GET, HEAD, /m)
  await door.refuses(t, 'CONNECT with a path', `CONNECT / HTTP/1.1\r\n${HOST}\r\n`, method)
  const trace = await door.refuses(t, 'TRACE', `TRACE /${MARK} HTTP/1.1\r\n${HOST}Max-Forwards: 0\r\n\r\n`, method)
  t.match(trace.text, /^allow: GET, HEAD, /m)
  await door.refuses(t, 'OPTIONS *', `OPTIONS * HTTP/1.1\r\n${HOST}\r\n`, { reason: 'not_a_path' })
  await door.refuses(t, 'GET *', `GET * HTTP/1.1\r\n${HOST}\r\n`, { reason: 'not_a_path' })
  await door.refuses(t, 'a host as the target', `GET evil.test:80 HTTP/1.1\r\n${HOST}\r\n`)
  await door.refuses(t, 'a relative path', `GET ../admin HTTP/1.1\r\n${HOST}\r\n`)
  await door.refuses(t, 'a query alone', `GET ?x=1 HTTP/1.1\r\n${HOST}\r\n`)
})

t.test('H-16 H-17 a CONNECT behind a request that is under way waits, and the process survives', async t => {
  const service = await startUpstream(t, (_request, response) => setImmediate(() => response.end('first')))
  const { port } = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  const answer = await raw(
    port,
    `GET / HTTP/1.1\r\n${HOST}\r\nCONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\nGET /smuggled HTTP/1.1\r\n${HOST}\r\n`
  )
  t.same(answer.text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 200', 'HTTP/1.1 405'])
  t.ok(answer.closed)
  t.equal(service.seen.length, 1)
})

t.test('H-18 request lines are taken at their word', async t => {
  const door = await startDoor(t)
  const line = (text: string): string => `${text}\r\n${HOST}\r\n`
  const lines = [
    'GET\t/ HTTP/1.1',
    'GET /\tHTTP/1.1',
    'GET / HTTP/1.1 x',
    'GET / HTTP/0.9',
    'GET / HTTP/1.2',
    'GET / HTTP/2.0',
    'GET / HTTP/2',
    'GET / HTTP/3.0',
    'GET / HTTP/1.10',
    'GET / HTTP/01.1',
    'GET / HTTP/1',
    'GET / http/1.1',
    'GET / HTTP/11',
    'GET / HTTP-1.1',
    'GET / ICE/1.0',
    'G ET / HTTP/1.1',
    ' GET / HTTP/1.1',
    '/ HTTP/1.1',
    'GET HTTP/1.1',
    'GET'
  ]
  for (const text of lines) await door.refuses(t, text, line(text))
  for (const method of ['get', 'Get', 'gET', 'FOO', 'GETT', 'GE', 'G\0ET', 'GÉT', '"GET"', 'GET,POST', 'X'.repeat(100)])
    await door.refuses(t, method, line(`${method} / HTTP/1.1`))
  await door.refuses(t, 'HTTP/0.9 as it was', 'GET /\r\n\r\n', { reason: 'http_version' })
})

t.test('H-18 RTE-24 a method that nobody offers is refused, with those that are', async t => {
  const { port, call, line } = await startDoor(t)
  for (const method of ['PURGE', 'PROPFIND', 'MKCOL', 'M-SEARCH', 'QUERY', 'LINK', 'SOURCE', 'REPORT']) {
    const answer = await raw(port, `${method} /${method} HTTP/1.1\r\n${HOST}\r\n`, { quietMs: 20 })
    t.equal(answer.status, 405, method)
    t.match(answer.text, /^allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r$/m)
    t.match(await line({ path: `/${method}` }), { status_code: 405, method })
  }
  const refused = await raw(port, `PURGE /..;/ HTTP/1.1\r\n${HOST}\r\n`)
  t.equal(refused.status, 400, 'what is worse is said first')
  t.equal((await call('/')).status, 200)
})

t.test('H-18 RTE-24 a method that a route names is served, however odd', async t => {
  const service = await startUpstream(t)
  const { port } = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none', methods: ['PROPFIND', 'GET'] }]
  })
  t.equal((await raw(port, `PROPFIND / HTTP/1.1\r\n${HOST}\r\n`, { quietMs: 20 })).status, 200)
  t.equal(service.last().method, 'PROPFIND')
  t.match(
    (await raw(port, `PURGE / HTTP/1.1\r\n${HOST}\r\n`, { quietMs: 20 })).text,
    /^HTTP\/1\.1 405[\s\S]*^allow: GET, HEAD, PROPFIND\r$/m
  )
})

t.test('H-25 other protocols on the port are turned away, each with one line', async t => {
  const door = await startDoor(t)
  await door.refuses(t, 'TLS', `\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03${'x'.repeat(600)}`)
  await door.refuses(t, 'HTTP/2', `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0`, {
    reason: 'HPE_PAUSED_H2_UPGRADE'
  })
  await door.refuses(t, 'SSH', 'SSH-2.0-OpenSSH_9.2\r\n')
  await door.refuses(t, 'SOCKS 5', '\x05\x01\0')
  await door.refuses(t, 'PROXY', 'PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n')
  await door.refuses(t, 'RDP', '\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0')
  await door.refuses(t, 'zeros', '\0'.repeat(5000))
})

t.test('H-19 TRC-04 too much of a head is refused with 431, too long a target with 414', async t => {
  const door = await startDoor(t)
  const get = (fields: string): string => `GET / HTTP/1.1\r\n${HOST}${fields}\r\n`
  await door.refuses(t, '10 000 fields', get('a:b\r\n'.repeat(10_000)), { status: 431 })
  await door.refuses(t, '201 fields', get(Array.from({ length: 199 }, (_, i) => `x-${i}: b\r\n`).join('')), {
    status: 431,
    reason: 'too_many_fields'
  })
  await door.refuses(t, '300 times the same field', get('Accept: a\r\n'.repeat(300)), {
    status: 431,
    reason: 'too_many_fields'
  })
  await door.refuses(t, 'a field of 1 MiB', get(`X-Large: ${'a'.repeat(1 << 20)}\r\n`), { status: 431 })
  await door.refuses(t, 'a name of 1 MiB', get(`X-${'a'.repeat(1 << 20)}: a\r\n`), { status: 431 })
  await door.refuses(t, 'a cookie too many', get(`Cookie: ${'a=b; '.repeat(5000)}\r\n`), { status: 431 })
  await door.refuses(t, 'a target of 100 KiB', `GET /${'a'.repeat(102_400)} HTTP/1.1\r\n${HOST}\r\n`, { status: 414 })
  await door.refuses(t, 'a query of 100 KiB', `GET /?${'a'.repeat(102_400)} HTTP/1.1\r\n${HOST}\r\n`, { status: 414 })
  await door.refuses(t, 'a target just too long', `GET /${'a'.repeat(8192)} HTTP/1.1\r\n${HOST}\r\n`, {
    status: 414,
    reason: 'uri_too_long'
  })
  await door.refuses(
    t,
    'a trailer of 100 KiB',
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\nX: ${'a'.repeat(102_400)}\r\n\r\n`,
    { status: 431 }
  )
  t.equal((await door.call(`/${'a'.repeat(8191)}`)).status, 200, 'a target of just that length is not')
  t.equal(
    (await raw(door.port, get(Array.from({ length: 198 }, (_, i) => `x-${i}: b\r\n`).join('')), { quietMs: 20 }))
      .status,
    200,
    'nor are 200 fields'
  )
})

t.test('TRC-04 the limits of a head are settings', async t => {
  const door = await startDoor(t, { server: { limits: { header_bytes: '2kb', headers: 10, url_bytes: '100b' } } })
  await door.refuses(t, 'bytes', `GET / HTTP/1.1\r\n${HOST}X: ${'a'.repeat(3000)}\r\n\r\n`, { status: 431 })
  await door.refuses(t, 'fields', `GET / HTTP/1.1\r\n${HOST}${'a: b\r\n'.repeat(9)}\r\n`, { status: 431 })
  await door.refuses(t, 'the target', `GET /${'a'.repeat(100)} HTTP/1.1\r\n${HOST}\r\n`, { status: 414 })
  t.equal((await door.call('/')).status, 200)
})

t.test('H-19 many heads without an end take no memory to speak of', async t => {
  const { port, call } = await startDoor(t)
  const before = process.memoryUsage().rss
  const sockets = Array.from({ length: 200 }, () => net.connect(port, '127.0.0.1').on('error', () => {}))
  const piece = Buffer.from(`GET / HTTP/1.1\r\n${HOST}X: ${'a'.repeat(1 << 20)}`)
  await Promise.all(
    sockets.map(
      socket =>
        new Promise(resolve => {
          socket.on('close', resolve)
          socket.on('data', () => socket.end())
          socket.write(piece)
        })
    )
  )
  const grown = process.memoryUsage().rss - before
  t.ok(grown < 150 * 2 ** 20, `${Math.round(grown / 2 ** 20)} MiB, for 200 MiB sent`)
  t.equal((await call('/')).status, 200)
})

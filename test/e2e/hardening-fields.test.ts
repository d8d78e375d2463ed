import t from 'tap'
import { HOST, startDoor } from '../support/door.ts'
import { startGateway } from '../support/gateway.ts'
import { raw } from '../support/raw.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

const get = (fields: string): string => `GET / HTTP/1.1\r\n${HOST}${fields}\r\n`

t.test('H-23 fields that a service relies on cannot be taken away by listing them in Connection', async t => {
  const door = await startDoor(t)
  for (const name of [
    'Authorization',
    'X-Forwarded-For',
    'x-forwarded-proto',
    'X-FORWARDED-HOST',
    'X-User',
    'X-User-ID',
    'X-Consumer-Id',
    'X-API-Key',
    'Forwarded',
    'Via',
    'Cookie',
    'Host',
    'Content-Length',
    'Origin',
    'X-Request-ID',
    'traceparent'
  ])
    await door.refuses(t, name, get(`Connection: keep-alive, ${name}\r\n`), { reason: 'protected_field_in_connection' })
  await door.refuses(t, 'in a second field', get('Connection: close\r\nConnection: authorization\r\n'), {
    reason: 'protected_field_in_connection'
  })
  await door.refuses(t, 'alone', get('Connection: Authorization\r\n'), { reason: 'protected_field_in_connection' })
})

t.test(
  'H-23 what Connection lists ends here, whatever its case, and what the gateway says of itself stays',
  async t => {
    const service = await startUpstream(t)
    const { port } = await startGateway(t, {
      services: { service: { url: service.url } },
      routes: [{ path: '/**', service: 'service' }]
    })
    const answer = await raw(
      port,
      get(
        `Authorization: Bearer ${token({ roles: ['user'] })}\r\nConnection: x-A,, X-b ,\r\nConnection: x-c\r\nX-A: 1\r\nx-B: 1\r\nX-C: 1\r\nX-D: 1\r\n`
      )
    )
    t.equal(answer.status, 200)
    const { headers } = service.last()
    for (const name of ['x-a', 'x-b', 'x-c']) t.notOk(name in headers, name)
    t.match(headers, { 'x-d': '1', 'x-user-id': 'alice', 'x-forwarded-for': '127.0.0.1', connection: 'keep-alive' })
  }
)

t.test('H-24 fields of one hop end here, whatever they say', async t => {
  const service = await startUpstream(t)
  const { port } = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  for (const [field, kept] of [
    ['TE: deflate', undefined],
    ['TE: gzip;q=0.5, trailers', 'trailers'],
    ['te: TRAILERS', 'trailers'],
    ['TE: xtrailers, trailersx', undefined],
    ['TE: trailers\r\nTE: deflate', 'trailers'],
    ['TE: ', undefined],
    ['Keep-Alive: timeout=5, max=1000', undefined],
    ['Keep-Alive: \x80', undefined],
    ['Proxy-Connection: keep-alive', undefined],
    ['Proxy-Authorization: Basic eDp5', undefined],
    ['Trailer: X-Sum', undefined]
  ] as const) {
    const answer = await raw(port, get(`${field}\r\n`), { quietMs: 30 })
    t.equal(answer.status, 200, field)
    t.notOk(answer.closed, `${field}: the connection stays`)
    const { headers } = service.last()
    t.equal(headers.te, kept, field)
    for (const name of ['keep-alive', 'proxy-connection', 'proxy-authorization', 'trailer'])
      t.notOk(name in headers, `${field}: ${name}`)
  }
})

t.test('H-42 behind trusted proxies the client is the rightmost hop that is none of them', async t => {
  const service = await startUpstream(t)
  const { port, line } = await startGateway(t, {
    server: { trusted_proxies: ['loopback', '10.0.0.0/8', '2001:db8:aaaa::/48'] },
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  let request = 0
  for (const [chain, client] of [
    ['192.0.2.1', '192.0.2.1'],
    ['203.0.113.9, 192.0.2.1', '192.0.2.1'],
    ['203.0.113.9, 192.0.2.1, 10.1.2.3', '192.0.2.1'],
    ['203.0.113.9,192.0.2.1 ,\t10.1.2.3,10.9.9.9', '192.0.2.1'],
    ['192.0.2.1:4711, 10.1.2.3:80', '192.0.2.1'],
    ['[2001:db8::1]:4711', '2001:db8::1'],
    ['"[2001:DB8::1]", 2001:db8:aaaa::7', '2001:db8::1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    // Nobody knows what is left of a hop that is no address.
    ['192.0.2.1, unknown, 10.1.2.3', '10.1.2.3'],
    ['192.0.2.1, , 10.1.2.3', '10.1.2.3'],
    ['192.0.2.1, 999.1.1.1', '127.0.0.1'],
    ['192.0.2.1, 1.2.3.4.example', '127.0.0.1'],
    ['10.1.1.1, 10.2.2.2', '10.1.1.1'],
    ['_hidden', '127.0.0.1']
  ] as const) {
    const id = `hop-${request++}`
    const answer = await raw(port, get(`X-Forwarded-For: ${chain}\r\nX-Request-ID: ${id}\r\n`), { quietMs: 15 })
    t.equal(answer.status, 200, chain)
    t.equal((await line({ request_id: id })).client, client, chain)
  }
})

t.test('H-42 a chain of a thousand hops is read from its end, and no further than it has to be', async t => {
  const service = await startUpstream(t)
  const { port, line } = await startGateway(t, {
    server: { trusted_proxies: ['loopback', '10.0.0.0/8'], limits: { header_bytes: '64kb' } },
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  const chain = (hop: string): string => Array(1000).fill(hop).join(', ')
  await raw(port, get(`X-Forwarded-For: ${chain('192.0.2.7')}, 192.0.2.8\r\nX-Request-ID: long\r\n`))
  t.equal((await line({ request_id: 'long' })).client, '192.0.2.8')
  await raw(port, get(`X-Forwarded-For: 192.0.2.9, ${chain('10.0.0.1')}\r\nX-Request-ID: trusted\r\n`))
  t.equal((await line({ request_id: 'trusted' })).client, '10.0.0.1', 'the search has an end')
})

t.test('H-42 what a trusted proxy passes on of its client’s own making does not become part of a field', async t => {
  const service = await startUpstream(t)
  const { port } = await startGateway(t, {
    server: { trusted_proxies: ['loopback'] },
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  const chain = 'X-Forwarded-For: 192.0.2.1\r\n'
  await raw(port, get(`${chain}X-Forwarded-Proto: https\r\nX-Forwarded-Host: api.example.com:8443\r\n`))
  t.match(service.last().headers, {
    forwarded: 'for=192.0.2.1;host="api.example.com:8443";proto=https',
    'x-forwarded-for': '192.0.2.1, 127.0.0.1'
  })
  // A proxy that takes TLS off need not say more than that it did.
  await raw(port, get('X-Forwarded-Proto: https\r\n'))
  t.match(service.last().headers, {
    forwarded: 'for=127.0.0.1;host="door.test";proto=https',
    'x-forwarded-proto': 'https',
    'x-forwarded-for': '127.0.0.1'
  })
  for (const fields of [
    'X-Forwarded-Host: a";for=10.0.0.1;x="\r\n',
    'X-Forwarded-Host: a";proto=https;for="6.6.6.6\r\n',
    'X-Forwarded-Proto: https;for=10.0.0.1\r\n',
    'X-Forwarded-Proto: javascript\r\n',
    'X-Forwarded-Host: a, b\r\n'
  ]) {
    await raw(port, get(chain + fields))
    t.match(service.last().headers, {
      forwarded: 'for=192.0.2.1;host="door.test";proto=http',
      'x-forwarded-host': 'door.test',
      'x-forwarded-proto': 'http'
    })
  }
})

import { gzipSync } from 'node:zlib'
import t from 'tap'
import { startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

const boss = token({ sub: 'root', roles: ['admin'] })
const prototype = Object.getOwnPropertyNames(Object.prototype).length

t.test('H-46 what a client puts into a path, a token or a field stays a value', async t => {
  const service = await startUpstream(t)
  const { call } = await startGateway(t, {
    identity: { claims: { roles: ['constructor.name', 'roles'], name: ['name', 'toString'] } },
    services: { service: { url: service.url } },
    routes: [
      { path: '/item/{id}', service: 'service', rewrite: '/things/{id}', authentication: 'none' },
      { path: '/me', service: 'service' }
    ]
  })
  for (const [id, sent] of [
    ['__proto__', '/things/__proto__'],
    ['constructor.prototype', '/things/constructor.prototype'],
    ['{id}', '/things/{id}'],
    ['%7Bid%7D', '/things/%7Bid%7D'],
    ['$&$1$`', '/things/$&$1$`']
  ] as const) {
    t.equal((await call(`/item/${id}`)).status, 200, id)
    t.equal(service.last().url, sent)
  }
  const before = service.seen.length
  for (const id of ['a%0d%0aX-Admin:%201', 'a%0aX', 'a%00b']) t.equal((await call(`/item/${id}`)).status, 400, id)
  t.equal(service.seen.length, before)

  // Written as text: an object literal would set the prototype instead.
  const claims = `{"sub":"a\\r\\nX-Admin: 1","name":"b\\nc","exp":${Math.floor(Date.now() / 1000) + 600},"__proto__":{"roles":["admin"]},"constructor":{"prototype":{"polluted":1}},"roles":["r\\r\\nX-Admin: 1"]}`
  t.equal((await call('/me', { token: token(claims) })).status, 200)
  const { headers, rawHeaders } = service.last()
  t.match(headers, { 'x-user-id': 'a%0D%0AX-Admin: 1', 'x-user-name': 'b%0Ac' })
  t.notOk('x-admin' in headers)
  t.notMatch(rawHeaders.join('\n'), /\badmin\b/, 'a role that stands in a prototype is none')
  t.equal((await call('/me', { token: token({ name: undefined }) })).status, 200)
  t.notOk('x-user-name' in service.last().headers, 'nor is a claim that every object has')
  t.equal(Object.getOwnPropertyNames(Object.prototype).length, prototype)
})

t.test('H-47 JSON that is meant to hurt is refused where the gateway reads it', async t => {
  const { call } = await startGateway(t, {})
  const patch = (body: string) =>
    call('/admin/routes', { method: 'PATCH', token: boss, headers: { 'content-type': 'application/json' }, body })
  const deep = '['.repeat(100_000) + ']'.repeat(100_000)
  for (const [name, body, status] of [
    ['a list, deep', deep, 422],
    ['a value, deep', `{"id":${deep},"enabled":true}`, 422],
    ['more than a megabyte', `{"id":"${'x'.repeat(2 << 20)}","enabled":true}`, 413],
    ['a prototype', '{"id":"x","enabled":true,"__proto__":{"polluted":1}}', 400],
    ['a prototype by its constructor', '{"id":"x","enabled":true,"constructor":{"prototype":{"polluted":1}}}', 400],
    ['cut off', '{"id":"x"', 400],
    ['nothing', '', 400],
    ['an unknown key', '{"id":"x","enabled":true,"more":1}', 422],
    // Of two the last one counts, to the check as to who acts on it.
    ['a key twice', '{"id":"first","id":"second","enabled":true}', 404]
  ] as const)
    t.equal((await patch(body)).status, status, name)
  t.match((await patch('{"id":"first","id":"second","enabled":true}')).json.error.details, 'second')
  const infinite = await call('/admin/revocations', {
    method: 'POST',
    token: boss,
    headers: { 'content-type': 'application/json' },
    body: '{"jti":"x","seconds":1e999}'
  })
  t.equal(infinite.status, 422)
  t.equal(Object.getOwnPropertyNames(Object.prototype).length, prototype)
})

t.test('H-47 JSON on its way to a service is bytes, whatever is in it', async t => {
  const service = await startUpstream(t)
  const { call } = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  for (const body of ['{"a":1,"a":2}', '['.repeat(10_000), '{"n":1e999}', '{"__proto__":{"x":1}}']) {
    await call('/', { method: 'POST', headers: { 'content-type': 'application/json' }, body })
    t.equal(service.last().body, body)
  }
})

t.test('H-48 what is JSON is decided once, and anything else is 415', async t => {
  const service = await startUpstream(t)
  const { call } = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ id: 'x', path: '/x', service: 'service', authentication: 'none' }]
  })
  const body = '{"id":"x","enabled":true}'
  for (const [type, own, proxied] of [
    ['application/json', 200, 200],
    ['application/json;', 200, 200],
    ['APPLICATION/JSON; charset=utf-8', 200, 200],
    ['application/jsonx', 415, 200],
    ['text/plain', 415, 200],
    ['text/plain; application/json', 415, 200],
    ['application/x-www-form-urlencoded', 415, 200],
    ['application/json\ta', 415, 415],
    ['application/json a', 415, 415],
    ['', 415, 415]
  ] as const) {
    const headers = { 'content-type': type }
    const { status, text } = await call('/admin/routes', { method: 'PATCH', token: boss, headers, body })
    t.equal(status, own, JSON.stringify(type))
    if (own === 415) t.match(text, 'Content-Type: application/json', 'which says what would do')
    const before = service.seen.length
    t.equal((await call('/x', { method: 'POST', headers, body })).status, proxied)
    if (proxied === 200) t.equal(service.last().headers['content-type'], type, 'a service gets it as it came')
    else t.equal(service.seen.length, before, 'a service would have to guess, and does not get it')
  }
})

t.test('H-49 a body is counted as it comes, and never unpacked', async t => {
  const service = await startUpstream(t)
  const { port, call } = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/x', service: 'service', authentication: 'none', body_limit: '64kb' }]
  })
  const bomb = gzipSync(Buffer.alloc(16 << 20))
  const send = (path: string, headers: Record<string, string>): Promise<number> =>
    fetch(`http://127.0.0.1:${port}${path}`, {
      method: path === '/x' ? 'POST' : 'PATCH',
      headers: { 'content-encoding': 'gzip', ...headers },
      body: bomb
    }).then(answer => answer.status)
  t.equal(await send('/x', {}), 200)
  t.equal(Buffer.from(service.last().body, 'latin1').compare(bomb), 0, 'the service gets it packed as it was')
  t.equal(
    await send('/admin/routes', { 'content-type': 'application/json', authorization: `Bearer ${boss}` }),
    400,
    'and the gateway itself takes it for the bad JSON that it is'
  )
  t.equal((await call('/x', { method: 'POST', body: 'x'.repeat(65537) })).status, 413)
})

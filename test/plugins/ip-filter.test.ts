import t, { type Test } from 'tap'
import { rangeFault } from '../../src/proxy/peer.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { startUpstream, type Upstream } from '../support/upstream.ts'

async function start(t: Test, ip_filter: object, more: object = {}): Promise<TestGateway & { upstream: Upstream }> {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(t, {
    server: { trusted_proxies: ['127.0.0.1'] },
    services: { orders: { url: upstream.url } },
    routes: [{ path: '/x', service: 'orders', authentication: 'none', ip_filter }],
    ...more
  })
  return { ...gateway, upstream }
}

t.test('SEC-05 addresses are allowed and denied, and denial has the last word', async t => {
  const cases: [filter: object, address: string, status: number][] = [
    [{ deny: ['192.0.2.7'] }, '192.0.2.7', 403],
    [{ deny: ['192.0.2.7'] }, '192.0.2.8', 200],
    [{ deny: ['192.0.2.0/24'] }, '192.0.2.255', 403],
    [{ deny: ['192.0.2.0/24'] }, '192.0.3.0', 200],
    [{ allow: ['192.0.2.0/24'] }, '192.0.2.1', 200],
    [{ allow: ['192.0.2.0/24'] }, '198.51.100.1', 403],
    [{ allow: ['192.0.2.0/24'], deny: ['192.0.2.7'] }, '192.0.2.7', 403],
    [{ allow: ['192.0.2.7'], deny: ['192.0.2.0/24'] }, '192.0.2.7', 403],
    [{ allow: ['private'] }, '10.1.2.3', 200],
    [{ allow: ['private'] }, '172.32.0.1', 403],
    [{ allow: ['loopback'] }, '203.0.113.1', 403],
    [{ deny: ['2001:db8::/32'] }, '2001:db8:1::1', 403],
    [{ deny: ['2001:db8::/32'] }, '2001:DB8:0:0:0:0:0:1', 403],
    [{ deny: ['2001:db8::1'] }, '2001:0db8:0:0::0:1', 403],
    [{ deny: ['2001:db8::/32'] }, '2001:db9::1', 200],
    [{ deny: ['192.0.2.7'] }, '::ffff:192.0.2.7', 403],
    [{ allow: ['192.0.2.7'] }, '::ffff:192.0.2.7', 200],
    [{ deny: ['0.0.0.0/0'] }, '192.0.2.7', 403],
    [{}, '192.0.2.7', 200],
    [{ allow: [], deny: [] }, '192.0.2.7', 200]
  ]
  for (const [filter, address, status] of cases) {
    const { call } = await start(t, filter)
    t.equal(
      (await call('/x', { headers: { 'x-forwarded-for': address } })).status,
      status,
      `${JSON.stringify(filter)} ${address}`
    )
  }
})

t.test('SEC-05 H-41 the address is the peer’s, whatever it says, unless the peer is a proxy of ours', async t => {
  const { call } = await start(t, { deny: ['127.0.0.1'] }, { server: { trusted_proxies: [] } })
  for (const headers of [
    {},
    { 'x-forwarded-for': '192.0.2.1' },
    { 'x-real-ip': '192.0.2.1' },
    { forwarded: 'for=192.0.2.1' },
    { 'true-client-ip': '192.0.2.1' }
  ])
    t.equal((await call('/x', { headers })).status, 403)
  const proxied = await start(t, { allow: ['192.0.2.1'] })
  t.equal(
    (await proxied.call('/x', { headers: { 'x-forwarded-for': '192.0.2.1, 198.51.100.9' } })).status,
    403,
    'the rightmost hop counts'
  )
  t.equal((await proxied.call('/x', { headers: { 'x-forwarded-for': '198.51.100.9, 192.0.2.1' } })).status, 200)
})

t.test(
  'ERR-05 SEC-05 who is blocked is told so before credentials are looked at, and the log says by which list',
  async t => {
    const upstream = await startUpstream(t)
    const { call, line } = await startGateway(t, {
      services: { orders: { url: upstream.url } },
      routes: [
        { path: '/denied', service: 'orders', ip_filter: { deny: ['loopback'] } },
        { path: '/invited', service: 'orders', ip_filter: { allow: ['192.0.2.0/24'] } }
      ]
    })
    for (const [path, list] of [
      ['/denied', 'deny'],
      ['/invited', 'allow']
    ] as const) {
      for (const options of [{}, { token: token() }, { token: 'rubbish' }]) {
        const refused = await call(path, options)
        t.equal(refused.status, 403)
        t.equal(refused.json.error.code, 'ip_blocked')
        t.equal(refused.json.error.details, null)
        t.match(await line({ request_id: refused.headers['x-request-id'] as string }), {
          reason: `ip_filter ${list}`,
          client: '127.0.0.1'
        })
      }
    }
    t.equal(upstream.seen.length, 0)
  }
)

t.test('SEC-05 under the defaults it also holds where there is nothing', async t => {
  const { call } = await startGateway(t, { defaults: { ip_filter: { deny: ['loopback'] } } })
  t.equal((await call('/nowhere')).status, 403)
})

t.test('SEC-05 what is neither an address nor a range is refused', async t => {
  for (const entry of [
    '192.0.2.7',
    '10.0.0.0/8',
    '0.0.0.0/0',
    '10.0.0.0/32',
    '2001:db8::/32',
    '::1',
    '::/128',
    'loopback',
    'private'
  ])
    t.equal(rangeFault(entry), undefined, entry)
  for (const entry of [
    '',
    'localhost',
    '192.0.2',
    '192.0.2.256',
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/-1',
    '10.0.0.0/8/8',
    '10.0.0.0/8 ',
    '10.0.0.0/1e1',
    '::1/129',
    '[::1]',
    '2001:db8::/',
    'fe80::1%eth0',
    '10.0.0.*',
    '/8'
  ])
    t.match(rangeFault(entry), /is no address and no range/, entry)
  await t.rejects(start(t, { deny: ['192.0.2.0/33'] }), /ip_filter {2}"192\.0\.2\.0\/33" is no address and no range/)
})

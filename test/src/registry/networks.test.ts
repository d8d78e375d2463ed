import type { lookup } from 'node:dns'
import type { LookupFunction } from 'node:net'
import t from 'tap'
import { addressOf, isNetwork, lookupOf, lookupWithin, networksOf } from '../../../src/registry/networks.ts'

t.test('H-123 unless told otherwise, services are in public and private networks and nowhere else', async t => {
  const networks = networksOf(['public', 'private'])
  for (const address of [
    '192.0.2.1',
    '8.8.8.8',
    '10.1.2.3',
    '172.31.0.1',
    '192.168.7.7',
    '100.64.0.1',
    '2001:db8::1',
    'fd12::1'
  ])
    t.ok(networks.allows(address), address)
  for (const address of [
    ...['127.0.0.1', '127.8.8.8', '::1', '::ffff:127.0.0.1', '::ffff:7f00:1'],
    ...['169.254.169.254', '169.254.1.1', '::ffff:a9fe:a9fe', 'fe80::1', 'fd00:ec2::254', '100.100.100.200'],
    ...['0.0.0.0', '::', '224.0.0.1', 'ff02::1', '255.255.255.255', '240.0.0.1'],
    ...['64:ff9b::a9fe:a9fe', '2002:a9fe:a9fe::1', '::a9fe:a9fe']
  ])
    t.notOk(networks.allows(address), address)
})

t.test('H-123 networks are allowed by word, by address or by range', async t => {
  t.ok(networksOf(['loopback']).allows('127.0.0.1'))
  t.ok(networksOf(['loopback']).allows('::1'))
  t.notOk(networksOf(['loopback']).allows('10.0.0.1'))
  t.notOk(networksOf(['private']).allows('8.8.8.8'))
  const named = networksOf(['169.254.7.0/24', 'fe80::7', '10.9.0.0/16'])
  for (const address of ['169.254.7.1', 'fe80::7', '10.9.1.1']) t.ok(named.allows(address), address)
  for (const address of ['169.254.8.1', 'fe80::8', '10.8.1.1', '8.8.8.8']) t.notOk(named.allows(address), address)
})

t.test('CFG-07 what is no network is told from what is one', async t => {
  for (const entry of ['public', 'private', 'loopback', '10.0.0.0/8', '::1', 'fe80::/10', '192.0.2.1'])
    t.ok(isNetwork(entry), entry)
  for (const entry of ['intranet', '10.0.0.0/33', 'fe80::/129', '10.0.0', '10.0.0.0/', 'example.com', ''])
    t.notOk(isNetwork(entry), entry)
})

t.test('H-123 an address is found in however a URL spells it', async t => {
  for (const [url, address] of [
    ['http://127.0.0.1:80', '127.0.0.1'],
    ['http://2130706433/', '127.0.0.1'],
    ['http://0x7f.1/', '127.0.0.1'],
    ['http://0177.0.0.1/', '127.0.0.1'],
    ['http://[::FFFF:169.254.169.254]/', '::ffff:a9fe:a9fe'],
    ['http://example.com/', undefined],
    ['http://127.0.0.1.example.com/', undefined]
  ] as const)
    t.equal(addressOf(new URL(url)), address, url)
})

/** What `look` says of a name that stands for `addresses`. */
function resolved(addresses: string[], allow: string[], all: boolean): Promise<unknown[]> {
  const fake = ((_name: string, _options: object, callback: (...found: unknown[]) => void) =>
    callback(
      null,
      addresses.map(address => ({ address, family: address.includes(':') ? 6 : 4 }))
    )) as unknown as typeof lookup
  const look: LookupFunction = lookupWithin(networksOf(allow), fake)
  return new Promise(resolve => look('name', { all }, (...found) => resolve(found)))
}

t.test('H-123 of the addresses of a name only the allowed ones are connected to', async t => {
  t.strictSame(await resolved(['127.0.0.1', '10.0.0.1'], ['private'], false), [null, '10.0.0.1', 4])
  t.strictSame(await resolved(['169.254.169.254', 'fd12::1'], ['private'], true), [
    null,
    [{ address: 'fd12::1', family: 6 }]
  ])
  const [error] = await resolved(['169.254.169.254', '127.0.0.1'], ['public', 'private'], true)
  t.match(error, { code: 'ERR_NOT_ALLOWED' })
})

t.test('H-103 an address that is known already is not looked up again, whatever the name', async t => {
  const look = lookupOf({ address: 'fd12::1', networks: ['private'] }) as LookupFunction
  const ask = (all: boolean) =>
    new Promise(resolve => look('orders.example.com', { all }, (...found: unknown[]) => resolve(found)))
  t.strictSame(await ask(true), [null, [{ address: 'fd12::1', family: 6 }]])
  t.strictSame(await ask(false), [null, 'fd12::1', 6])
  t.equal(lookupOf({}), undefined)
})

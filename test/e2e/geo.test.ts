import { copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { explainRequest } from '../../src/commands/explain.ts'
import { checkConfiguration } from '../../src/gateway.ts'
import { compileCountry, fingerprintOf, openCountries } from '../../src/releases/geo.ts'
import { RouteTable } from '../../src/routing/table.ts'
import { load, problemsIn, ROOT } from '../support/config.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startGateway } from '../support/gateway.ts'
import { request, route, type Sketch } from '../support/routes.ts'
import { startUpstream } from '../support/upstream.ts'

/** A free data set of where addresses have been registered. */
const DATABASE = join(ROOT, 'node_modules/@ip-location-db/geo-whois-asn-country-mmdb/geo-whois-asn-country.mmdb')
/** Addresses of networks that have been in one country for long. */
const GERMAN = '84.128.0.1'
const FRENCH = '194.2.0.20'

async function start(t: Test, geo: object, more: object = {}) {
  const upstream = await startUpstream(t)
  const gateway = await startGateway(t, {
    server: { trusted_proxies: ['loopback'] },
    defaults: { authentication: 'none' },
    services: { s: { url: upstream.url } },
    geo,
    routes: [
      { path: '/x', countries: ['de', 'AT'], service: 's', rewrite: '/german' },
      { path: '/x', countries: 'FR', service: 's', rewrite: '/french' },
      { path: '/x', service: 's', rewrite: '/elsewhere' },
      { path: '/only', countries: 'DE', service: 's' }
    ],
    ...more
  })
  const goes = async (headers: Record<string, string> = {}, path = '/x') => {
    const { status, json } = await gateway.call(path, { headers })
    return status === 200 ? json.url : status
  }
  return { ...gateway, goes, upstream }
}

t.test('RTE-10 countries by the field of a trusted proxy', async t => {
  const { goes } = await start(t, { header: 'CF-IPCountry' })
  const cases: [country: string, path: string][] = [
    ['DE', '/german'],
    ['at', '/german'],
    ['FR', '/french'],
    ['US', '/elsewhere'],
    ['XX', '/elsewhere'],
    ['T1', '/elsewhere'],
    ['Germany', '/elsewhere'],
    ['', '/elsewhere']
  ]
  for (const [country, path] of cases) t.equal(await goes({ 'cf-ipcountry': country }), path, country)
  t.equal(await goes(), '/elsewhere', 'a country that is not known is none of those asked for')
  t.equal(await goes({ 'cf-ipcountry': 'DE' }, '/only'), '/only')
  t.equal(await goes({}, '/only'), 404)
})

t.test('RTE-10 H-83 from anybody else the field says nothing, to the service neither', async t => {
  const { goes, upstream } = await start(t, { header: 'CF-IPCountry' }, { server: {} })
  t.equal(await goes({ 'cf-ipcountry': 'DE' }), '/elsewhere')
  t.equal(upstream.last().headers['cf-ipcountry'], undefined)
  await goes({ CF_IPCountry: 'DE' })
  t.equal(upstream.last().headers.cf_ipcountry, undefined)
})

t.test('RTE-10 countries by a database of addresses, behind what a proxy says', async t => {
  const { goes } = await start(t, { header: 'CF-IPCountry', database: DATABASE })
  t.equal(await goes({ 'x-forwarded-for': GERMAN }), '/german')
  t.equal(await goes({ 'x-forwarded-for': FRENCH }), '/french')
  t.equal(await goes({ 'x-forwarded-for': '8.8.8.8' }), '/elsewhere')
  t.equal(await goes({ 'x-forwarded-for': GERMAN, 'cf-ipcountry': 'FR' }), '/french', 'the proxy knows better')
  t.equal(await goes(), '/elsewhere', '127.0.0.1 is nowhere')
})

t.test('RTE-10 the database is read once, and again when it is another', async t => {
  const countries = await openCountries(DATABASE)
  t.same([GERMAN, FRENCH, '2003::1', '127.0.0.1', '::1'].map(countries), ['DE', 'FR', 'DE', '', ''])
  const ipv4Only = await openCountries(DATABASE.replace('.mmdb', '-ipv4.mmdb'))
  t.same([GERMAN, '2003::1'].map(ipv4Only), ['DE', ''], 'what it does not hold it does not know')
  const folder = temporaryFolder(t)
  const file = join(folder, 'countries.mmdb')
  copyFileSync(DATABASE, file)
  t.equal(fingerprintOf(file), fingerprintOf(DATABASE), 'a copy is no other database')
  const { gateway, goes } = await start(t, { database: file })
  const version = () => gateway.status().version
  const before = version()
  t.equal(await goes({ 'x-forwarded-for': GERMAN }), '/german')
  copyFileSync(DATABASE.replace('.mmdb', '-ipv4.mmdb'), file)
  await gateway.reload()
  t.not(version(), before)
  t.equal(await goes({ 'x-forwarded-for': GERMAN }), '/german')
  writeFileSync(file, 'no database')
  t.match(await problemsIn(gateway.reload()), [{ key: 'geo.database', message: /^cannot be read/ }])
  t.equal(await goes({ 'x-forwarded-for': FRENCH }), '/french', 'the last good one stays')
})

t.test('RTE-10 C-16 countries in the order of routes, and in conflicts', async t => {
  const unreachable = (...sketches: Sketch[]) =>
    new RouteTable(sketches.map(route)).unreachable().map(({ route, by }) => `${route.id} by ${by.id}`)
  const table = new RouteTable(
    [
      { id: 'any', path: '/x' },
      { id: 'here', path: '/x', countries: ['DE'] },
      { id: 'typed', path: '/x', methods: ['POST'] }
    ].map(route)
  )
  t.same(
    table.routes.map(({ id }) => id),
    ['typed', 'here', 'any']
  )
  t.equal(table.match(request({ path: '/x', country: 'DE' }))?.id, 'here')
  t.equal(table.match(request({ path: '/x', country: 'FR' }))?.id, 'any')
  t.equal(table.match(request({ path: '/x' }))?.id, 'any')
  t.same(unreachable({ id: 'a', path: '/x', countries: ['DE', 'FR'] }, { id: 'b', path: '/x', countries: ['FR'] }), [
    'b by a'
  ])
  t.same(unreachable({ id: 'a', path: '/x', countries: ['DE'] }, { id: 'b', path: '/x', countries: ['FR'] }), [])
  t.same(unreachable({ id: 'a', path: '/x', countries: ['DE'] }, { id: 'b', path: '/x' }), [])
})

t.test('RTE-10 check and explain know countries', async t => {
  const yaml = (rest: string, route: string) =>
    `services: { s: { url: http://s } }\n${rest}\nroutes: [{ path: /x, authentication: none, service: s, ${route} }]\n`
  const cases: [rest: string, route: string, key: string, message: RegExp][] = [
    ['', 'countries: [DE]', 'routes[0].countries', /known to nobody: set "geo.header" or "geo.database"/],
    ['geo: { header: A }', 'countries: [Germany]', 'routes[0].countries[0]', /./],
    ['geo: { database: nowhere.mmdb }', 'countries: [DE]', 'geo.database', /cannot be read: ENOENT/]
  ]
  for (const [rest, route, key, message] of cases) {
    const files = [join(t.testdir({ 'gateway.yaml': yaml(rest, route) }), 'gateway.yaml')]
    const problems = await problemsIn(checkConfiguration({ files, env: {}, overrides: [] }))
    t.match(
      problems.filter(({ severity }) => severity === 'error'),
      [{ key, message }],
      `${rest} ${route}: ${JSON.stringify(problems)}`
    )
  }
  const loaded = await load(t, { 'gateway.yaml': yaml('geo: { header: X-Country }', 'countries: [DE]') })
  t.match(
    loaded.snapshot.warnings.map(({ key }) => key),
    ['geo.header']
  )
  const trusted = await load(t, {
    'gateway.yaml': yaml('server: { trusted_proxies: [loopback] }\ngeo: { header: X-Country }', 'countries: [DE]')
  })
  const explained = (country: string) =>
    explainRequest(trusted, { method: 'GET', target: '/x', headers: [`X-Country: ${country}`], from: '127.0.0.1' })
  t.match(await explained('DE'), { request: { country: 'DE' }, verdict: 'forwarded to s' })
  t.match(await explained('FR'), { request: { country: 'FR' }, near: [{ because: 'country FR is not DE' }] })
})

t.test('RTE-10 what proxies write is read with care', async t => {
  const countryOf = compileCountry({ header: 'X-Country' }, address => (address === '192.0.2.1' ? 'CH' : ''))
  const from = (value: string | undefined, trusted = true) =>
    countryOf({
      peer: { trusted } as never,
      client: '192.0.2.1',
      header: () => value,
      dropUpstreamField: () => {}
    })
  t.same(
    [from(' de '), from('XX'), from('ZZ'), from('D'), from('DE, FR'), from(undefined), from('DE', false)],
    ['DE', 'CH', 'CH', 'CH', 'CH', 'CH', 'CH']
  )
})

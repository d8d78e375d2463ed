import t from 'tap'
import { RouteTable } from '../../../src/routing/table.ts'
import { compareVersions, negotiate, type Versioning, versionName, wantedBy } from '../../../src/routing/version.ts'
import { request, route, type Sketch } from '../../support/routes.ts'

const VERSIONING: Versioning = { vendor: 'Acme', query: 'version' }
const asks = (accept?: string, version?: string) =>
  request({
    path: '/orders',
    headers: accept === undefined ? {} : { accept },
    query: version === undefined ? {} : { version }
  })

t.test('VER-02 VER-03 VER-04 the version that a request gets, of 1, 2 and 10', async t => {
  const cases: [accept: string | undefined, query: string | undefined, version: string | undefined][] = [
    [undefined, undefined, '1'],
    ['*/*', undefined, '1'],
    ['application/json', undefined, '1'],
    ['application/vnd.acme.v2+json', undefined, '2'],
    ['application/vnd.acme.v2', undefined, '2'],
    ['APPLICATION/VND.ACME.V2+JSON', undefined, '2'],
    ['application/vnd.acme.v10+json', undefined, '10'],
    ['application/vnd.acme.v3+json', undefined, undefined],
    ['application/vnd.acme.v3+json, */*;q=0.1', undefined, '1'],
    ['application/vnd.acme.v3+json, application/vnd.acme.v2+json;q=0.5', undefined, '2'],
    ['application/vnd.acme.v1+json;q=0.4, application/vnd.acme.v2+json;q=0.5', undefined, '2'],
    ['application/vnd.acme.v2+json;q=0.4, application/json', undefined, '1'],
    ['application/vnd.acme.v2+json, application/vnd.acme.v10+json', undefined, '2'],
    ['application/vnd.acme.v1+json;q=0, */*;q=0.2', undefined, '2'],
    ['application/vnd.acme.v2+json;q=0', undefined, undefined],
    ['application/vnd.acme.v2+json;q=nonsense', undefined, undefined],
    ['application/vnd.acme.v2+json;q=0.0001, application/vnd.acme.v1+json;q=0.1', undefined, '1'],
    ['application/vnd.acme.v2+json; charset=utf-8; q=0.9', undefined, '2'],
    ['application/vnd.other.v2+json', undefined, '1'],
    [',,', undefined, undefined],
    ['', undefined, '1'],
    [undefined, '2', '2'],
    [undefined, 'v10', '10'],
    [undefined, 'V2', '2'],
    [undefined, '', '1'],
    [undefined, '3', undefined],
    ['application/vnd.acme.v1+json', '2', '2']
  ]
  for (const [accept, query, version] of cases)
    t.equal(
      negotiate(wantedBy(asks(accept, query), VERSIONING), ['10', '1', '2'], undefined),
      version,
      `${accept} ?${query}`
    )
  t.equal(negotiate(wantedBy(asks(), VERSIONING), ['10', '1', '2'], '2'), '2', 'the default, where any will do')
  t.equal(negotiate(wantedBy(asks(), VERSIONING), ['10', '1'], '2'), '1', 'which need not be there')
  const none = wantedBy(asks('application/vnd.acme.v2+json', '2'), {})
  t.equal(negotiate(none, ['1', '2'], undefined), '1', 'nobody looks where nobody may say anything')
})

t.test('VER-04 names of versions', async t => {
  t.same(['v2', '2', 'V1.1', 'v2024-01-31', 'vision', 'Beta'].map(versionName), [
    '2',
    '2',
    '1.1',
    '2024-01-31',
    'vision',
    'beta'
  ])
  t.equal(versionName(3), '3')
  t.same(['10', '9', '1.10', '1.9', 'beta'].sort(compareVersions), ['1.9', '1.10', '9', '10', 'beta'])
})

t.test('VER-07 C-16 versions are chosen where host, path, method and conditions have led', async t => {
  const sketches: Sketch[] = [
    { id: 'v1', path: '/orders', version: '1', methods: ['GET', 'POST'] },
    { id: 'v2', path: '/orders', version: '2', methods: ['GET'] },
    { id: 'v2 beta', path: '/orders', version: '2', headers: { beta: '1' } },
    { id: 'v3 any', path: '/orders', version: '3' },
    { id: 'rest', path: '/**' }
  ]
  const cases: [what: Parameters<typeof request>[0], id: string | undefined][] = [
    [{ path: '/orders' }, 'v1'],
    [{ path: '/orders', query: { version: '2' } }, 'v2'],
    [{ path: '/orders', query: { version: '2' }, method: 'DELETE', headers: { beta: '1' } }, 'v2 beta'],
    [{ path: '/orders', query: { version: '2' }, method: 'DELETE' }, undefined],
    [{ path: '/orders', query: { version: '3' } }, 'v3 any'],
    [{ path: '/orders', method: 'DELETE' }, 'v3 any'],
    [{ path: '/orders', query: { version: '4' } }, undefined],
    [{ path: '/orders/7', query: { version: '4' } }, 'rest']
  ]
  for (const list of [sketches, [...sketches].reverse()]) {
    const table = new RouteTable(list.map(route), VERSIONING)
    for (const [what, id] of cases) t.equal(table.match(request(what))?.id, id, JSON.stringify(what))
    t.same(table.versionsFor(request({ path: '/orders', query: { version: '4' } })), ['1', '2', '3'])
    t.same(table.versionsFor(request({ path: '/orders', method: 'DELETE' })), ['3'])
    t.same(table.versionsFor(request({ path: '/nowhere' })), [], 'there is nothing to choose')
    t.same(table.unreachable(), [], 'each can be asked for')
  }
})

t.test('VER-07 C-16 what no request could ever reach is a conflict still', async t => {
  const unreachable = (...sketches: Sketch[]) =>
    new RouteTable(sketches.map(route), VERSIONING).unreachable().map(({ route, by }) => `${route.id} by ${by.id}`)
  t.same(
    unreachable({ id: 'a', path: '/x', version: '1' }, { id: 'b', path: '/x', version: '1' }),
    ['b by a'],
    'one version twice'
  )
  t.same(
    unreachable({ id: 'a', path: '/x', version: '1' }, { id: 'b', path: '/x' }),
    ['b by a'],
    'no version beside versions'
  )
  t.same(
    unreachable({ id: 'a', path: '/**', version: '1', priority: 1 }, { id: 'b', path: '/x', version: '2' }),
    ['b by a'],
    'versions of another path'
  )
  t.same(unreachable({ id: 'a', path: '/x/**', version: '1' }, { id: 'b', path: '/x', version: '2' }), [])
  t.same(
    unreachable(
      { id: 'a', path: '/x', version: '1', hosts: ['a.example', 'b.example'] },
      { id: 'b', path: '/x', version: '2', hosts: ['b.example'] }
    ),
    [],
    'of several hosts each has its versions'
  )
})

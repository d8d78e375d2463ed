import t from 'tap'
import { compareRoutes, mismatch, type RequestView, type RouteMatch, RouteTable } from '../../../src/routing/table.ts'
import { request, route, type Sketch, seeded } from '../../support/routes.ts'

const ids = (...sketches: Sketch[]): string[] => new RouteTable(sketches.map(route)).routes.map(({ id }) => id)

t.test('C-16 the order in which routes are asked', async t => {
  const order: Sketch[] = [
    { id: 'priority', path: '/**', priority: 10 },
    { id: 'exact host', path: '/**', hosts: ['api.example.com'] },
    { id: 'longer wildcard host', path: '/**', hosts: ['*.a.example.com'] },
    { id: 'wildcard host', path: '/**', hosts: ['*.example.com'] },
    { id: 'exact, longer', path: '/a/b/c' },
    { id: 'exact, a method', path: '/a/b', methods: ['GET'] },
    { id: 'exact, two headers', path: '/a/b', headers: { one: '1', two: '2' } },
    { id: 'exact, a header and a parameter', path: '/a/b', headers: { one: '1' }, query: { q: '1' } },
    { id: 'exact, a header', path: '/a/b', headers: { one: '1' } },
    { id: 'exact, a parameter', path: '/a/b', query: { q: '1' } },
    { id: 'exact', path: '/a/b' },
    { id: 'parametric, literal first', path: '/a/{x}' },
    { id: 'parametric, literal later', path: '/{x}/b' },
    { id: 'prefix, longest', path: '/a/b/**' },
    { id: 'prefix', path: '/a/**' },
    { id: 'prefix, parametric', path: '/{x}/**' },
    { id: 'prefix of all', path: '/**' },
    { id: 'regular expression', regex: '^/a' },
    { id: 'catch-all', path: '/a/**', catchAll: true },
    { id: 'below all', path: '/a/b', priority: -1 }
  ]
  const expected = order.map(({ id }) => id)
  t.same(ids(...order), expected)
  t.same(ids(...[...order].reverse()), expected, 'however they are written down')
})

t.test('C-16 among equals the one written first is asked first', async t => {
  const table = new RouteTable([
    route({ id: 'first', path: '/a', headers: { v: '1' } }),
    route({ id: 'second', path: '/a', headers: { w: '1' } })
  ])
  t.equal(table.match(request({ path: '/a', headers: { v: '1', w: '1' } }))?.id, 'first')
  t.equal(table.match(request({ path: '/a', headers: { w: '1' } }))?.id, 'second')
})

t.test('C-16 of several hosts each has its own rank', async t => {
  const table = new RouteTable([
    route({ id: 'many', path: '/a', hosts: ['one.example.com', '*.example.org'] }),
    route({ id: 'www', path: '/**', hosts: ['www.example.org'] })
  ])
  t.equal(
    table.match(request({ path: '/a', host: 'www.example.org' }))?.id,
    'www',
    'an exact host goes before a wildcard'
  )
  t.equal(table.match(request({ path: '/a', host: 'x.example.org' }))?.id, 'many')
  t.equal(table.match(request({ path: '/a', host: 'one.example.com' }))?.id, 'many')
  t.equal(table.match(request({ path: '/a', host: 'example.org' })), undefined)
})

t.test('RTE-24 Allow names the methods of all routes that would have matched', async t => {
  const table = new RouteTable([
    route({ id: 'read', path: '/a/{x}', methods: ['GET', 'HEAD'] }),
    route({ id: 'write', path: '/a/**', methods: ['PUT', 'DELETE'], hosts: ['*.example.com'] }),
    route({ id: 'other path', path: '/b', methods: ['PATCH'] }),
    route({ id: 'other header', path: '/a/b', methods: ['POST'], headers: { v: '2' } }),
    route({ id: 'by expression', regex: '^/a/b$', methods: ['LINK'] })
  ])
  t.same(table.allowedMethods(request({ path: '/a/b', host: 'api.example.com' })), [
    'DELETE',
    'GET',
    'HEAD',
    'LINK',
    'PUT'
  ])
  t.same(table.allowedMethods(request({ path: '/a/b/', host: 'elsewhere' })), ['GET', 'HEAD'])
  t.same(table.allowedMethods(request({ path: '/nowhere' })), [])
})

t.test('C-16 H-120 a route that is never asked is found, and who is in its way', async t => {
  const cases: [string, Sketch[], string[]][] = [
    [
      'the same match',
      [
        { id: 'a', path: '/x' },
        { id: 'b', path: '/X/' }
      ],
      ['b by a']
    ],
    [
      'parameters by other names',
      [
        { id: 'a', path: '/{x}' },
        { id: 'b', path: '/:y' }
      ],
      ['b by a']
    ],
    [
      'the same expression',
      [
        { id: 'a', regex: '^/x' },
        { id: 'b', regex: '^/x' }
      ],
      ['b by a']
    ],
    [
      'methods within methods',
      [
        { id: 'a', path: '/x', methods: ['GET', 'PUT'] },
        { id: 'b', path: '/x', methods: ['PUT'] }
      ],
      ['b by a']
    ],
    [
      'methods that overlap',
      [
        { id: 'a', path: '/x', methods: ['GET', 'PUT'] },
        { id: 'b', path: '/x', methods: ['PUT', 'POST'] }
      ],
      []
    ],
    [
      'the same conditions',
      [
        { id: 'a', path: '/x', headers: { v: '1' } },
        { id: 'b', path: '/x', headers: { v: '1' } }
      ],
      ['b by a']
    ],
    [
      'other conditions',
      [
        { id: 'a', path: '/x', headers: { v: '1' } },
        { id: 'b', path: '/x', headers: { v: '2' } }
      ],
      []
    ],
    [
      'a condition more',
      [
        { id: 'a', path: '/x' },
        { id: 'b', path: '/x', headers: { v: '2' } }
      ],
      []
    ],
    [
      'a priority',
      [
        { id: 'a', path: '/x' },
        { id: 'b', path: '/**', priority: 1 }
      ],
      ['a by b']
    ],
    [
      'a priority with a condition',
      [
        { id: 'a', path: '/x' },
        { id: 'b', path: '/**', priority: 1, query: { q: '1' } }
      ],
      []
    ],
    [
      'a host',
      [
        { id: 'a', path: '/x', hosts: ['h'] },
        { id: 'b', path: '/**', hosts: ['h'] }
      ],
      []
    ],
    [
      'a host with a priority',
      [
        { id: 'a', path: '/x', hosts: ['a.h'] },
        { id: 'b', path: '/**', hosts: ['*.h'], priority: 1 }
      ],
      ['a by b for a.h']
    ],
    [
      'one host of several',
      [
        { id: 'a', path: '/x', hosts: ['h', 'i'] },
        { id: 'b', path: '/x', hosts: ['j', 'h'] }
      ],
      ['b by a for h']
    ],
    [
      'expressions below everything',
      [
        { id: 'a', path: '/**' },
        { id: 'b', regex: '^/x' }
      ],
      ['b by a']
    ],
    [
      'more specific paths',
      [
        { id: 'a', path: '/**' },
        { id: 'b', path: '/x/**' },
        { id: 'c', path: '/x/{y}' },
        { id: 'd', path: '/x/y' }
      ],
      []
    ],
    [
      'wildcard hosts',
      [
        { id: 'a', path: '/x', hosts: ['*.h'] },
        { id: 'b', path: '/x', hosts: ['*.i.h'] },
        { id: 'c', path: '/x', hosts: ['a.h'] }
      ],
      []
    ]
  ]
  for (const [name, sketches, expected] of cases) {
    const found = new RouteTable(sketches.map(route)).unreachable()
    const inWords = found.map(
      ({ route, by, host }) => `${route.id} by ${by.id}${host === undefined ? '' : ` for ${host}`}`
    )
    t.same(inWords, expected, name)
  }
})

t.test('C-16 the table finds what asking every route in order would find', async t => {
  const random = seeded(20260101)
  let found = 0
  for (let round = 0; round < 300; round++) {
    const routes = Array.from({ length: 1 + Math.floor(random() * 30) }, (_, i) => route(randomRoute(random, i)))
    const table = new RouteTable(routes)
    for (let i = 0; i < 40; i++) {
      const view = request(randomRequest(random))
      const expected = naive(routes, view)
      if (expected !== undefined) found++
      const matched = table.match(view)
      if (matched === expected) continue
      t.fail(`round ${round}: ${JSON.stringify({ view, expected: expected?.id, matched: matched?.id })}`)
      return
    }
  }
  t.ok(found > 2000, 'the requests are not all lost')
})

t.test('RTE-24 the methods allowed are those that asking every route would give', async t => {
  const random = seeded(7)
  for (let round = 0; round < 200; round++) {
    const routes = Array.from({ length: 1 + Math.floor(random() * 30) }, (_, i) => route(randomRoute(random, i)))
    const table = new RouteTable(routes)
    for (let i = 0; i < 20; i++) {
      const view = request(randomRequest(random))
      const expected = routes.filter(entry => entry.methods !== undefined && mismatch(entry, view, true) === undefined)
      const methods = [...new Set(expected.flatMap(entry => [...(entry.methods ?? [])]))].sort()
      if (JSON.stringify(table.allowedMethods(view)) !== JSON.stringify(methods)) {
        t.same(table.allowedMethods(view), methods, `round ${round}`)
        return
      }
    }
  }
  t.pass()
})

t.test('H-120 a thousand hosts, or ten thousand paths, are told apart without asking them all', async t => {
  let asked = 0
  const spy = {
    name: 'x',
    wanted: 'is there',
    test: () => {
      asked++
      return true
    }
  }
  const hosts = Array.from({ length: 1000 }, (_, i) => ({
    ...route({ id: `h${i}`, path: '/**', hosts: [`h${i}.example.com`] }),
    headers: [spy]
  }))
  t.equal(new RouteTable(hosts).match(request({ path: '/a', host: 'h777.example.com' }))?.id, 'h777')
  t.equal(asked, 1)
  asked = 0
  const wildcards = Array.from({ length: 1000 }, (_, i) => ({
    ...route({ id: `w${i}`, path: '/**', hosts: [`*.w${i}.example.com`] }),
    headers: [spy]
  }))
  t.equal(new RouteTable(wildcards).match(request({ path: '/a', host: 'a.b.w9.example.com' }))?.id, 'w9')
  t.equal(asked, 1)
  asked = 0
  const paths = Array.from({ length: 10_000 }, (_, i) => ({
    ...route({ id: `p${i}`, path: `/p${i}/**` }),
    headers: [spy]
  }))
  const table = new RouteTable(paths)
  t.equal(table.match(request({ path: '/p5000/x' }))?.id, 'p5000')
  t.equal(asked, 1)
  asked = 0
  t.same(table.allowedMethods(request({ path: '/p5000/x' })), [])
  t.equal(asked, 0)
})

t.test('H-36 a host of any length is looked up in bounded time', async t => {
  const table = new RouteTable([route({ id: 'w', path: '/**', hosts: ['*.example.com'] })])
  t.equal(table.match(request({ path: '/', host: `${'a.'.repeat(8000)}example.com` }))?.id, 'w')
  t.equal(table.match(request({ path: '/', host: `example.com.${'a.'.repeat(8000)}` })), undefined)
})

/** The rule itself: of all that match, the one that is asked first, each host of a route in its own place. */
function naive(routes: readonly RouteMatch[], view: RequestView): RouteMatch | undefined {
  return routes
    .flatMap(entry =>
      (entry.hosts ?? [undefined]).map(host => ({
        entry,
        match: { ...entry, hosts: host === undefined ? undefined : [host] }
      }))
    )
    .sort((a, b) => compareRoutes(a.match, b.match))
    .find(({ match }) => mismatch(match, view, false) === undefined)?.entry
}

const WORDS = ['a', 'b', 'c']
const HOSTS = ['h', 'x.h', 'y.x.h', 'localhost']

function randomRoute(random: () => number, i: number): Sketch {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T
  const maybe = <T>(chance: number, value: () => T): T | undefined => (random() < chance ? value() : undefined)
  const segments = Array.from({ length: Math.floor(random() * 4) }, (_, at) =>
    random() < 0.3 ? `{p${at}}` : pick(WORDS)
  )
  if (random() < 0.3) segments.push('**')
  const hosts = maybe(0.4, () =>
    Array.from({ length: 1 + Math.floor(random() * 2) }, () => pick(['h', 'x.h', '*.h', '*.x.h']))
  )
  const methods = maybe(0.3, () => [pick(['GET', 'POST']), pick(['PUT', 'GET'])])
  const sketch = {
    id: `r${i}`,
    priority: random() < 0.1 ? Math.floor(random() * 3) - 1 : 0,
    catchAll: random() < 0.05,
    headers: maybe(0.2, () => ({ v: pick(['1', '2']) })) ?? {},
    query: maybe(0.1, () => ({ q: { present: random() < 0.5 } })) ?? {},
    ...(hosts === undefined ? {} : { hosts: [...new Set(hosts)] }),
    ...(methods === undefined ? {} : { methods })
  }
  return random() < 0.1
    ? { ...sketch, regex: pick(['^/a', 'b$', '^/(a|c)/?']) }
    : { ...sketch, path: `/${segments.join('/')}` }
}

function randomRequest(random: () => number) {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T
  const segments = Array.from({ length: Math.floor(random() * 5) }, () => pick([...WORDS, 'd']))
  return {
    path: `/${segments.join('/')}${random() < 0.2 && segments.length > 0 ? '/' : ''}`,
    method: pick(['GET', 'POST', 'PUT']),
    host: pick(HOSTS),
    headers: random() < 0.5 ? { v: pick(['1', '2']) } : {},
    query: random() < 0.5 ? { q: '' } : {}
  }
}

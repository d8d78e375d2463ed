import t from 'tap'
import { RouteTable } from '../../../src/routing/table.ts'
import { type RequestSketch, request, route, type Sketch } from '../../support/routes.ts'

/**
 * The matching rules of the Kubernetes Gateway API's HTTPRoute that we claim, as rows: path prefix and exact path, method, header,
 * query and host, each alone and together, and which goes first. Not claimed, on purpose: paths that differ in case or in a
 * trailing slash alone are one path here (H-31), and GET answers HEAD.
 */
const suites: [name: string, routes: Sketch[], rows: [RequestSketch, string | undefined][]][] = [
  [
    'H-35 a prefix is whole segments',
    [
      { id: 'v1', path: '/**' },
      { id: 'v1-header', path: '/**', headers: { version: 'one' } },
      { id: 'v2', path: '/v2/**' },
      { id: 'v2-header', path: '/**', headers: { version: 'two' } }
    ],
    [
      [{ path: '/' }, 'v1'],
      [{ path: '/example' }, 'v1'],
      [{ path: '/', headers: { version: 'one' } }, 'v1-header'],
      [{ path: '/v2' }, 'v2'],
      [{ path: '/v2/' }, 'v2'],
      [{ path: '/v2/example' }, 'v2'],
      [{ path: '/', headers: { version: 'two' } }, 'v2-header'],
      [{ path: '/v2example' }, 'v1'],
      [{ path: '/foo/v2/example' }, 'v1'],
      [{ path: '/v2', headers: { version: 'one' } }, 'v2']
    ]
  ],
  [
    'RTE-04 an exact path is nothing else',
    [
      { id: 'one', path: '/one' },
      { id: 'two', path: '/two' }
    ],
    [
      [{ path: '/one' }, 'one'],
      [{ path: '/two' }, 'two'],
      [{ path: '/' }, undefined],
      [{ path: '/one/example' }, undefined],
      [{ path: '/onetwo' }, undefined]
    ]
  ],
  [
    'C-16 exact before prefix, the longest prefix first',
    [
      { id: 'prefix', path: '/match/**' },
      { id: 'exact-long', path: '/match/exact/one' },
      { id: 'exact', path: '/match/exact' },
      { id: 'prefix-long', path: '/match/prefix/one/**' },
      { id: 'prefix-middle', path: '/match/prefix/**' }
    ],
    [
      [{ path: '/match/exact/one' }, 'exact-long'],
      [{ path: '/match/exact' }, 'exact'],
      [{ path: '/match' }, 'prefix'],
      [{ path: '/match/exact/two' }, 'prefix'],
      [{ path: '/match/prefix/one/any' }, 'prefix-long'],
      [{ path: '/match/prefix/any' }, 'prefix-middle']
    ]
  ],
  [
    'RTE-07 headers, all of a route’s',
    [
      { id: 'one', path: '/**', headers: { version: 'one' } },
      { id: 'two', path: '/**', headers: { version: 'two' } },
      { id: 'two-orange', path: '/**', headers: { version: 'two', color: 'orange' } },
      { id: 'blue', path: '/**', headers: { color: 'blue' } },
      { id: 'green', path: '/**', headers: { color: 'green' } }
    ],
    [
      [{ path: '/', headers: { version: 'one' } }, 'one'],
      [{ path: '/', headers: { version: 'two' } }, 'two'],
      [{ path: '/', headers: { version: 'two', color: 'orange' } }, 'two-orange'],
      [{ path: '/', headers: { version: 'two', color: 'blue' } }, 'two'],
      [{ path: '/', headers: { color: 'orange' } }, undefined],
      [{ path: '/', headers: { 'some-other-header': 'one' } }, undefined],
      [{ path: '/', headers: { color: 'green' } }, 'green'],
      [{ path: '/', headers: { color: 'purple' } }, undefined],
      [{ path: '/' }, undefined]
    ]
  ],
  [
    'RTE-04 methods, before headers and after paths',
    [
      { id: 'post', path: '/**', methods: ['POST'] },
      { id: 'get', path: '/**', methods: ['GET'] },
      { id: 'put-one', path: '/**', methods: ['PUT'], headers: { version: 'one' } },
      { id: 'patch', path: '/path5/**', methods: ['PATCH'] },
      { id: 'patch-header', path: '/**', methods: ['PATCH'], headers: { version: 'four' } },
      { id: 'header', path: '/**', headers: { version: 'four' } }
    ],
    [
      [{ method: 'POST', path: '/' }, 'post'],
      [{ method: 'GET', path: '/' }, 'get'],
      [{ method: 'HEAD', path: '/' }, undefined],
      [{ method: 'PUT', path: '/' }, undefined],
      [{ method: 'PUT', path: '/', headers: { version: 'one' } }, 'put-one'],
      [{ method: 'PATCH', path: '/path5' }, 'patch'],
      [{ method: 'PATCH', path: '/path5', headers: { version: 'four' } }, 'patch'],
      [{ method: 'PATCH', path: '/', headers: { version: 'four' } }, 'patch-header'],
      [{ method: 'GET', path: '/', headers: { version: 'four' } }, 'get'],
      [{ method: 'DELETE', path: '/', headers: { version: 'four' } }, 'header']
    ]
  ],
  [
    'RTE-06 query parameters, by exact name and value',
    [
      { id: 'whale', path: '/**', query: { animal: 'whale' } },
      { id: 'dolphin', path: '/**', query: { animal: 'dolphin' } },
      { id: 'blue-dolphin', path: '/**', query: { animal: 'dolphin', color: 'blue' } },
      { id: 'upper', path: '/**', query: { ANIMAL: 'Whale' } },
      { id: 'path', path: '/path1/**', query: { animal: 'whale' } },
      { id: 'header', path: '/**', headers: { version: 'one' }, query: { animal: 'whale' } }
    ],
    [
      [{ path: '/', query: { animal: 'whale' } }, 'whale'],
      [{ path: '/', query: { animal: 'dolphin' } }, 'dolphin'],
      [{ path: '/', query: { animal: 'dolphin', color: 'blue' } }, 'blue-dolphin'],
      [{ path: '/', query: { ANIMAL: 'Whale' } }, 'upper'],
      [{ path: '/', query: { animal: 'whale', other: 'irrelevant' } }, 'whale'],
      [{ path: '/', query: { animal: 'dolphin', color: 'yellow' } }, 'dolphin'],
      [{ path: '/', query: { color: 'blue' } }, undefined],
      [{ path: '/', query: { animal: 'whaledolphin' } }, undefined],
      [{ path: '/' }, undefined],
      [{ path: '/path1', query: { animal: 'whale' } }, 'path'],
      [{ path: '/', headers: { version: 'one' }, query: { animal: 'whale' } }, 'header']
    ]
  ],
  [
    'C-16 across routes of several hosts',
    [
      { id: 'v1', path: '/**', hosts: ['example.com', 'example.net'] },
      { id: 'v1-header', path: '/**', hosts: ['example.com', 'example.net'], headers: { version: 'one' } },
      { id: 'v2', path: '/v2/**', hosts: ['example.com'] },
      { id: 'v2-header', path: '/**', hosts: ['example.com'], headers: { version: 'two' } }
    ],
    [
      [{ host: 'example.com', path: '/' }, 'v1'],
      [{ host: 'example.net', path: '/example' }, 'v1'],
      [{ host: 'example.com', path: '/', headers: { version: 'one' } }, 'v1-header'],
      [{ host: 'example.com', path: '/v2/example' }, 'v2'],
      [{ host: 'example.com', path: '/', headers: { version: 'two' } }, 'v2-header'],
      [{ host: 'example.net', path: '/v2' }, 'v1'],
      [{ host: 'example.com', path: '/v2example' }, 'v1'],
      [{ host: 'example.org', path: '/' }, undefined]
    ]
  ],
  [
    'H-36 exact hosts before wildcards, longer wildcards before shorter ones',
    [
      { id: 'exact', path: '/**', hosts: ['very.specific.com'] },
      { id: 'wildcard', path: '/**', hosts: ['*.specific.com'] },
      { id: 'broad', path: '/**', hosts: ['*.com'] },
      { id: 'other', path: '/s/**', hosts: ['*.wildcard.io'] }
    ],
    [
      [{ host: 'very.specific.com', path: '/s1' }, 'exact'],
      [{ host: 'foo.specific.com', path: '/' }, 'wildcard'],
      [{ host: 'foo.very.specific.com', path: '/' }, 'wildcard'],
      [{ host: 'specific.com', path: '/' }, 'broad'],
      [{ host: 'com', path: '/' }, undefined],
      [{ host: 'foo.bar.wildcard.io', path: '/s' }, 'other'],
      [{ host: 'wildcard.io', path: '/s' }, undefined],
      [{ host: 'foo.wildcard.io', path: '/no' }, undefined],
      [{ host: 'foo.nonmatchingwildcard.io', path: '/s' }, undefined],
      [{ host: 'very.specific.com.evil.test', path: '/' }, undefined]
    ]
  ]
]

for (const [name, routes, rows] of suites) {
  t.test(`Gateway API: ${name}`, async t => {
    const table = new RouteTable(routes.map(route))
    for (const [sketch, expected] of rows)
      t.equal(table.match(request(sketch))?.id, expected, `${JSON.stringify(sketch)} → ${expected ?? 404}`)
  })
}

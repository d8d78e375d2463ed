import t from 'tap'
import { parseRedisUrl } from '../../../src/store/redis-url.ts'

t.test('CLU-05 which Redis a URL means', async t => {
  const none = { username: undefined, password: undefined }
  t.strictSame(parseRedisUrl('rediss://u:p@h:1/2'), { kind: 'single', url: 'rediss://u:p@h:1/2' })
  t.strictSame(parseRedisUrl('redis+sentinel://a,b:1,[::1]:2/mine'), {
    kind: 'sentinel',
    nodes: [
      { host: 'a', port: 26379 },
      { host: 'b', port: 1 },
      { host: '::1', port: 2 }
    ],
    tls: false,
    ...none,
    name: 'mine',
    db: 0,
    sentinelPassword: undefined
  })
  t.match(parseRedisUrl('rediss+sentinel://gate:p%40ss@a/my%20own/3?sentinel_password=s'), {
    tls: true,
    username: 'gate',
    password: 'p@ss',
    name: 'my own',
    db: 3,
    sentinelPassword: 's'
  })
  t.strictSame(parseRedisUrl('redis+cluster://:secret@a:1,b'), {
    kind: 'cluster',
    nodes: [
      { host: 'a', port: 1 },
      { host: 'b', port: 6379 }
    ],
    tls: false,
    username: undefined,
    password: 'secret'
  })
})

t.test('CLU-05 a URL that means nothing is refused, without showing its password', async t => {
  const cases: [url: string, message: RegExp][] = [
    ['redis+sentinel://a:1', /which primary/],
    ['redis+sentinel://a/mine/x', /number/],
    ['redis+cluster://a/3', /only the first/],
    ['redis+cluster://a:99999', /is no Redis/],
    ['redis+cluster://a b', /is no Redis/],
    ['redis+cluster://', /is no Redis/],
    ['redis+mirror://u:secret@a', /is no Redis/],
    ['redis-sentinel://u:secret@a', /is no Redis/]
  ]
  for (const [url, message] of cases) {
    t.throws(() => parseRedisUrl(url), message, url)
    try {
      parseRedisUrl(url)
    } catch (error) {
      t.notMatch((error as Error).message, /secret/)
    }
  }
})

import t from 'tap'
import { startGateway } from '../support/gateway.ts'
import { raw } from '../support/raw.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

/** A plugin with a bug, whose exception has a lot to tell. */
const BUG = `import { definePolicy, Type } from 'sallyport'
  const error = () => Object.assign(new Error('cannot reach db.internal as root'), { password: 'hunter2' })
  export default definePolicy({
    name: 'bug',
    schema: Type.Object({ how: Type.String({ description: 'How it fails.' }) }),
    compile({ how }): any {
      if (how === 'throws') return { onRequest() { throw error() } }
      if (how === 'says') return { onRequest(_request: any, _reply: any, done: any) { done(error()) } }
      return { async onRequest() { throw error() } }
    }
  })`

t.test('C-30 ERR-04 what an exception says is in the log, under the request’s id, and nowhere else', async t => {
  const upstream = await startUpstream(t)
  const formats = ['envelope', 'problem', 'detail', 'flat', 'code_message']
  const ways = ['throws', 'says', 'rejects']
  const gateway = await startGateway(
    t,
    {
      services: { s: { url: upstream.url } },
      routes: formats.flatMap(format =>
        ways.map(how => ({
          path: `/${format}/${how}`,
          service: 's',
          authentication: 'none',
          errors: { format },
          plugins: { bug: { how } }
        }))
      ),
      plugins: [{ use: './bug.ts' }]
    },
    { files: { 'bug.ts': BUG } }
  )
  for (const format of formats) {
    for (const how of ways) {
      const { status, text, headers } = await gateway.call(`/${format}/${how}`)
      t.equal(status, 500, `${format} ${how}`)
      t.notMatch(text, /db\.internal|hunter2|bug|Error:|\.ts/)
      const line = await gateway.line({ request_id: headers['x-request-id'], msg: 'request failed' })
      t.match(line, {
        level: 50,
        err: { type: 'Error', message: 'cannot reach db.internal as root', stack: /bug\.ts/ }
      })
    }
  }
  t.equal(upstream.seen.length, 0)
  t.notMatch(JSON.stringify(gateway.lines()), 'hunter2', 'and what else hangs on it is nobody’s business')
  t.match((await gateway.call('/detail/throws')).json, { detail: 'Internal server error' }, 'ERR-03')
})

t.test(
  'OBS-14 C-23 every answer has X-Request-ID, its line in the log has the same, and nobody chooses it',
  async t => {
    const upstream = await startUpstream(t)
    const document = {
      services: { s: { url: upstream.url }, dead: { url: 'http://127.0.0.1:1' } },
      routes: [
        { path: '/open', service: 's', authentication: 'none', body_limit: '1b' },
        { path: '/closed', service: 's' },
        { path: '/admins', service: 's', required_roles: ['admin'] },
        { path: '/once', service: 's', authentication: 'none', rate_limit: { requests_per_hour: 1 } },
        { path: '/dead', service: 'dead', authentication: 'none' },
        { path: '/blocked', service: 's', authentication: 'none', ip_filter: { deny: ['loopback'] } }
      ]
    }
    const gateway = await startGateway(t, document)
    const requests: [status: number, path: string, options?: object][] = [
      [200, '/open'],
      [404, '/nowhere'],
      [405, '/open', { method: 'TRACE' }],
      [413, '/open', { method: 'POST', body: 'too much' }],
      [401, '/closed'],
      [403, '/admins', { token: token() }],
      [200, '/once'],
      [429, '/once'],
      [502, '/dead'],
      [403, '/blocked'],
      [400, '/%00'],
      [200, '/health'],
      [200, '/metrics'],
      [401, '/gateway/status']
    ]
    const ids = new Set<unknown>()
    for (const [expected, path, options] of requests) {
      const { status, headers } = await gateway.call(path, { ...options, headers: { 'x-request-id': 'chosen' } })
      const id = headers['x-request-id']
      t.equal(status, expected, path)
      t.match(id, /^req_[0-9a-hjkmnp-tv-z]{26}$/)
      t.match(await gateway.line({ request_id: id }), { status_code: status, duration: Number })
      ids.add(id)
    }
    const broken = await raw(gateway.port, 'GET / HTTP/1.1\r\nHost: a\r\nbad\r\n\r\n')
    ids.add(/^x-request-id: (req_\S+)/im.exec(broken.text)?.[1])
    t.equal(ids.size, requests.length + 1)
    t.equal(upstream.seen[0]?.headers['x-request-id'], [...ids][0], 'and the service is told')

    const behind = await startGateway(t, { server: { trusted_proxies: ['loopback'] }, ...document })
    const { headers } = await behind.call('/open', { headers: { 'x-request-id': 'from-the-edge-1' } })
    t.equal(headers['x-request-id'], 'from-the-edge-1', 'a trusted proxy has named it already')
    await behind.line({ request_id: 'from-the-edge-1', path: '/open' })
  }
)

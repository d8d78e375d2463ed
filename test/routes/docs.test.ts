import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openApiTrouble } from '../../src/openapi-lint.ts'
import { ROOT } from '../support/config.ts'
import { onBoth, ownStorage } from '../support/database.ts'
import { startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

type Document = {
  info: object
  tags: { name: string }[]
  paths: Record<string, Record<string, Operation>>
}
type Operation = {
  operationId?: string
  summary?: string
  tags: string[]
  security?: object[]
  requestBody?: object
  responses: Record<string, object>
}

const committed = (): Document => JSON.parse(readFileSync(join(ROOT, 'openapi', 'gateway.json'), 'utf8'))

t.test('C-13 DOC-01 DOC-02 one document, under both paths', async t => {
  const { call } = await startGateway(t, {})
  const answer = await call('/openapi.json')
  t.equal(answer.status, 200)
  t.match(answer.headers['content-type'], /^application\/json/)
  t.equal((await call('/api/openapi.json')).text, answer.text)
  t.strictSame(await openApiTrouble(answer.json), [])
  t.match(answer.json.paths, { '/health': { get: { summary: String } }, '/gateway/reload': { post: {} } })
})

t.test('DOC-03 title, description and version are the configuration’s', async t => {
  const gateway = {
    title: 'Engineering AI Agent API',
    description: 'API for the Engineering AI Agent platform',
    version: '1.0.0'
  }
  const { call, configure, gateway: running } = await startGateway(t, { gateway })
  t.strictSame((await call('/openapi.json')).json.info, gateway)
  t.match((await call('/docs')).text, '<title>Engineering AI Agent API</title>')
  configure({ gateway: { name: 'a <b> & "c"' } })
  await running.reload()
  t.match((await call('/openapi.json')).json.info, { title: 'a <b> & "c"', version: '1.0.0' })
  t.match((await call('/redoc')).text, '<title>a &#60;b&#62; &#38; &#34;c&#34;</title>')
})

t.test('DOC-01 the document says what this gateway has: what is moved or off is so in it', async t => {
  const { call } = await startGateway(t, { paths: { admin: false, gateway: '/_', documentation: ['/internal'] } })
  const { paths } = (await call('/internal/openapi.json')).json
  t.ok('/_/status' in paths)
  t.notOk(Object.keys(paths).some(path => path.startsWith('/admin')))
  t.equal((await call('/internal/docs')).status, 200)
  t.equal((await call('/internal/redoc/')).status, 200)
  for (const path of ['/docs', '/redoc', '/openapi.json', '/api/openapi.json']) t.equal((await call(path)).status, 404)
})

t.test('C-11 documentation that is off leaves its paths to routes, and else takes none from them', async t => {
  const upstream = await startUpstream(t)
  const document = {
    services: { s: { url: upstream.url } },
    routes: [{ path: '/docs/**', service: 's', authentication: 'none' }]
  }
  await t.rejects(startGateway(t, document), {
    message:
      /routes\[0\].path .*is never reached: \/docs\/\*\* is the gateway's own; move that with paths.documentation/
  })
  const { call } = await startGateway(t, { ...document, paths: { documentation: false } })
  t.equal((await call('/docs/x')).json.from, 'a')
  t.equal((await call('/openapi.json')).status, 404)
})

t.test('IDN-07 a user’s password is declared as a way in, at the token URL', async t => {
  const { call } = await startGateway(t, { storage: { database: true } })
  const { components, paths } = (await call('/openapi.json')).json
  t.match(components.securitySchemes.password, {
    type: 'oauth2',
    flows: { password: { tokenUrl: 'token', scopes: {} } }
  })
  t.strictSame(paths['/gateway/status'].get.security, [{ bearer: [] }, { api_key: [] }, { password: [] }])
  t.strictSame(Object.keys(paths['/token'].post.requestBody.content), ['application/x-www-form-urlencoded'])
  const off = await startGateway(t, { identity: { local: false } })
  t.notOk('password' in (await off.call('/openapi.json')).json.components.securitySchemes)
})

t.test('DOC-07 DOC-08 the pages bring all they need, and let nothing else in', async t => {
  const { call } = await startGateway(t, {})
  for (const page of ['/docs', '/docs/', '/api/docs', '/redoc', '/api/redoc']) {
    const { status, headers, text } = await call(page)
    t.equal(status, 200)
    t.match(headers['content-type'], 'text/html; charset=utf-8')
    const policy = String(headers['content-security-policy'])
    t.match(policy, /script-src 'self';/)
    t.match(policy, /frame-ancestors 'self'$/)
    t.notMatch(policy, /upgrade-insecure-requests/)
    t.equal(headers['x-frame-options'], 'SAMEORIGIN')
    t.notMatch(text, /<script[^>]*>[^<]|https?:/, 'no script within the page, nothing from elsewhere')
    const files = [...text.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, url]) => url as string)
    t.not(files.length, 0)
    for (const file of files) {
      const answer = await call(file)
      t.equal(answer.status, 200)
      t.match(answer.headers['content-type'], file.endsWith('.css') ? /^text\/css/ : /^text\/javascript; charset=utf-8/)
      const packed = await call(file, { headers: { 'accept-encoding': 'gzip' } })
      t.equal(packed.headers['content-encoding'], 'gzip')
      t.equal(packed.headers.vary, 'accept-encoding')
      t.ok(
        Number(packed.headers['content-length']) < Number(answer.headers['content-length']) || answer.text.length < 2000
      )
    }
  }
  for (const path of ['/docs/assets/docs.ts', '/docs/assets/..%2fdocs.ts', '/docs/assets/redoc.LICENSE'])
    t.not((await call(path)).status, 200)
})

onBoth(
  t,
  'DOC-01 a registered service has documentation of its own, without its address and its roles',
  async (t, kind) => {
    const { database_url } = await ownStorage(t, kind)
    const { call } = await startGateway(t, { storage: { database: true, ...(database_url ? { database_url } : {}) } })
    const { json, status, text } = await call('/services', {
      method: 'POST',
      token: token({ roles: ['admin'] }),
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        name: 'project-coordinator',
        version: '2.1.0',
        base_url: 'http://192.0.2.10:8080',
        endpoints: [
          { path: '/projects', method: 'GET', name: 'list_projects', description: 'All projects.', public: true },
          { path: '/projects/{project_id}/files/**', method: 'PUT', required_roles: ['secret-role'], deprecated: true }
        ]
      })
    })
    t.equal(status, 201, text)
    const answer = await call(`/docs/${json.id}/openapi.json`)
    t.equal(answer.status, 200)
    t.match(answer.json, {
      info: { title: 'project-coordinator', version: '2.1.0' },
      paths: {
        '/api/v1/projects': { get: { summary: 'list_projects', description: 'All projects.', security: [] } },
        '/api/v1/projects/{project_id}/files/{rest1}': {
          put: { deprecated: true, security: [{ bearer: [] }, { api_key: [] }], responses: { 401: {}, 403: {} } }
        }
      }
    })
    t.notMatch((await openApiTrouble(answer.json)).join(), /no OpenAPI document/)
    t.notMatch(answer.text, /192\.0\.2|secret-role/)
    for (const page of [`/docs/${json.id}`, `/api/docs/${json.id}`])
      t.match((await call(page)).text, `data-document="/docs/${json.id}/openapi.json"`)
    t.equal((await call(`/docs/${crypto.randomUUID()}`)).status, 404)
    t.equal((await call(`/docs/${crypto.randomUUID()}/openapi.json`)).status, 404)
    t.equal((await call('/docs/nothing')).status, 422)
  }
)

t.test('DOC-08 ReDoc is what its package has', async t => {
  const hash = (name: string) =>
    createHash('sha256')
      .update(readFileSync(join(ROOT, 'routes', 'assets', name)))
      .digest('hex')
  t.equal(hash('redoc.standalone.js'), 'dcaf76612bc4a3fbcc923a8966dee2f6146a5f32e5ce1b6f02dd60cbbf89500b')
})

t.test('DOC-01 the committed document is one, and whatever is missing in one is said', async t => {
  t.strictSame(await openApiTrouble(committed()), [])
  const broken = committed()
  const { get: health } = broken.paths['/health'] as { get: Operation }
  health.summary = 'A sentence.'
  health.tags = ['Wealth']
  const { get: ready } = broken.paths['/health/ready'] as { get: Operation }
  delete ready.summary
  ready.operationId = health.operationId as string
  ready.responses = { 200: { description: 'x', content: { 'application/json': {} } } }
  const { post } = broken.paths['/admin/revocations'] as { post: Operation }
  for (const status of ['401', '422', '204']) delete post.responses[status]
  post.requestBody = {
    content: {
      'application/json': {
        example: { a: 1, c: 2 },
        schema: { type: 'object', properties: { a: { type: 'string' } }, additionalProperties: false }
      }
    }
  }
  const { get: limits } = broken.paths['/admin/rate-limits/{consumer}'] as { get: Operation & { parameters: object[] } }
  limits.parameters = [{ in: 'path', name: 'consumer', required: true, schema: { type: 'string' } }]
  t.strictSame(
    (await openApiTrouble(broken)).sort(),
    [
      'GET /health: its summary is no sentence, and has no full stop',
      'GET /health: its heading Wealth is not in TAGS of src/openapi.ts',
      'GET /health/ready: has no summary; if it is not to be shown: schema: { hide: true }',
      'GET /health/ready: its operationId getHealth is taken',
      'GET /health/ready: its answer 200 has no schema',
      'GET /admin/rate-limits/{consumer}: path parameter consumer has no description',
      'POST /admin/revocations: may refuse with 401, and does not say so',
      'POST /admin/revocations: may refuse with 422, and does not say so',
      'POST /admin/revocations: does not say what it answers',
      'POST /admin/revocations: its body: "a" has no description',
      'POST /admin/revocations: the example of its body: a 1 should be a string',
      'POST /admin/revocations: the example of its body: c unknown key, did you mean "a"?'
    ].sort()
  )
  t.match((await openApiTrouble({ openapi: '3.1.0' }))[0], /^it is no OpenAPI document/)
})

t.test('DOC-04 IDN-24 operations refuse as the document says', async t => {
  const { call } = await startGateway(t, {
    storage: { database: true },
    server: { trusted_proxies: ['loopback'] },
    metrics: { allow: [] }
  })
  const { paths } = (await call('/openapi.json')).json as Document
  let asked = 0
  for (const [path, item] of Object.entries(paths))
    for (const [name, { security = [], responses, requestBody }] of Object.entries(item)) {
      const method = name.toUpperCase()
      const url = path.replaceAll(/\{[^}]+\}/g, '7d444840-9dc0-41d2-b16c-1f6f2d5d7d4b')
      const what = `${method} ${path}`
      // Each from an address of its own: one alone would be asking too often.
      const from = { 'x-forwarded-for': `192.0.${++asked}.1` }
      const headers = requestBody === undefined ? from : { ...from, 'content-type': 'application/json' }
      const body = requestBody === undefined ? {} : { body: '{}' }
      const ask = (token?: string) => call(url, { method, headers, ...body, token })
      const mayBeAnybody = security.length === 0 || security.some(way => Object.keys(way).length === 0)
      if (!mayBeAnybody) t.equal((await ask()).status, 401, `${what} without credentials`)
      // What is a user's own asks for no role: it is refused to applications that act for him.
      if ('403' in responses && !/^\/(?:auth|users)\//.test(path))
        t.equal((await ask(token({ roles: ['nobody'], permissions: [] }))).status, 403, `${what} without the role`)
      const { status } = await ask(token({ roles: ['admin'] }))
      t.ok(status in responses, `${what} answered ${status}`)
    }
})

import { randomUUID } from 'node:crypto'
import type { Test } from 'tap'
import t from 'tap'
import { onBoth, ownStorage } from '../support/database.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { boss, deregister, register, replace } from '../support/services.ts'
import { token } from '../support/tokens.ts'
import { startUpstream } from '../support/upstream.ts'

/** A gateway that lets services be on this machine. */
async function start(t: Test, kind: 'sqlite' | 'postgres' = 'sqlite', document: object = {}): Promise<TestGateway> {
  return startGateway(t, { storage: await ownStorage(t, kind), registry: { allow: ['loopback'] }, ...document })
}

onBoth(
  t,
  'REG-01 REG-02 REG-04 REG-09 REG-25 C-33 a service is registered, served, read and deregistered',
  async (t, kind) => {
    const upstream = await startUpstream(t)
    const { call } = await start(t, kind)
    const created = await register(call, {
      name: 'project-coordinator',
      version: '1.0.0',
      base_url: upstream.url,
      health_check_path: '/health',
      endpoints: [
        {
          path: '/projects',
          method: 'GET',
          name: 'list_projects',
          description: 'List all projects',
          public: false,
          required_roles: ['user', 'admin']
        },
        { path: '/projects/{project_id}', method: 'GET', name: 'get_project', public: true }
      ]
    })
    t.equal(created.status, 201)
    const { id } = created.json
    t.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-/)
    t.equal(created.headers.location, `/services/${id}`)
    t.match(created.json, {
      name: 'project-coordinator',
      version: '1.0.0',
      base_url: upstream.url,
      health_check_path: '/health',
      active: true,
      owner: 'user:root',
      endpoints: [
        {
          id: /^[0-9a-f-]{36}$/,
          service_id: id,
          path: '/projects',
          method: 'GET',
          name: 'list_projects',
          description: 'List all projects',
          public: false,
          required_roles: ['user', 'admin'],
          deprecated: false,
          version: '1.0.0',
          created_at: /^\d{4}-\d\d-\d\dT.*Z$/,
          updated_at: /Z$/
        },
        { path: '/projects/{project_id}', public: true, required_roles: [] }
      ],
      created_at: /^\d{4}-\d\d-\d\dT.*Z$/,
      updated_at: /Z$/
    })

    t.equal((await call('/api/v1/projects/7')).json.url, '/projects/7', 'public at once')
    t.equal((await call('/api/v1/projects')).status, 401)
    t.equal((await call('/api/v1/projects', { token: token({ roles: ['guest'] }) })).status, 403)
    t.equal((await call('/api/v1/projects', { token: token({ roles: ['user'] }) })).json.url, '/projects')

    const read = await call(`/services/${id}`, { token: boss })
    t.strictSame([read.status, read.headers.etag], [200, created.headers.etag])
    const { warnings: _, ...service } = created.json
    t.same(read.json, service)
    const { json: endpoints } = await call(`/services/${id}/endpoints`, { token: boss })
    t.same(endpoints, { endpoints: created.json.endpoints })

    t.equal((await deregister(call, id)).status, 204)
    t.equal((await call('/api/v1/projects/7')).status, 404, 'REG-26 gone at once')
    for (const path of [
      `/services/${id}`,
      `/services/${id}/endpoints`,
      `/services/${id}/health`,
      `/services/${randomUUID()}`
    ])
      t.equal((await call(path, { token: boss })).status, 404, path)
    t.equal((await deregister(call, id)).status, 404)
  }
)

t.test('REG-10 a definition says how its instances are called, and is served so', async t => {
  const [one, two] = [await startUpstream(t, undefined, 'one'), await startUpstream(t, undefined, 'two')]
  const { call } = await start(t)
  const definition = {
    name: 'tools',
    description: 'Tools',
    instances: [{ url: one.url }, { url: two.url }],
    load_balancer_type: 'round_robin',
    timeout_config: { connect: '1s' },
    retry_config: { attempts: 2 },
    endpoints: [{ path: '/tools', public: true, name: 'tools' }]
  }
  const { status, json } = await register(call, definition)
  t.equal(status, 201)
  const { endpoints: _, ...rest } = definition
  t.match((await call(`/services/${json.id}`, { token: boss })).json, rest)
  const from = await Promise.all([1, 2, 3, 4].map(async () => (await call('/api/v1/tools')).json.from))
  t.same(from.sort(), ['one', 'one', 'two', 'two'])
  await two.crash()
  for (let i = 0; i < 4; i++) t.equal((await call('/api/v1/tools')).json.from, 'one', 'the other one is tried')
})

t.test('REG-05 REG-06 REG-08 services and routes of files and registry are shown side by side', async t => {
  const upstream = await startUpstream(t)
  const { call } = await start(t, 'sqlite', {
    services: { orders: { url: upstream.url, description: 'Of a file' } },
    routes: [{ id: 'filed', path: '/orders', service: 'orders', hosts: ['a.example.com'], authentication: 'none' }]
  })
  const { json: registered } = await register(call, {
    name: 'tools',
    description: 'Of the API',
    base_url: upstream.url,
    endpoints: [{ path: '/tools', name: 'list', required_roles: ['admin'] }]
  })
  await register(call, { name: 'asleep', base_url: upstream.url, active: false, endpoints: [{ path: '/asleep' }] })
  const { json: all } = await call('/gateway/services', { token: boss })
  t.match(all, {
    data: [
      { name: 'asleep', source: 'registry', active: false, instances: [{ url: upstream.url }] },
      { name: 'orders', source: 'files', id: null, description: 'Of a file', active: true, problem: null },
      { name: 'tools', source: 'registry', id: registered.id, description: 'Of the API', active: true }
    ],
    meta: { pagination: { page: 1, total: 3 } },
    links: { self: '/gateway/services?page=1&per_page=20', next: null }
  })
  t.match((await call('/gateway/services/tools', { token: boss })).json, {
    name: 'tools',
    instances: [{ url: upstream.url, weight: 1, healthy: null, last_health_check: null, response_time_ms: null }],
    load_balancer_type: 'round_robin',
    health_check: { type: 'http', path: '/health' }
  })
  t.equal((await call('/gateway/services/nobody', { token: boss })).status, 404)
  const { json: rules } = await call('/gateway/routing-rules', { token: boss })
  t.match(rules.data, [
    { id: 'filed', path: '/orders', hosts: ['a.example.com'], authentication: 'none', source: /gateway\.yaml:\d+$/ },
    {
      path: '/api/v1/tools',
      methods: ['GET', 'HEAD'],
      service: 'tools',
      endpoint: 'tools.list',
      authentication: 'required',
      required_roles: ['admin'],
      source: 'service "tools" (registered)'
    }
  ])
  t.equal((await call('/gateway/routing-rules?service=orders', { token: boss })).json.data.length, 1)
})

onBoth(t, 'TRF-14 REG-01 what is registered comes in pages, and narrowed', async (t, kind) => {
  const { call } = await start(t, kind)
  for (const [i, tags] of [['old'], ['old', 'slow'], [], [], []].entries())
    await register(call, { name: `s${i}`, base_url: `http://127.0.0.1:${i + 1}`, tags, active: i !== 2 })
  const names = async (query: string): Promise<string[]> =>
    (await call(`/services${query}`, { token: boss })).json.data.map(({ name }: { name: string }) => name)
  t.same(await names(''), ['s0', 's1', 's2', 's3', 's4'])
  t.same(await names('?per_page=2&page=2'), ['s2', 's3'])
  t.same(await names('?name=S3'), ['s3'])
  t.same(await names('?active=false'), ['s2'])
  t.same(await names('?tag=old'), ['s0', 's1'])
  t.same(await names('?tag=old&name=1&owner=user:root'), ['s1'])
  t.same(await names('?owner=user:nobody'), [])
  const { json: page } = await call('/services?per_page=2&active=true', { token: boss })
  t.match(page, {
    meta: { pagination: { page: 1, per_page: 2, total: 4, pages: 2 } },
    links: { next: '/services?per_page=2&active=true&page=2', prev: null }
  })
  t.equal((await call('/services?per_page=1000', { token: boss })).status, 422)
})

t.test(
  'C-11 C-14 C-15 C-16 what does not go with the rest is a 409 that names both sides, and nothing is kept',
  async t => {
    const { call } = await start(t, 'sqlite', {
      services: { orders: { url: 'http://127.0.0.1:1' } },
      routes: [
        { path: '/api/v1/orders', service: 'orders', methods: ['GET', 'POST'] },
        { path: '/api/v1/all/**', service: 'elsewhere', priority: 3 }
      ]
    })
    const tools = { name: 'tools', base_url: 'http://127.0.0.1:2', endpoints: [{ path: '/tools' }] }
    t.equal((await register(call, tools)).status, 201)
    const endpoint = (path: string, more = {}) => ({
      name: 'other',
      base_url: 'http://127.0.0.1:3',
      endpoints: [{ path, ...more }]
    })
    const refused: [object, RegExp][] = [
      [
        endpoint('/orders'),
        /service "other" \(registered\).*matches the same|service "other".*\/api\/v1\/orders at .*gateway\.yaml:\d+/
      ],
      [endpoint('/all/x'), /never reached.*\/api\/v1\/all\/\*\* at .*gateway\.yaml:\d+/],
      [endpoint('/tools'), /service "other" \(registered\) .* of service "tools" \(registered\)/],
      [endpoint('/TOOLS/', { method: 'get' }), /of service "tools" \(registered\)/],
      [endpoint('/metrics/json'), /\/api\/v1\/metrics\/\*\* is the gateway's own.*paths\.api_metrics/],
      [{ ...tools, endpoints: [] }, /The name "tools" is that of the service [0-9a-f-]{36}, which user:root/],
      [{ ...tools, name: 'orders', endpoints: [] }, /name of another service at .*gateway\.yaml:\d+/],
      [{ ...tools, name: 'elsewhere', endpoints: [] }, /name of another service at .*gateway\.yaml:\d+/],
      [
        { ...endpoint('/twice'), endpoints: [{ path: '/twice' }, { path: '/twice/' }] },
        /service "other".*matches the same requests as the route of service "other"/
      ]
    ]
    for (const [body, details] of refused) {
      const { status, json: answer } = await register(call, body)
      t.match({ status, ...answer.error }, { status: 409, code: 'conflict', details }, JSON.stringify(body))
    }
    t.equal((await call('/services', { token: boss })).json.meta.pagination.total, 1)
    const { json: audit } = await call('/admin/audit?target=service:other', { token: boss })
    t.equal(audit.data.length, 0)
    t.equal(
      (await register(call, endpoint('/tools', { method: 'POST' }))).status,
      201,
      'another method is another matter'
    )
  }
)

t.test(
  'C-11 C-15 with catch_all a registered service answers by its name, unless that is the gateway’s own',
  async t => {
    const upstream = await startUpstream(t)
    const { call } = await start(t, 'sqlite', { catch_all: true, defaults: { authentication: 'none' } })
    t.equal((await register(call, { name: 'tools', base_url: upstream.url })).status, 201)
    t.equal((await call('/tools/hammer')).json.url, '/hammer')
    for (const name of ['services', 'Admin', 'health']) {
      const { error } = (await register(call, { name, base_url: upstream.url })).json
      t.match(error, { status: 409, details: /is the gateway's own/ }, name)
    }
  }
)

t.test('ERR-01 a definition that is doubtful is taken, with a word about it', async t => {
  const { call } = await start(t)
  const { status, json: answer } = await register(call, {
    name: 'tools',
    base_url: 'http://127.0.0.1:1',
    endpoints: [{ path: '/tools', required_roles: ['no-such-role'] }]
  })
  t.equal(status, 201)
  t.match(answer.warnings, [/no role "no-such-role"/])
  t.notOk('warnings' in (await call(`/services/${answer.id}`, { token: boss })).json)
  const { json: bare } = await register(call, { name: 'bare', base_url: 'http://127.0.0.1:1' })
  t.same(bare.warnings, ['no route leads to this service'])
})

t.test('ERR-01 a definition that is not right is a 422 with the keys as they were sent', async t => {
  const { call } = await start(t)
  const good = { name: 'a', base_url: 'http://127.0.0.1:1' }
  const bad: [object, string, RegExp][] = [
    [{ base_url: 'http://127.0.0.1:1' }, 'body', /needs the key "name"/],
    [{ name: 'a' }, 'base_url', /is missing, and so are "instances"/],
    [{ ...good, name: 'a/b' }, 'name', /does not look right/],
    [{ ...good, base_url: 'file:///etc/passwd' }, 'base_url', /write http:\/\/host:port/],
    [{ ...good, base_url: 'ftp://127.0.0.1' }, 'base_url', /write http:\/\/host:port/],
    [{ ...good, base_url: 'http://' }, 'base_url', /is no URL/],
    [{ ...good, base_url: 'http://me:secret@127.0.0.1' }, 'base_url', /must not hold credentials/],
    [{ ...good, base_url: 'http://127.0.0.1/#x' }, 'base_url', /query or a fragment/],
    [{ ...good, base_url: 'http://127.0.0.1/?x' }, 'base_url', /query or a fragment/],
    [{ ...good, instances: [{ url: 'http://127.0.0.1:2' }] }, 'base_url', /none of "instances"/],
    [
      { name: 'a', instances: [{ url: 'http://127.0.0.1:2' }, { url: 'http://127.0.0.1:2/#x' }] },
      'instances[1].url',
      /fragment/
    ],
    [
      { name: 'a', instances: [{ url: 'http://127.0.0.1:2' }, { url: 'http://127.0.0.1:2' }] },
      'instances[1].url',
      /twice/
    ],
    [{ ...good, endpoint: [] }, 'endpoint', /did you mean "endpoints"/],
    [{ ...good, endpoints: [{}] }, 'endpoints[0]', /needs the key "path"/],
    [{ ...good, endpoints: [{ path: '/a//b' }] }, 'endpoints[0].path', /empty segment/],
    [{ ...good, endpoints: [{ path: '/a' }, { path: '/b', method: 'GTE' }] }, 'endpoints[1].method', /is no method/],
    [{ ...good, timeout_config: { conect: 3 } }, 'timeout_config.conect', /did you mean "connect"/],
    [{ ...good, retry_config: { attempts: 99 } }, 'retry_config.attempts', /at most 10/],
    [{ ...good, load_balancer_type: 'best' }, 'load_balancer_type', /should be/],
    [{ ...good, tls: { ca: '/etc/passwd' } }, 'tls', /unknown key/]
  ]
  for (const [body, field, message] of bad) {
    const { status, json: answer } = await register(call, body)
    t.match({ status, code: answer.error.code }, { status: 422, code: 'validation_error' }, field)
    t.match(
      answer.error.details,
      new RegExp(`${field === 'body' ? '' : field.replace(/[[\]]/g, '\\$&')}.*${message.source}`)
    )
  }
  t.equal((await call('/services', { token: boss })).json.data.length, 0)
})

onBoth(
  t,
  'REG-02 REG-14 a change needs to know what it changes: 428, 412, and one of many at once',
  async (t, kind) => {
    const [one, two] = [await startUpstream(t, undefined, 'one'), await startUpstream(t, undefined, 'two')]
    const { call } = await start(t, kind)
    const body = { name: 'tools', base_url: one.url, endpoints: [{ path: '/tools', public: true, name: 'list' }] }
    const created = await register(call, body)
    const { id } = created.json
    const { etag } = created.headers
    t.match((await replace(call, id, body, undefined)).json.error, { status: 428, code: 'precondition_required' })
    const stale = await replace(call, id, body, '"0"')
    t.match(stale.json.error, { status: 412, code: 'precondition_failed' })
    t.equal(stale.headers.etag, etag)
    t.equal((await replace(call, id, body, `W/${etag}`)).status, 412, 'RFC 9110 section 13.1.1')
    t.equal((await replace(call, randomUUID(), body, '*')).status, 404)

    const { json: read } = await call(`/services/${id}`, { token: boss })
    const changed = {
      ...read,
      base_url: two.url,
      instances: [{ url: two.url }, { url: one.url, weight: 2 }],
      description: 'Two'
    }
    const answers = await Promise.all([1, 2, 3, 4].map(() => replace(call, id, changed, etag)))
    t.same(answers.map(({ status }) => status).sort(), [200, 412, 412, 412])
    const after = await call(`/services/${id}`, { token: boss })
    t.not(after.headers.etag, etag)
    t.match(after.json, {
      description: 'Two',
      base_url: two.url,
      instances: [{ url: two.url }, { id: read.instances[0].id, url: one.url, weight: 2 }],
      endpoints: [{ id: read.endpoints[0].id, created_at: read.endpoints[0].created_at }],
      created_at: read.created_at
    })
    const from = new Set<string>()
    for (let i = 0; i < 4; i++) from.add((await call('/api/v1/tools')).json.from)
    t.same([...from].sort(), ['one', 'two'], 'its instances take turns')

    const asleep = await replace(call, id, { ...body, active: false }, '*')
    t.match([asleep.status, asleep.json.active], [200, false])
    t.equal((await call('/api/v1/tools')).status, 404)
    t.equal((await replace(call, id, { ...body, name: 'renamed' }, asleep.headers.etag)).status, 200)
    t.equal((await call('/api/v1/tools')).status, 200)
    t.equal((await deregister(call, id, boss, { 'if-match': etag as string })).status, 412)
    t.equal((await deregister(call, id, boss, { 'if-match': '*' })).status, 204)
  }
)

onBoth(t, 'OBS-33 every change is written down with how it was and how it is, by whom', async (t, kind) => {
  const { call } = await start(t, kind)
  const body = { name: 'tools', base_url: 'http://127.0.0.1:1', endpoints: [{ path: '/tools' }] }
  const { json: created } = await register(call, body)
  await replace(call, created.id, { ...body, description: 'New' }, '*')
  await replace(call, created.id, { ...body, endpoints: [{ path: '/metrics/x' }] }, '*')
  await deregister(call, created.id)
  const { json: log } = await call('/admin/audit?target=service:tools', { token: boss })
  t.match(log.data, [
    { action: 'service.delete', actor: 'user:root', before: { description: 'New' }, after: null },
    { action: 'service.update', before: { id: created.id, description: null }, after: { description: 'New' } },
    { action: 'service.create', before: null, after: { id: created.id, endpoints: [{ path: '/tools' }] } }
  ])
  t.equal(log.data.length, 3, 'what was refused has changed nothing')
  t.match(log.data[0], { outcome: 'changed', client_ip: '127.0.0.1', request_id: /./ })
})

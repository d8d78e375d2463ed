// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these are the placeholders of the configuration.
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { loadConfiguration } from '../../../../src/gateway.ts'
import { load, problemsIn, problemsOf } from '../../../support/config.ts'

const SERVICE = 'services: { s: { url: "http://s" } }\n'

t.test('CFG-06 JSON with tabs, YAML with CRLF, with a BOM, and files with nothing in them are read', async t => {
  const texts: [name: string, text: string, services: number][] = [
    ['tabs.json', '{\n\t"services":\t{\n\t\t"s":\t{ "url": "http://s" }\n\t}\n}\n', 1],
    ['crlf.yaml', 'services:\r\n  s:\r\n    url: http://s\r\n', 1],
    ['crlf.txt', '/a/* → one:80\r\n/b/* -> two:80\r\n', 2],
    ['bom.yaml', `\uFEFF${SERVICE}`, 1],
    ['bom.json', '\uFEFF{ "services": { "s": { "url": "http://s" } } }', 1],
    ['empty.yaml', '', 0],
    ['blank.yaml', '\n\n', 0],
    ['comment.yaml', '# nothing\n', 0],
    ['dashes.yaml', '---\n', 0]
  ]
  for (const [name, text, services] of texts) {
    const { snapshot } = await load(t, { [name]: text })
    t.equal(snapshot.services.size, services, name)
    t.equal(snapshot.files.length, 1, `${name} is followed`)
  }
})

t.test('H-120 what is no configuration says where, in one line', async t => {
  const texts: [name: string, text: string, at: [number, number], message: RegExp][] = [
    ['scalar.yaml', 'hello\n', [1, 1], /a mapping of keys to values/],
    ['list.yaml', '- a\n- b\n', [1, 1], /a mapping of keys to values/],
    ['two.yaml', `${SERVICE}---\n${SERVICE}`, [2, 1], /more than one document/],
    ['twice.yaml', `${SERVICE}server: {}\nservices: {}\n`, [3, 1], /stands here twice/],
    ['twice.json', '{ "server": {},\n  "server": {} }', [2, 3], /stands here twice/],
    ['tab.yaml', 'services:\n\ts: {}\n', [2, 1], /tabs are not allowed/],
    ['anchor.yaml', 'server: *nobody\n', [1, 9], /\*nobody refers to nothing above it/],
    ['proto.yaml', 'services: { __proto__: { url: "http://s" } }\n', [1, 13], /is no key/],
    ['binary.yaml', '\u0000\u0001\u0002', [1, 1], /./]
  ]
  for (const [name, text, [line, column], message] of texts) {
    const problems = await problemsOf(t, { [name]: text })
    t.match(problems, [{ file: name, line, column, message }], name)
    t.ok(problems.every(problem => !problem.message.includes('\n')))
  }
})

t.test('H-120 an alias bomb, and what stands within itself, are refused with their place', async t => {
  const bomb = ['x0: &x0 [a, a, a, a, a, a, a, a, a, a]']
  for (let i = 1; i < 12; i++)
    bomb.push(
      `x${i}: &x${i} [${Array(10)
        .fill(`*x${i - 1}`)
        .join(', ')}]`
    )
  const [problem] = await problemsOf(t, { 'bomb.yaml': bomb.join('\n') })
  t.match(problem, { file: 'bomb.yaml', line: Number, message: /comes to more than \d+ values/ })
  t.match(await problemsOf(t, { 'self.yaml': 'services: &a\n  s: *a\n' }), [
    { line: 2, column: 6, key: 'services.s', message: '*a stands within what it refers to' }
  ])
  for (const deep of [100, 100_000])
    t.match(await problemsOf(t, { 'deep.yaml': `a: ${'['.repeat(deep)}${']'.repeat(deep)}` }), [
      { line: 1, message: /nested more than 64 levels deep/ }
    ])
})

t.test('H-120 anchors and merge keys; what stands there itself goes first, wherever it stands', async t => {
  const { snapshot } = await load(t, {
    'gateway.yaml': `
defaults: &slow { timeout: 50s }
services:
  a: &base { url: "http://a", timeout: 10s, retry: 2 }
  b: { <<: *base, url: "http://b" }
  c: { url: "http://c", timeout: 1s, <<: [*slow, *base] }
routes:
  - { path: /a, service: a }
  - { path: /b, service: b }
  - { path: /c, service: c }
`
  })
  t.same(
    snapshot.routes.map(({ timeoutMs, retry, service }) => [service, timeoutMs, retry.attempts]),
    [
      ['a', 10_000, 2],
      ['b', 10_000, 2],
      ['c', 1000, 2]
    ]
  )
  t.equal(snapshot.services.get('b')?.instances[0]?.url, 'http://b')
})

t.test('CFG-10 H-120 variables in values: missing ones are named all at once, and text stays one value', async t => {
  const text = `
server:
  port: "\${PORT_A}"
  host: \${HOST_A:-127.0.0.1}
gateway:
  name: "\${NAME}"
  environment: \${EMPTY:-dev}
identity: { jwt: { secret: "\${SECRET}" } }
services: { s: { url: "http://\${NAME}:80" } }
catch_all: \${FLAG}
`
  const env = { PORT_A: '8181', NAME: 'a: [b', SECRET: '12345678', FLAG: 'true', EMPTY: '' }
  const { snapshot } = await load(t, { 'gateway.yaml': text.replace('http://${NAME}', 'http://s') }, { env })
  t.match(snapshot, {
    server: { port: 8181, host: '127.0.0.1' },
    gateway: { name: 'a: [b', environment: 'dev' },
    identity: { jwt: { secret: '12345678' } }
  })
  t.equal(snapshot.routes[0]?.catchAll, true)
  t.match(await problemsOf(t, { 'gateway.yaml': text }), [
    { line: 3, key: 'server.port', message: /PORT_A is not set; write \$\{PORT_A:-default\}/ },
    { line: 6, key: 'gateway.name', message: /NAME is not set/ },
    { line: 8, key: 'identity.jwt.secret', message: /SECRET is not set/ },
    { line: 9, key: 'services.s.url', message: /NAME is not set/ },
    { line: 10, key: 'catch_all', message: /FLAG is not set/ }
  ])
})

t.test('CFG-06 files include files and folders, relative to themselves; what includes them goes over them', async t => {
  const files = {
    'gateway.yaml': 'include: [base.yaml, conf.d]\ngateway: { name: mine }\n',
    'base.yaml': `include: more/shared.yaml\n${SERVICE}gateway: { name: base, version: "2" }\n`,
    more: { 'shared.yaml': 'gateway: { name: shared, version: "1", environment: staging }\n' },
    'conf.d': {
      '10-a.yaml': 'routes: [{ path: /a, service: s }]\n',
      '20-b.json': '{ "routes": [{ "path": "/b", "service": "s" }] }',
      'README.md': 'not read',
      '30-c.yml': 'routes: [{ path: /c, service: s }]\n'
    }
  }
  const folder = t.testdir(files)
  const sources = { files: [join(folder, 'gateway.yaml'), join(folder, 'base.yaml')], env: {}, overrides: [] }
  const { snapshot, seen } = await loadConfiguration(sources)
  t.match(snapshot.gateway, { name: 'mine', version: '2', environment: 'staging' })
  t.same(
    snapshot.routes.map(({ label }) => label),
    ['/a', '/b', '/c']
  )
  t.ok(seen.has(join(folder, 'conf.d')), 'a file more is a change')
  t.equal(snapshot.files.length, 6, 'what is named twice is read once')
})

t.test('H-120 includes that go round, are not there, or are none', async t => {
  t.match(await problemsOf(t, { 'a.yaml': 'include: b.yaml\n', 'b.yaml': 'server: {}\ninclude:\n  - a.yaml\n' }), [
    {
      file: 'b.yaml',
      line: 3,
      column: 5,
      key: 'include',
      message: /goes round in a circle: .*a\.yaml → .*b\.yaml → .*a\.yaml/
    }
  ])
  t.match(await problemsOf(t, { 'a.yaml': 'include:\n  - nobody.yaml\n  - 7\n  - also-nobody.yaml\n' }), [
    { line: 3, column: 5, message: /should be a file, a folder or a list/ },
    { line: 2, column: 5, message: /nobody\.yaml: no such file/ },
    { line: 4, column: 5, message: /also-nobody\.yaml: no such file/ }
  ])
})

t.test('H-120 files that cannot be read are named, all of them', async t => {
  const folder = t.testdir({ 'secret.yaml': SERVICE, empty: {} })
  chmodSync(join(folder, 'secret.yaml'), 0)
  symlinkSync('round', join(folder, 'round'))
  const files = ['nobody.yaml', 'empty', 'round', 'secret.yaml'].map(name => join(folder, name))
  const problems = await problemsIn(loadConfiguration({ files, env: {}, overrides: [] }))
  const expected = [
    ['nobody.yaml', `no such file in ${folder}`],
    ['empty', 'holds no .yaml, .yml or .json file'],
    ['round', 'ELOOP']
  ]
  // Nothing is unreadable to root.
  if (process.getuid?.() !== 0) expected.push(['secret.yaml', 'not readable by this user'])
  t.same(
    problems.map(({ file, message }) => [file, message]),
    expected
  )
})

t.test('CFG-06 a folder as Kubernetes mounts one: links to links, and folders that begin with dots', async t => {
  const folder = t.testdir({})
  mkdirSync(join(folder, '..2026_01'))
  writeFileSync(join(folder, '..2026_01', 'gateway.yaml'), SERVICE)
  symlinkSync('..2026_01', join(folder, '..data'))
  symlinkSync('..data/gateway.yaml', join(folder, 'gateway.yaml'))
  const { snapshot } = await loadConfiguration({ files: [folder], env: {}, overrides: [] })
  t.same(snapshot.files, [join(folder, 'gateway.yaml')])
  t.equal(snapshot.services.size, 1)
})

t.test('H-120 ten thousand routes, each with a merge key, are read and checked', async t => {
  const lines = ['defaults: &common { timeout: 5s }', 'services: { s: { url: "http://s" } }', 'routes:']
  for (let i = 0; i < 10_000; i++) lines.push(`  - { <<: *common, path: "/r${i}/**", service: s }`)
  const { snapshot } = await load(t, { 'gateway.yaml': lines.join('\n') })
  t.equal(snapshot.routes.length, 10_000)
  t.ok(snapshot.routes.every(({ timeoutMs }) => timeoutMs === 5000))
})

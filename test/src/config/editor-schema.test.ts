import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import { builtInConcerns } from '../../../src/plugins.ts'
import { ROOT, SEEDS } from '../../support/config.ts'
import { editorComplaint, editorSchema as schema } from '../../support/editor.ts'
import { GOOD, TYPOS, withTypo } from '../../support/typos.ts'

t.test('CFG-06 CFG-08 the schema for editors takes every example as it stands', async t => {
  const examples = readdirSync(join(ROOT, 'examples')).filter(name => name.endsWith('.yaml'))
  t.ok(examples.length > 0)
  for (const name of examples)
    t.equal(editorComplaint(parse(readFileSync(join(ROOT, 'examples', name), 'utf8'))), '', name)
  const whole = ['001-routes.yaml', '003-api_gateway_config.yaml', '004-rate-limits.yaml']
  for (const name of whole) t.equal(editorComplaint(parse(readFileSync(join(SEEDS, name), 'utf8'))), '', name)
})

t.test('C-05 C-14 parts of a document that stand in files of their own are as the schema says', async t => {
  const seed = (name: string) => parse(readFileSync(join(SEEDS, name), 'utf8'))
  t.equal(editorComplaint({ rate_limits: seed('000-rate-limits.json') }), '')
  for (const name of ['000-service.json', '002-service.yaml', '002-service-lower-case.yaml']) {
    const { name: service, ...definition } = seed(name)
    t.equal(editorComplaint({ services: { [service]: definition } }), '', name)
  }
})

t.test('C-17 C-18 C-19 CFG-10 other spellings and variables pass; the keys are closed all the same', async t => {
  t.equal(editorComplaint(parse(GOOD)), '')
  t.equal(
    editorComplaint(
      parse(`
$schema: ./sallyport.schema.json
include: [services.yaml]
server: { port: "\${PORT:-8080}" }
defaults: { retry: "\${RETRIES}", timeout: "\${TIMEOUT}", circuit_breaker: { threshold: 5, timeout: 60s } }
services: { s: { base_url: "\${URL}", load_balancer: LEAST_CONNECTIONS, retry_config: { max_retries: 1 } } }
routes: [{ path: /x, method: GET, service: s, websocket: "\${SOCKETS}", timeout_config: { read: 3 } }]`)
    ),
    ''
  )
  t.match(
    editorComplaint({ circuit_breaker: { default: {} } }),
    /router/,
    'seed 003’s breaker stands in seed 003’s document only'
  )
  t.match(editorComplaint({ routes: [{ path: '/x', service: 's', timeout: '20sec' }] }), /routes\/0\/timeout/)
})

/** References, other files, variables and the language itself. */
const ONLY_THE_GATEWAY_SEES = new Set([
  ...[
    'a key twice',
    'a method',
    'a wildcard in the middle',
    'a service',
    'a parameter',
    'a neighbour',
    'a route twice'
  ],
  ...['a reserved path', 'a plugin’s file', 'a variable', 'a variable of an address', 'an indentation', 'a bracket'],
  ...['a plugin’s option', 'a plugin’s value', 'a plugin']
])

t.test('CFG-08 of the slips, an editor shows those that a schema can see', async t => {
  const seen = TYPOS.filter(({ name }) => !ONLY_THE_GATEWAY_SEES.has(name))
  t.equal(seen.length, TYPOS.length - ONLY_THE_GATEWAY_SEES.size)
  for (const typo of seen) t.not(editorComplaint(parse(withTypo(typo))), '', typo.name)
})

t.test('every key of the document says what it is', async t => {
  const silent: string[] = []
  const look = (node: Record<string, unknown>, path: string): void => {
    for (const [key, value] of Object.entries((node.properties ?? {}) as Record<string, Record<string, unknown>>)) {
      if (value.description === undefined && value.$ref === undefined) silent.push(`${path}.${key}`)
      look(value, `${path}.${key}`)
    }
    for (const inner of [node.items, node.additionalProperties, node.anyOf].flat())
      if (typeof inner === 'object' && inner !== null) look(inner as Record<string, unknown>, path)
  }
  look(schema, '')
  for (const [name, block] of Object.entries(schema.$defs as Record<string, Record<string, unknown>>)) {
    if (block.description === undefined) silent.push(name)
    look(block, name)
  }
  t.same(silent, [])
  t.same(
    builtInConcerns().dialect.concerns.filter(name => !(name in schema.$defs)),
    []
  )
})

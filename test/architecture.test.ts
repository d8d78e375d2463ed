import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ROOT } from './support/config.ts'
import { cycleIn, type Import, importsIn, readImports } from './support/imports.ts'

/** What runs when the gateway does, and what is only run to develop it. */
const PRODUCT = ['src', 'plugins', 'routes']
const TOOLS = new Set(['src/generate.ts', 'src/openapi-lint.ts'])
const all = readImports(ROOT, [...PRODUCT, 'examples', 'test', 'bench'])

/** `src/commands` is the command line, and with `src/*.ts` the frame; the other folders of `src` are rooms. */
const isRoom = (file: string): boolean => /^src\/(?!commands\/)[^/]+\//.test(file)
const isFastify = (name: string): boolean => /^(fastify|@fastify\/)/.test(name)
const folderOf = (file: string): string => file.split('/')[0] as string

/** Files of the frame that know nothing of Fastify, so that rooms may read them. */
const PLAIN = new Set(['src/errors.ts', 'src/schema.ts'])

/** What routes have in common. */
const SHARED_BY_ROUTES = new Set([
  'routes/guard.ts',
  'routes/operation.ts',
  'routes/listing.ts',
  'routes/preconditions.ts',
  'routes/service-health.ts',
  'routes/breaker-details.ts'
])

interface Rule {
  readonly name: string
  readonly from: (file: string) => boolean
  readonly never: (to: string, by: Import) => boolean
}

const inFolder = (folder: string) => (file: string) => file.startsWith(`${folder}/`)

const rules: readonly Rule[] = [
  { name: 'rooms never import Fastify, not even its types', from: isRoom, never: isFastify },
  {
    name: 'rooms never import plugins, routes or the frame',
    from: isRoom,
    never: to => /^(plugins|routes)\/|^src\/commands\/|^src\/[^/]+\.ts$/.test(to) && !PLAIN.has(to)
  },
  {
    name: 'the frame’s plain files import no Fastify and nothing of the frame',
    from: file => PLAIN.has(file),
    never: to => isFastify(to) || (folderOf(to) === 'src' && !PLAIN.has(to))
  },
  { name: 'plugins never import routes', from: inFolder('plugins'), never: inFolder('routes') },
  { name: 'routes never import plugins', from: inFolder('routes'), never: inFolder('plugins') },
  {
    name: 'a plugin never imports another; only the order knows them all',
    from: file => inFolder('plugins')(file) && file !== 'plugins/index.ts',
    never: inFolder('plugins')
  },
  {
    name: 'routes never import each other, but for what registers, guards and describes them',
    from: file => inFolder('routes')(file) && file !== 'routes/index.ts',
    never: (to, { typeOnly }) =>
      inFolder('routes')(to) && !SHARED_BY_ROUTES.has(to) && !(typeOnly && to === 'routes/index.ts')
  },
  {
    name: 'the product never imports tests, measurements or, but for the quickstart’s samples, examples',
    from: file => PRODUCT.includes(folderOf(file)),
    never: (to, { from }) =>
      ['test', 'bench'].includes(folderOf(to)) ||
      (folderOf(to) === 'examples' && !(to === 'examples/backends.ts' && from === 'src/commands/start.ts'))
  },
  {
    name: 'examples are written as third parties would: against what the package exports',
    from: inFolder('examples/plugins'),
    never: to => /^(src|plugins|routes|test|bench)\//.test(to)
  },
  {
    name: 'measurements never import tests, and tests never measurements; the chaos run is something of both',
    from: file => ['test', 'bench'].includes(folderOf(file)),
    never: (to, { from }) =>
      folderOf(to) === (folderOf(from) === 'test' ? 'bench' : 'test') &&
      !(inFolder('bench/chaos')(from) && inFolder('test/support')(to)) &&
      !(inFolder('test/bench')(from) && inFolder('bench/chaos')(to))
  }
]

for (const { name, from, never } of rules) {
  t.test(name, async t => {
    const subject = all.filter(entry => from(entry.from))
    t.not(subject.length, 0, 'the rule is about something')
    t.strictSame(
      subject.filter(entry => never(entry.to, entry)).map(entry => `${entry.from} → ${entry.to}`),
      []
    )
  })
}

t.test('no file imports itself by way of others', async t => {
  const lasting = all.filter(({ typeOnly, late }) => !typeOnly && !late)
  t.equal(cycleIn(lasting)?.join(' → '), undefined)
  t.strictSame(
    cycleIn([...importsIn('a/a.ts', "import '../b.ts'"), ...importsIn('b.ts', "export * from './a/a.ts'")]),
    ['a/a.ts', 'b.ts', 'a/a.ts']
  )
})

/** Libraries that take long to load, for what not every gateway does. */
const HEAVY = /^(?:kysely|pg|ioredis|oidc-provider|openid-client|fastify-metrics|@fastify\/swagger)(?:\/|$)/

t.test('a start loads no heavy library that its configuration may not need', async t => {
  const atOnce = Map.groupBy(
    all.filter(({ typeOnly, late }) => !typeOnly && !late),
    ({ from }) => from
  )
  const reached = new Set(['src/commands/start.ts'])
  for (const file of reached) for (const { to } of atOnce.get(file) ?? []) reached.add(to)
  t.ok(reached.has('routes/auth.ts'))
  t.strictSame(
    [...reached].filter(name => HEAVY.test(name)),
    []
  )
})

t.test('the product runs on the packages that it says it depends on', async t => {
  const { dependencies, optionalDependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  const packageOf = (name: string): string =>
    name
      .split('/')
      .slice(0, name.startsWith('@') ? 2 : 1)
      .join('/')
  const used = all
    .filter(entry => PRODUCT.includes(folderOf(entry.from)) && !TOOLS.has(entry.from))
    .filter(({ to }) => !to.startsWith('node:') && !/\.(ts|mjs)$/.test(to))
    .map(({ to }) => packageOf(to))
  t.not(used.length, 0)
  t.strictSame(
    [...new Set(used)].filter(name => !Object.hasOwn({ ...dependencies, ...optionalDependencies }, name)),
    []
  )
})

t.test('all forms of imports are seen', async t => {
  const text = [
    "import a from './a.ts'",
    "import * as b from '../b.ts'",
    "import c, { d } from './c.ts'",
    "import type { E } from './e.ts'",
    "import {\n  f,\n  type G\n} from './f.ts'",
    "import './h.ts'",
    "export * from './i.ts'",
    "export { j } from './j.ts'",
    "  const { k } = await import('./k.ts')",
    "type L = typeof import('./l.ts')",
    "import net from 'node:net'",
    " * import m from './in-a-comment.ts'",
    "export const n = 'from'"
  ].join('\n')
  const seen = importsIn('src/x/y.ts', text)
  t.strictSame(
    seen.map(({ to }) => to).sort(),
    [...['a', 'c', 'e', 'f', 'h', 'i', 'j', 'k', 'l'].map(name => `src/x/${name}.ts`), 'src/b.ts', 'node:net'].sort()
  )
  t.strictSame(
    seen.filter(({ typeOnly }) => typeOnly).map(({ to }) => to),
    ['src/x/e.ts', 'src/x/l.ts']
  )
  t.strictSame(
    seen.filter(({ late }) => late).map(({ to }) => to),
    ['src/x/k.ts', 'src/x/l.ts']
  )
})

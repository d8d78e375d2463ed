import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import Fastify from 'fastify'
import { order } from '../plugins/index.ts'
import ownRoutes from '../routes/index.ts'
import { VERSION } from './cli.ts'
import { editorSchema } from './config/editor-schema.ts'
import { createSnapshot } from './config/normalise.ts'
import { optionTable, UnknownOption } from './config/option-table.ts'
import { VARIABLES } from './config/sources/env.ts'
import { CATALOGUE } from './errors.ts'
import { NO_CONTROL } from './gateway.ts'
import { collectRoutes, openApiOf } from './openapi.ts'
import { openApiTrouble } from './openapi-lint.ts'
import { dialectOf } from './plugins.ts'
import { Runtime } from './runtime/runtime.ts'
import { createLog } from './telemetry/log.ts'

/**
 * What is made from the schemas and committed: the JSON Schema for editors, the tables of options in docs/, the OpenAPI document
 * of the gateway's own endpoints. `npm run generate` writes them; `npm run drift` (`--check`) says which are not what they
 * should be, and which promises of the documentation are not kept.
 */
const ROOT = join(import.meta.dirname, '..')
const OPENAPI = join('openapi', 'gateway.json')
const MARKED = /(<!-- options: ([\w ]+?) -->)[\s\S]*?(<!-- \/options -->)/g

/** Options of third parties' plugins may be anything here: nobody knows which there will be. */
const { schema, concerns } = dialectOf(order, [], true)

/** Every generated file by its path below `root`, as it should be. */
export async function generate(root = ROOT): Promise<Map<string, string>> {
  const files = new Map<string, string>()
  files.set('sallyport.schema.json', inLines(editorSchema(schema)))
  files.set(OPENAPI, inLines(await openApi()))
  for (const page of pagesOf(root)) {
    const text = readFileSync(join(root, page), 'utf8')
    if (text.search(MARKED) !== -1) files.set(page, withTables(text, page))
  }
  return files
}

function inLines(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`
}

function pagesOf(root: string): string[] {
  const pages = readdirSync(join(root, 'docs')).filter(name => name.endsWith('.md'))
  return ['README.md', ...pages.map(name => join('docs', name))]
}

function withTables(text: string, page: string): string {
  return text.replace(MARKED, (_, start: string, names: string, end: string) => {
    try {
      return `${start}\n${optionTable(schema, names.split(' '))}\n${end}`
    } catch (error) {
      if (!(error instanceof UnknownOption)) throw error
      throw new Error(`${page}: "options: ${names}": there is no key and no concern "${error.message}"`)
    }
  })
}

/** The gateway's own endpoints, with everything switched on that there is. */
async function openApi(): Promise<object> {
  const snapshot = await createSnapshot(
    { document: EVERYTHING, files: [], seen: new Map(), problems: [] },
    { schema, concerns }
  )
  const runtime = new Runtime({ log: await createLog({ ...snapshot.logging, level: 'silent', format: 'json' }) })
  const app = Fastify()
  const routes = collectRoutes(app)
  await app.register(ownRoutes, { snapshot, runtime, control: NO_CONTROL })
  await app.ready()
  await app.close()
  await runtime.close()
  return openApiOf(routes, snapshot.gateway)
}

/** Settings that bring endpoints along which are not there by themselves. */
const EVERYTHING = {
  paths: { batch: '/batch' },
  identity: {
    oauth: { issuer: 'https://gateway.example.com/oauth' },
    providers: [
      {
        name: 'corp',
        issuer: 'https://idp.example.com',
        client_id: 'gateway',
        redirect_uri: 'https://gateway.example.com/auth/external/corp/callback'
      }
    ]
  }
}

const PACKAGE = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }

/** What is not as it should be, a sentence each; nothing when all is well. */
export async function findDrift(root = ROOT): Promise<string[]> {
  const files = await generate(root)
  const stale = [...files].flatMap(([file, wanted]) =>
    textOf(join(root, file)) === wanted ? [] : [`${file} is not what "npm run generate" makes`]
  )
  const version =
    PACKAGE.version === VERSION ? [] : [`src/cli.ts says version ${VERSION}, package.json ${PACKAGE.version}`]
  return [
    ...version,
    ...stale,
    ...missingTables(root),
    ...brokenLinks(root),
    ...unnamedVariables(root),
    ...unnamedErrors(root),
    ...unnamedEndpoints(root, files.get(OPENAPI) as string),
    ...(await openApiTrouble(JSON.parse(files.get(OPENAPI) as string)))
  ]
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

/** Keys and concerns whose options stand nowhere in the documentation. */
function missingTables(root: string): string[] {
  const shown = new Set(
    pagesOf(root).flatMap(page =>
      [...readFileSync(join(root, page), 'utf8').matchAll(MARKED)].flatMap(match => match[2]?.split(' ') ?? [])
    )
  )
  const { properties } = schema as unknown as { properties: Record<string, object> }
  const blocks = Object.keys(properties).filter(key =>
    ['properties', 'patternProperties', 'items'].some(word => word in (properties[key] as object))
  )
  return [...blocks, ...concerns].flatMap(name =>
    shown.has(name)
      ? []
      : [`docs/ has no table of the options of "${name}": <!-- options: ${name} --><!-- /options -->`]
  )
}

/** Links to files that are not there. */
function brokenLinks(root: string): string[] {
  return pagesOf(root).flatMap(page =>
    [...readFileSync(join(root, page), 'utf8').matchAll(/\]\((?!https?:|#|mailto:)([^)\s#]+)/g)].flatMap(
      ([, link = '']) =>
        textOf(resolve(root, dirname(page), link)) === undefined ? [`${page} links to ${link}, which is not there`] : []
    )
  )
}

function unnamedVariables(root: string): string[] {
  const example = textOf(join(root, '.env.example')) ?? ''
  return VARIABLES.flatMap(([name]) =>
    new RegExp(`^#?${name}=`, 'm').test(example) ? [] : [`.env.example does not name ${name}`]
  )
}

function unnamedErrors(root: string): string[] {
  const page = textOf(join(root, 'docs', 'errors.md')) ?? ''
  return Object.entries(CATALOGUE).flatMap(([code, { status }]) =>
    page.includes(`| \`${code}\` | ${status} |`) ? [] : [`docs/errors.md does not explain ${code} (${status})`]
  )
}

/** Endpoints of ours that no page of docs/ names. */
function unnamedEndpoints(root: string, openApi: string): string[] {
  const text = pagesOf(root)
    .filter(page => page.startsWith('docs'))
    .map(page => readFileSync(join(root, page), 'utf8'))
    .join('\n')
  const { paths } = JSON.parse(openApi) as { paths: Record<string, Record<string, unknown>> }
  const named = (path: string, method: string): boolean =>
    text.includes(`\`${method} ${path}\``) || (method === 'GET' && text.includes(`, \`${path}\``))
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods)
      .map(method => method.toUpperCase())
      .filter(method => !named(path, method))
      .map(method => `No page of docs/ names ${method} ${path}`)
  )
}

if (import.meta.main) {
  const check = process.argv.includes('--check')
  const drift = check ? await findDrift() : []
  for (const sentence of drift) process.stderr.write(`${sentence}\n`)
  if (!check)
    for (const [file, text] of await generate()) {
      if (textOf(join(ROOT, file)) === text) continue
      writeFileSync(join(ROOT, file), text)
      process.stdout.write(`${file}\n`)
    }
  process.exitCode = drift.length === 0 ? 0 : 1
}

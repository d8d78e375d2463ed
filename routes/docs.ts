import { readFile } from 'node:fs/promises'
import { dirname, extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { FastifyPluginAsync, FastifyReply } from 'fastify'
import { refuse } from '../src/errors.ts'
import { type DescribedRoute, openApiOf, openApiOfService } from '../src/openapi.ts'
import type { RegisteredService } from '../src/registry/service.ts'
import { Type } from '../src/schema.ts'
import { guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { operation } from './operation.ts'

/** A page that shows the document: what it is called, and its files in the order in which it needs them. */
interface Page {
  readonly name: 'docs' | 'redoc'
  readonly summary: string
  readonly files: readonly string[]
}

const PAGES: readonly Page[] = [
  {
    name: 'docs',
    summary: 'These operations as Swagger UI shows them, to be tried out',
    files: ['swagger-ui.css', 'swagger-ui-bundle.js', 'swagger.js']
  },
  {
    name: 'redoc',
    summary: 'These operations as ReDoc shows them, to be read',
    files: ['redoc.standalone.js', 'redoc.js']
  }
]

/**
 * Scripts come out of our own files, nothing comes from elsewhere, and only our own pages may frame these (DOC-07, DOC-08). ReDoc
 * writes its styles into the page, and searches in a worker that it makes itself. Helmet's `upgrade-insecure-requests` would
 * have a page that was read over plain HTTP ask for its files over HTTPS.
 */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self' data:",
  "connect-src 'self'",
  'worker-src blob:',
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'self'"
].join('; ')

const TYPES: Record<string, string> = { '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8' }
const HTML = 'text/html; charset=utf-8'
const compress = promisify(gzip)

const DOCUMENT = {
  tag: 'Documentation',
  access: 'anyone',
  answers: { 200: Type.Unknown({ description: 'The document.', examples: [{ openapi: '3.1.0' }] }) }
} as const
const PAGE = {
  tag: 'Documentation',
  access: 'anyone',
  produces: 'text/html',
  answers: { 200: Type.String({ description: 'The page.', examples: ['<!doctype html>…'] }) }
} as const
const SERVICE = Type.Object({ service_id: Type.String({ description: 'Id of the service.', format: 'uuid' }) })

interface OneService {
  Params: { service_id: string }
}

export interface DocsOptions extends OwnRoutesOptions {
  /** What there is to describe; complete once the app is ready. */
  readonly routes: readonly DescribedRoute[]
}

/** The gateway's own endpoints described: for programs, and as pages for people (DOC-01 to DOC-04, DOC-07, DOC-08). Open to all. */
const docs: FastifyPluginAsync<DocsOptions> = async (app, { snapshot, runtime, control, routes }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })
  const bases = (snapshot.paths.documentation || []).map(prefix => prefix.replace(/\/$/, ''))
  const [first = ''] = bases

  let document: Promise<string> | undefined
  const describe = (): Promise<string> => {
    document ??= openApiOf(routes, snapshot.gateway).then(document => JSON.stringify(document))
    return document
  }
  for (const base of bases) {
    const asks = operation({ ...DOCUMENT, summary: 'These operations as an OpenAPI 3.1 document' })
    app.get(`${base}/openapi.json`, { ...asks }, async (_request, reply) =>
      reply
        .header('cache-control', 'no-cache')
        .type('application/json; charset=utf-8')
        .send(await describe())
    )
  }

  const { title = snapshot.gateway.name } = snapshot.gateway
  for (const page of PAGES) {
    const html = htmlOf(page, title, first, `${first}/openapi.json`)
    const send = async (_request: unknown, reply: FastifyReply): Promise<FastifyReply> => sendPage(reply, html)
    const asks = operation({ ...PAGE, summary: page.summary })
    for (const base of bases) {
      app.get(`${base}/${page.name}`, { ...asks }, send)
      app.get(`${base}/${page.name}/`, { schema: { hide: true } }, send)
    }
  }

  if (snapshot.storage.database) {
    const find = async (id: string): Promise<RegisteredService> => {
      const found = (await control.registry?.services())?.find(service => service.id === id && service.active)
      if (found === undefined) throw refuse('not_found')
      return found
    }
    for (const base of bases) {
      const asks = { ...PAGE, summary: 'The endpoints of a registered service, to be tried out', params: SERVICE }
      app.get<OneService>(`${base}/docs/:service_id`, operation(asks), async ({ params }, reply) => {
        const { id, name } = await find(params.service_id)
        return sendPage(reply, htmlOf(PAGES[0] as Page, name, first, `${first}/docs/${id}/openapi.json`))
      })
    }
    const asks = {
      ...DOCUMENT,
      summary: 'The endpoints of a registered service, as an OpenAPI 3.1 document',
      params: SERVICE
    }
    app.get<OneService>(`${first}/docs/:service_id/openapi.json`, operation(asks), async ({ params }, reply) =>
      reply.header('cache-control', 'no-cache').send(openApiOfService(await find(params.service_id)))
    )
  }

  const assets = new Map<string, Promise<Asset>>()
  const known = new Set(PAGES.flatMap(({ files }) => files))
  app.get<{ Params: { file: string } }>(
    `${first}/docs/assets/:file`,
    { schema: { hide: true } },
    async ({ params: { file }, headers }, reply) => {
      if (!known.has(file)) throw refuse('not_found')
      const found = assets.get(file) ?? readAsset(file)
      assets.set(file, found)
      const { plain, packed } = await found
      reply.header('cache-control', 'public, max-age=3600').header('vary', 'accept-encoding')
      reply.type(TYPES[extname(file)] as string)
      if (!/\bgzip\b/.test(headers['accept-encoding'] ?? '')) return reply.send(plain)
      return reply.header('content-encoding', 'gzip').send(packed)
    }
  )
}

interface Asset {
  readonly plain: Buffer
  readonly packed: Buffer
}

async function readAsset(file: string): Promise<Asset> {
  const swaggerUi = dirname(fileURLToPath(import.meta.resolve('@fastify/swagger-ui')))
  const folder = file.startsWith('swagger-ui') ? join(swaggerUi, 'static') : join(import.meta.dirname, 'assets')
  const plain = await readFile(join(folder, file))
  return { plain, packed: await compress(plain) }
}

function sendPage(reply: FastifyReply, html: string): FastifyReply {
  return reply.header('content-security-policy', POLICY).header('cache-control', 'no-cache').type(HTML).send(html)
}

function htmlOf({ files }: Page, title: string, base: string, document: string): string {
  const links = files.map(file => {
    const url = escaped(`${base}/docs/assets/${file}`)
    return file.endsWith('.css') ? `<link rel="stylesheet" href="${url}">` : `<script src="${url}" defer></script>`
  })
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
<link rel="icon" href="data:,">
${links.join('\n')}
</head>
<body><div id="docs" data-document="${escaped(document)}"></div></body>
</html>
`
}

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, character => `&#${character.charCodeAt(0)};`)
}

export default docs

import type { FastifyRequest } from 'fastify'
import { refuse } from '../src/errors.ts'
import type { TObject, TSchema } from '../src/schema.ts'
import { Type } from '../src/schema.ts'

/** Most entries of one page. */
const MOST = 100
/** The last page that can be asked for: beyond it databases count no further. */
const LAST = 1_000_000_000

/** The query parameters of every list. */
export const pageQuery = {
  page: Type.Integer({ description: 'Which page, from 1.', default: 1, minimum: 1, maximum: LAST }),
  per_page: Type.Integer({ description: 'Entries of a page.', default: 20, minimum: 1, maximum: MOST })
}

export interface Page {
  readonly page: number
  readonly per_page: number
}

const time = (description: string) => Type.Optional(Type.String({ description, format: 'date-time' }))

/** The query parameters of whatever is about a stretch of time. */
export const timeQuery = {
  from: time('From when on, RFC 3339.'),
  to: time('Until when, RFC 3339; what is at that very time is not included.')
}

/** A word to filter by, as it stands in the answers. */
export const filterWord = (description: string) =>
  Type.Optional(Type.String({ description, minLength: 1, maxLength: 256, pattern: '^\\P{Cc}*$' }))

/** The times of {@link timeQuery} in milliseconds since 1970. @throws {GatewayError} 422 for what is no time, or goes backwards */
export function readTimes({ from, to }: { from?: string | undefined; to?: string | undefined }): {
  from: number | undefined
  to: number | undefined
} {
  const times = { from: readTime('from', from), to: readTime('to', to) }
  if (times.from !== undefined && times.to !== undefined && times.from >= times.to)
    throw invalid('to', 'must be later than "from"')
  return times
}

function readTime(field: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const time = Date.parse(text)
  if (Number.isNaN(time)) throw invalid(field, `${JSON.stringify(text)} is no day that there is`)
  return time
}

/** The refusal of a query parameter. */
export function invalid(field: string, message: string): Error {
  return refuse('validation_error', {
    details: `${field} ${message}`,
    fields: [{ field, message, type: 'schema' }]
  })
}

/** `limit` and `offset` of a page. */
export function rangeOf({ page, per_page }: Page): { limit: number; offset: number } {
  return { limit: per_page, offset: (page - 1) * per_page }
}

/** Schema of a list of `items` in the envelope of TRF-14. */
export function listOf(items: TSchema): TObject {
  const number = (description: string, example: number) => Type.Integer({ description, examples: [example] })
  const link = (description: string) => Type.Union([Type.String(), Type.Null()], { description, examples: [null] })
  const pagination = {
    page: number('Which page this is, from 1.', 1),
    per_page: number('Entries of a page.', 20),
    total: number('Entries of all pages.', 1),
    pages: number('How many pages there are.', 1)
  }
  const meta = {
    version: Type.String({ description: 'Of the API, as `gateway.version` says.', examples: ['1.0.0'] }),
    timestamp: Type.String({ description: 'When this was answered.', format: 'date-time' }),
    pagination: Type.Object(pagination, { description: 'Where in the list this is.' })
  }
  const links = {
    self: link('This page.'),
    next: link('The page after it, if there is one.'),
    prev: link('The page before it, if there is one.'),
    first: link('The first page.'),
    last: link('The last page.')
  }
  return Type.Object({
    data: Type.Array(items, { description: 'The entries of this page.' }),
    meta: Type.Object(meta, { description: 'About the answer.' }),
    links: Type.Object(links, { description: 'Other pages, with the same filters.' })
  }) as unknown as TObject
}

/**
 * A page of a list in the envelope of TRF-14; links keep the query's filters.
 * @param version of the API, as `gateway.version` says
 */
export function listing(
  request: Pick<FastifyRequest, 'url'>,
  { page, per_page }: Page,
  { data, total }: { data: readonly unknown[]; total: number },
  { version, now }: { version: string; now: number }
) {
  const pages = Math.max(1, Math.ceil(total / per_page))
  const [path = '', query = ''] = request.url.split('?', 2)
  const link = (number: number): string => {
    const parameters = new URLSearchParams(query)
    parameters.set('page', String(number))
    parameters.set('per_page', String(per_page))
    return `${path}?${parameters}`
  }
  return {
    data,
    meta: { version, timestamp: new Date(now).toISOString(), pagination: { page, per_page, total, pages } },
    links: {
      self: link(page),
      next: page < pages ? link(page + 1) : null,
      prev: page > 1 ? link(Math.min(page - 1, pages)) : null,
      first: link(1),
      last: link(pages)
    }
  }
}

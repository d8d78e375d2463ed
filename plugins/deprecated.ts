import { refuse } from '../src/errors.ts'
import { definePolicy, OptionError } from '../src/policy.ts'
import type { Exchange } from '../src/proxy/exchange.ts'
import { HeaderBlock } from '../src/proxy/headers.ts'
import { withSegment } from '../src/releases/versions.ts'
import { Type } from '../src/schema.ts'

/** Callers that are told apart in the metric of one route; the others are counted together (H-126). */
const MOST_CALLERS = 100

const date = (description: string) => Type.Optional(Type.String({ description, pattern: '^\\d{4}-\\d\\d-\\d\\d' }))

/** Tells callers that something is going to be taken away, and counts who calls it still (VER-06). */
export default definePolicy({
  name: 'deprecated',
  schema: Type.Union(
    [
      Type.Literal(true),
      Type.String({ pattern: '^\\d{4}-\\d\\d-\\d\\d' }),
      Type.Object({
        since: date('Since when, as `2026-01-31` or with a time; a long time ago if not given.'),
        sunset: date('When it is going to be taken away.'),
        successor: Type.Optional(
          Type.String({ description: 'Path or URL of what to use instead.', pattern: '^(/|https?://)' })
        ),
        documentation: Type.Optional(
          Type.String({ description: 'Path or URL of a page about it.', pattern: '^(/|https?://)' })
        ),
        gone: Type.Boolean({ description: 'Whether it answers 410 from its sunset on.', default: false })
      })
    ],
    { description: 'That it should not be used any more: `true`, since when, or more about it.' }
  ),
  compile(options, { route, runtime }) {
    const {
      since,
      sunset,
      successor,
      documentation,
      gone = false
    } = (typeof options === 'string' ? { since: options } : options === true ? {} : options) as Deprecation
    const [from, end] = [timeOf(since, 'since') ?? 0, timeOf(sunset, 'sunset')]
    if (end !== undefined && end < from) throw new OptionError('"sunset" is before "since"')
    if (gone && end === undefined) throw new OptionError('"gone" needs "sunset": when it is')
    const fields = ['deprecation', `@${Math.floor(from / 1000)}`]
    if (end !== undefined) fields.push('sunset', new Date(end).toUTCString())
    if (documentation !== undefined) fields.push('link', `<${documentation}>; rel="deprecation"; type="text/html"`)
    if (successor !== undefined) fields.push('link', `<${successor}>; rel="successor-version"`)
    const block = new HeaderBlock(fields)
    const linkOf = successor === undefined ? compileSuccessor(route) : undefined
    const refusal = refuse('gone', { reason: 'sunset', details: `It was taken away at ${fields[3]}.` })
    const { clock, metrics } = runtime
    const count = metrics.deprecatedRequests.of(route?.label ?? '', MOST_CALLERS)

    return {
      onRequest({ exchange }, _reply, done) {
        exchange.blocks.push(block)
        if (linkOf !== undefined) exchange.fields.push('link', linkOf(exchange))
        if (gone && clock.now() >= (end as number)) return done(refusal)
        done()
      },
      // By now it is known who calls.
      preHandler({ exchange }, _reply, done) {
        count(exchange.consumer?.key ?? 'anonymous')
        done()
      }
    }
  }
})

interface Deprecation {
  readonly since?: string
  readonly sunset?: string
  readonly successor?: string
  readonly documentation?: string
  readonly gone?: boolean
}

/** Milliseconds since 1970. A day begins with it in UTC. */
function timeOf(text: string | undefined, key: string): number | undefined {
  if (text === undefined) return undefined
  const time = Date.parse(text)
  if (Number.isNaN(time)) throw new OptionError(`"${key}": "${text}" is no date; write 2026-01-31`)
  return time
}

/** The link to the same path in the version that comes next; undefined where no version's path does. */
function compileSuccessor(
  route: { successor?: { at: number; text: string; replaces: boolean } | undefined } | undefined
): ((exchange: Exchange) => string) | undefined {
  const next = route?.successor
  if (next === undefined) return undefined
  return ({ path }) => {
    const target = next.replaces
      ? path
          .split('/')
          .with(next.at + 1, next.text)
          .join('/')
      : withSegment(path, next)
    return `<${target}>; rel="successor-version"`
  }
}

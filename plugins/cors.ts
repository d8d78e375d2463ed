import { definePolicy, OptionError } from '../src/policy.ts'
import { HeaderBlock, OWNS, setFields } from '../src/proxy/headers.ts'
import { duration, Type } from '../src/schema.ts'

/** A method or the name of a header field (RFC 9110 section 5.6.2). */
const token = Type.String({ pattern: "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$" })

/**
 * Cross-origin requests (Fetch standard, section 3.2), answered as `@fastify/cors` does, byte for byte, but from constants.
 * Preflights are answered here, before anybody asks for credentials.
 */
export default definePolicy({
  name: 'cors',
  schema: Type.Object(
    {
      origins: Type.Array(Type.String({ minLength: 1 }), {
        description: 'Origins, exactly, or `*` for any.',
        default: []
      }),
      methods: Type.Array(token, {
        description: 'Methods a page may use.',
        default: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']
      }),
      allowed_headers: Type.Optional(
        Type.Array(token, { description: 'Request fields a page may set; those it asks for if not given.' })
      ),
      exposed_headers: Type.Array(token, { description: 'Response fields a page may read.', default: [] }),
      credentials: Type.Boolean({
        description: 'Whether a page may send cookies and credentials along.',
        default: false
      }),
      max_age: Type.Optional(duration({ description: 'How long browsers remember the answer to a preflight.' }))
    },
    { description: 'Which web pages may call.' }
  ),
  compile(options) {
    const any = options.origins.includes('*')
    if (any && options.credentials)
      throw new OptionError('any origin ("*") with credentials: every page on the web could act as its visitor')
    for (const origin of options.origins) {
      if (origin !== '*' && origin !== 'null' && !isOrigin(origin))
        throw new OptionError(
          `"${origin}" is no origin: write https://app.example.com, in lower case, without a path or the usual port`
        )
    }
    const constant = [
      ...(options.credentials ? ['access-control-allow-credentials', 'true'] : []),
      ...(options.exposed_headers.length > 0
        ? ['access-control-expose-headers', options.exposed_headers.join(', ')]
        : [])
    ]
    const anyOrigin = new HeaderBlock(['access-control-allow-origin', '*', ...constant])
    const noOrigin = new HeaderBlock(['vary', 'Origin', ...constant])
    const byOrigin = new Map(
      options.origins.map(origin => [
        origin,
        new HeaderBlock(['vary', 'Origin', 'access-control-allow-origin', origin, ...constant])
      ])
    )
    const preflight = preflightFields(options)

    return {
      onRequest(request, reply, done) {
        const { exchange } = request
        exchange.owns |= OWNS.CORS
        exchange.blocks.push(any ? anyOrigin : (byOrigin.get(exchange.origin) ?? noOrigin))
        if (!exchange.isPreflight) return done()
        setFields(reply, preflight)
        if (options.allowed_headers === undefined) {
          // Fastify's replies hold a field once; the forwarder's blocks come as lines of their own, which means the same.
          exchange.fields.push(
            'vary',
            any ? 'Access-Control-Request-Headers' : 'Origin, Access-Control-Request-Headers'
          )
          const asked = exchange.header('access-control-request-headers')
          if (asked !== undefined) exchange.fields.push('access-control-allow-headers', asked)
        }
        reply.code(204).header('content-length', '0').send()
      }
    }
  }
})

function preflightFields(options: { methods: string[]; allowed_headers?: string[]; max_age?: number }): string[] {
  return [
    ...['access-control-allow-methods', options.methods.join(', ')],
    ...(options.allowed_headers === undefined
      ? []
      : ['access-control-allow-headers', options.allowed_headers.join(', ')]),
    ...(options.max_age === undefined ? [] : ['access-control-max-age', String(Math.round(options.max_age / 1000))])
  ]
}

/**
 * Whether `text` is an origin as browsers write it (Fetch standard section 3.2.1), letter by letter: it is compared as it
 * is. Those of extensions and apps, such as `capacitor://localhost`, count, too.
 */
function isOrigin(text: string): boolean {
  if (!URL.canParse(text) || text.includes('*')) return false
  const { origin, protocol, host } = new URL(text)
  return text === (origin === 'null' ? `${protocol}//${host}` : origin)
}

import helmet, { type HelmetOptions } from 'helmet'
import { definePolicy, OptionError } from '../src/policy.ts'
import { HeaderBlock } from '../src/proxy/headers.ts'
import { Type } from '../src/schema.ts'

/** The header fields of helmet, worked out once. A field that the service sets itself stands: it knows its pages better. */
export default definePolicy({
  name: 'security_headers',
  schema: Type.Object(
    {
      hsts_seconds: Type.Integer({
        description: 'How long browsers keep to HTTPS; 0 leaves the field out.',
        default: 31536000,
        minimum: 0
      }),
      content_security_policy: Type.Union([Type.Boolean(), Type.Record(Type.String(), Type.Array(Type.String()))], {
        description: 'Directives and their sources, each in place of helmet’s own; `false` leaves the field out.',
        default: true
      }),
      frame_options: Type.Union([Type.Literal('deny'), Type.Literal('sameorigin'), Type.Literal(false)], {
        description: 'Who may show the answer in a frame.',
        default: 'sameorigin'
      }),
      referrer_policy: Type.String({
        description: 'What browsers tell other sites about where a visitor comes from.',
        default: 'no-referrer'
      })
    },
    { description: 'Security header fields of helmet, on answers that do not have them.' }
  ),
  compile(options) {
    const block = blockOf(options)
    return {
      onRequest(request, _reply, done) {
        request.exchange.blocks.push(block)
        done()
      }
    }
  }
})

interface SecurityOptions {
  readonly hsts_seconds: number
  readonly content_security_policy: boolean | Record<string, string[]>
  readonly frame_options: 'deny' | 'sameorigin' | false
  readonly referrer_policy: string
}

/** @throws {OptionError} for what helmet, or a header field, does not accept */
function blockOf(options: SecurityOptions): HeaderBlock {
  try {
    return new HeaderBlock(securityFields(options))
  } catch (error) {
    throw new OptionError((error as Error).message)
  }
}

/** These options in helmet's words. */
function helmetOptions(options: SecurityOptions): HelmetOptions {
  const { hsts_seconds: maxAge, content_security_policy: csp, frame_options: action, referrer_policy: policy } = options
  return {
    strictTransportSecurity: maxAge === 0 ? false : { maxAge },
    contentSecurityPolicy: typeof csp === 'object' ? { directives: csp } : csp ? {} : false,
    frameguard: action === false ? false : { action },
    referrerPolicy: { policy: policy as 'no-referrer' }
  }
}

/** What helmet would set, flat: it is asked once and what it does is written down. */
export function securityFields(options: SecurityOptions): string[] {
  const fields: string[] = []
  const response = {
    setHeader: (name: string, value: string) => fields.push(name.toLowerCase(), value),
    removeHeader: () => {}
  }
  helmet(helmetOptions(options))({} as never, response as never, error => {
    if (error) throw error
  })
  return fields
}

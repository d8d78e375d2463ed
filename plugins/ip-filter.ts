import { refuse } from '../src/errors.ts'
import { definePolicy, OptionError } from '../src/policy.ts'
import { addressSet, rangeFault } from '../src/proxy/peer.ts'
import { Type } from '../src/schema.ts'

/** Refuses addresses that have been blocked for a while (SEC-08): `rate_limits.abuse.block`. */
export const ipBlock = definePolicy({
  name: 'ip_block',
  schema: Type.Object({}, { description: 'Internal: addresses that have been blocked.' }),
  defaultOptions: ({ rateLimits: { abuse } }) => (abuse && abuse.block > 0 ? {} : undefined),
  compile(_options, { runtime: { ipBlocks } }) {
    return {
      onRequest({ exchange }, _reply, done) {
        const left = ipBlocks.left(exchange.client)
        if (left === 0) return done()
        ipBlocks.refusals++
        const seconds = String(Math.ceil(left / 1000))
        done(refuse('ip_blocked', { reason: 'ip_block', headers: ['retry-after', seconds] }))
      }
    }
  }
})

/** Allows and denies by address (SEC-05). A denied address is denied even where its range is allowed. */
export default definePolicy({
  name: 'ip_filter',
  schema: Type.Object(
    {
      allow: Type.Array(Type.String(), {
        description: 'Addresses and CIDR ranges that may call; everybody if empty.',
        default: []
      }),
      deny: Type.Array(Type.String(), { description: 'Addresses and CIDR ranges that may not.', default: [] })
    },
    { description: 'Which addresses may call.' }
  ),
  compile({ allow, deny }) {
    const [fault] = [...allow, ...deny].flatMap(entry => rangeFault(entry) ?? [])
    if (fault !== undefined) throw new OptionError(fault)
    if (allow.length === 0 && deny.length === 0) return undefined
    const allowed = addressSet(allow)
    const denied = addressSet(deny)
    const refusal = (list: string) => refuse('ip_blocked', { reason: `ip_filter ${list}` })
    const blocked = refusal('deny')
    const uninvited = refusal('allow')
    return {
      onRequest(request, _reply, done) {
        const { client } = request.exchange
        if (denied.has(client)) return done(blocked)
        if (allow.length > 0 && !allowed.has(client)) return done(uninvited)
        done()
      }
    }
  }
})

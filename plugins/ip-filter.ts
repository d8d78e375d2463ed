import { refuse } from '../src/errors.ts'
import { definePolicy, OptionError } from '../src/policy.ts'
import { addressSet, rangeFault } from '../src/proxy/peer.ts'
import { Type } from '../src/schema.ts'

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

import { definePolicy } from '../src/policy.ts'
import { bodyTooLarge } from '../src/proxy/body.ts'
import { size } from '../src/schema.ts'

/**
 * Refuses bodies that say they are too large before a byte of them is read (TRC-04). Those that do not say are counted on
 * their way by the forwarder.
 */
export default definePolicy({
  name: 'body_limit',
  schema: size({ description: 'Largest request body; 0 for no limit.', default: '0b' }),
  compile(bytes) {
    if (bytes === 0) return undefined
    const tooLarge = bodyTooLarge(bytes)
    return {
      onRequest(request, _reply, done) {
        if (request.exchange.contentLength <= bytes) done()
        else done(tooLarge)
      }
    }
  }
})

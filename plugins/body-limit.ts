import { refuse } from '../src/errors.ts'
import { definePolicy } from '../src/policy.ts'
import { size } from '../src/schema.ts'

/**
 * Refuses bodies that say they are too large before a byte of them is read (TRC-04). Those that do not say are counted on
 * their way by the forwarder.
 */
export default definePolicy({
  name: 'body_limit',
  schema: size({ description: 'Largest request body; 0 for no limit.', default: '0b' }),
  compile(bytes, { route }) {
    if (bytes === 0) return undefined
    const tooLarge = refuse('payload_too_large', {
      details: `At most ${bytes} bytes are accepted.`,
      reason: route === undefined ? undefined : 'body_limit'
    })
    return {
      onRequest(request, reply, done) {
        if (request.exchange.contentLength <= bytes) return done()
        // Reading what was refused just to keep the connection would be what the limit is there to spare.
        reply.header('connection', 'close')
        done(tooLarge)
      }
    }
  }
})

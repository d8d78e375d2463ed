import fp from 'fastify-plugin'
import { exchangeOf } from '../src/proxy/exchange.ts'
import { setFields } from '../src/proxy/headers.ts'
import { parametersOf } from '../src/routing/pattern.ts'
import type { Runtime } from '../src/runtime/runtime.ts'
import { RequestLog } from '../src/telemetry/request-log.ts'

/**
 * Gives every request its exchange, and every answer that Fastify sends the fields that policies have put there. (Answers
 * of services get them from the forwarder, in the same order.)
 */
export default fp<{ runtime: Runtime }>(
  async (app, { runtime }) => {
    app.decorateRequest('exchange', null as never)
    app.decorateRequest('consumer', {
      getter() {
        return this.exchange.consumer
      }
    })

    app.addHook('onRequest', (request, reply, done) => {
      const exchange = exchangeOf(request.raw)
      request.exchange = exchange
      request.log = new RequestLog(runtime.log, exchange.id)
      exchange.reply = reply
      const { route } = exchange
      if (route?.varies !== undefined) exchange.blocks.push(route.varies)
      const pattern = route?.pattern
      if (pattern?.hasParameters) request.params = parametersOf(pattern, exchange.path)
      done()
    })

    app.addHook('onSend', (request, reply, _payload, done) => {
      const { exchange } = request
      for (const block of exchange.blocks) setFields(reply, block.fields)
      setFields(reply, exchange.fields)
      done()
    })
  },
  { name: 'context' }
)

import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { GatewayError } from '../../../src/errors.ts'
import { attach, Exchange } from '../../../src/proxy/exchange.ts'
import { type ForwardContext, forward } from '../../../src/proxy/forward.ts'
import { addressSet, Peer } from '../../../src/proxy/peer.ts'
import type { Route } from '../../../src/proxy/route.ts'
import { Deadlines } from '../../../src/upstream/deadline.ts'
import { Service } from '../../../src/upstream/service.ts'
import { FakeClock } from '../../support/clock.ts'
import { call } from '../../support/gateway.ts'
import { surroundings } from '../../support/surroundings.ts'

const NO_RETRY = { attempts: 0, on: new Set(), budget: 0 }

t.test('a bug within a try fails its request alone, when it comes from the end of a body as well', async t => {
  const clock = new FakeClock()
  const proxies = addressSet([])
  // undici throws for a connection that is kept for no time at all.
  const pool = { connections: 1, connectTimeoutMs: 0, keepAliveMs: 0, idleTimeoutMs: 0, maxHeaderBytes: 1024 }
  const service = new Service(
    { name: 's', instances: [{ id: '0', url: 'http://127.0.0.1:1', weight: 1 }], pool },
    surroundings(clock)
  )
  const context = { clock, deadlines: new Deadlines(clock), random: () => 0, pseudonym: '1.1 test' }
  const thrown: unknown[] = []
  const server = http.createServer((request: IncomingMessage, response: ServerResponse) => {
    const exchange = new Exchange(request, response, new Peer(request.socket, proxies), 'id', 0)
    attach(exchange)
    exchange.readFields(proxies)
    exchange.reply = {
      hijack: () => undefined,
      send: error => {
        thrown.push(error)
        return response.writeHead(500).end()
      }
    }
    const target = { service, balancer: service.balancer }
    const route = { target, retry: NO_RETRY, timeoutMs: 0, totalMs: 0, firstByteMs: 0, maxBodyBytes: 0 }
    forward(exchange, route as unknown as Route, context as unknown as ForwardContext)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  for (const request of [{}, { method: 'POST', body: 'small' }]) t.equal((await call(port, '/', request)).status, 500)
  t.equal(thrown.length, 2)
  for (const error of thrown) t.notOk(error instanceof GatewayError, 'which is logged as what it is')
})

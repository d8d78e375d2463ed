import { once } from 'node:events'
import t from 'tap'
import { WebSocket, WebSocketServer } from 'ws'
import { startGateway } from '../support/gateway.ts'
import { until } from '../support/until.ts'
import { startService } from '../support/upstream.ts'

/** An instance that takes its time for `/slow`, and answers WebSockets with their own words. */
async function startInstance(t: Parameters<typeof startService>[0], name: string) {
  let requests = 0
  const held: (() => void)[] = []
  const service = await startService(t, (request, response) => {
    requests++
    const answer = (): void => void response.writeHead(200, { 'x-from': name }).end(name)
    if (request.url === '/slow') held.push(answer)
    else answer()
  })
  const sockets = new WebSocketServer({ server: service.server })
  sockets.on('connection', socket => socket.on('message', text => socket.send(`${name} ${text}`)))
  return { name, url: service.url, requests: () => requests, held }
}

t.test(
  'H-102 HLB-11 REG-14 under load an instance goes and another comes: nothing fails, and what is under way ends in peace',
  async t => {
    const [a, b, c] = [await startInstance(t, 'a'), await startInstance(t, 'b'), await startInstance(t, 'c')]
    const document = (...instances: { name: string; url: string }[]) => ({
      defaults: { authentication: 'none' },
      services: {
        s: { instances: instances.map(({ name, url }) => ({ id: name, url })), load_balancer: { slow_start: '1s' } }
      },
      routes: [{ path: '/**', service: 's', websocket: true }]
    })
    const { gateway, port, call, configure } = await startGateway(t, document(a, b))
    const service = () => gateway.runtime.services.get('s')
    const failures: number[] = []
    let running = true
    const load = Array.from({ length: 8 }, async () => {
      while (running) {
        const { status } = await call('/x')
        if (status !== 200) failures.push(status)
      }
    })

    const slow = [call('/slow'), call('/slow')]
    await until(() => a.held.length + b.held.length === 2)
    const sockets = await Promise.all(
      [1, 2].map(async () => {
        const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`)
        await once(socket, 'open')
        return socket
      })
    )
    configure(document(b, c))
    await gateway.reload()
    // What was on its way when it left has arrived by then.
    await until(() => c.requests() > 2)
    const before = a.requests()
    const underWay = service()?.leaving[0]
    t.match(underWay, { id: 'a', state: 'draining' })
    t.ok((underWay?.active ?? 0) >= 1)
    const words = await Promise.all(
      sockets.map(async socket => {
        socket.send('still here')
        return String((await once(socket, 'message'))[0])
      })
    )
    for (const word of words) t.match(word, /^[ab] still here$/)
    for (const answer of [...a.held, ...b.held]) answer()
    for (const { status } of await Promise.all(slow)) t.equal(status, 200)
    for (const socket of sockets) socket.close()
    await until(() => service()?.leaving.length === 0)
    running = false
    await Promise.all(load)
    t.same(failures, [])
    t.equal(a.requests(), before, 'nothing new for the one that has left')
  }
)

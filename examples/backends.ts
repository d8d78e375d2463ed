import type { AddressInfo } from 'node:net'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'

/** The services behind examples/quickstart.yaml, and how to end them. */
export interface Backends {
  /** The environment variables under which the configuration knows their addresses. */
  readonly env: Readonly<Record<string, string>>
  /** Ends one of them, as a crash would: `orders-a`. */
  stop(name: string): Promise<void>
  close(): Promise<void>
}

/** Starts the sample services on free ports of the loopback: two instances of an API, a slow and failing one, and a chat. */
export async function startBackends(): Promise<Backends> {
  const apps: Record<string, FastifyInstance> = {
    'orders-a': orders('a'),
    'orders-b': orders('b'),
    weather: weather(),
    chat: await chat()
  }
  const env: Record<string, string> = {}
  for (const [name, app] of Object.entries(apps)) {
    await app.listen({ host: '127.0.0.1', port: 0 })
    env[`QUICKSTART_${name.toUpperCase().replace('-', '_')}`] =
      `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
  }
  const stop = async (name: string): Promise<void> => {
    const app = apps[name]
    app?.server.closeAllConnections()
    await app?.close()
  }
  return { env, stop, close: async () => void (await Promise.all(Object.keys(apps).map(stop))) }
}

const ORDERS = Array.from({ length: 20 }, (_, i) => ({ id: i + 1, item: `widget ${i + 1}`, price: (i + 1) * 3.5 }))

function orders(instance: string): FastifyInstance {
  const app = create()
  app.get('/health', async () => ({ status: 'ok' }))
  app.get('/hello', async () => ({ hello: 'world', instance }))
  // The instance is gone for ten seconds.
  app.post('/crash', async (_request, reply) => {
    const { port } = app.server.address() as AddressInfo
    setImmediate(() => {
      app.server.close()
      app.server.closeAllConnections()
      setTimeout(() => app.server.listen(port, '127.0.0.1'), 10_000).unref()
    })
    return reply.header('connection', 'close').send({ instance, crashed: true })
  })
  app.get('/orders', async ({ headers }) => ({ orders: ORDERS, instance, for: headers['x-user-id'] ?? null }))
  app.get<{ Params: { id: string } }>('/orders/:id', async ({ params }, reply) => {
    const order = ORDERS[Number(params.id) - 1]
    return order ?? reply.code(404).send({ message: 'no such order' })
  })
  app.post('/orders', async ({ body }, reply) =>
    reply.code(201).send({ id: ORDERS.length + 1, ...(body as object), instance })
  )
  app.get('/reports/today', async () => ({
    orders: ORDERS.length,
    turnover: ORDERS.reduce((sum, { price }) => sum + price, 0)
  }))
  return app
}

function weather(): FastifyInstance {
  const app = create()
  let calls = 0
  app.get('/weather', async (_request, reply) => {
    calls++
    await new Promise(resolve => setTimeout(resolve, 300))
    if (calls % 3 === 0) return reply.code(503).send({ message: 'clouded' })
    return { forecast: 'fair', calls }
  })
  app.get('/weather/never', () => new Promise(() => {}))
  return app
}

async function chat(): Promise<FastifyInstance> {
  const app = create()
  await app.register(websocket)
  app.get('/ws/echo', { websocket: true }, (socket, request) => {
    socket.send(`hello ${request.headers['x-user-id'] ?? 'stranger'}`)
    socket.on('message', (data, binary) => socket.send(data, { binary }))
  })
  app.get('/events', (request, reply) => {
    reply.hijack()
    reply.raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' })
    let n = 0
    const send = (): void => void reply.raw.write(`id: ${++n}\ndata: ${JSON.stringify({ n })}\n\n`)
    const timer = setInterval(send, 1000)
    send()
    request.raw.on('close', () => clearInterval(timer))
  })
  return app
}

function create(): FastifyInstance {
  return Fastify({ logger: false, forceCloseConnections: true })
}

import httpProxy from '@fastify/http-proxy'
import Fastify from 'fastify'
import { Agent } from 'undici'

// The plugin and nothing else, as it does best: logger off, an undici agent of its own.
const [port, upstream] = process.argv.slice(2).map(Number)
const app = Fastify({ logger: false })
app.register(httpProxy, {
  upstream: `http://127.0.0.1:${upstream}`,
  prefix: '/api',
  rewritePrefix: '/api',
  disableRequestLogging: true,
  undici: new Agent({ connections: 128, pipelining: 1 }) as never
})
await app.listen({ host: '127.0.0.1', port: port as number })

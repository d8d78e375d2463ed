import { randomUUID } from 'node:crypto'
import cors from '@fastify/cors'
import helmet from '@fastify/helmet'
import httpProxy from '@fastify/http-proxy'
import jwt from '@fastify/jwt'
import rateLimit from '@fastify/rate-limit'
import Fastify, { type FastifyPluginCallback } from 'fastify'
import fastifyMetrics from 'fastify-metrics'
import { LIMIT, ORIGIN, SECRET } from '../contenders/contender.ts'

// The official plugins as their first pages show them, all defaults: what most would write on the first day.
const [port, upstream] = process.argv.slice(2).map(Number)
const app = Fastify({ logger: true, genReqId: () => randomUUID() })
// The types see a CommonJS module where Node sees its default export.
await app.register(fastifyMetrics as unknown as FastifyPluginCallback)
await app.register(helmet)
await app.register(cors, { origin: [ORIGIN] })
await app.register(jwt, { secret: SECRET })
app.addHook('onRequest', async (request, reply) => {
  reply.header('x-request-id', request.id)
  if (request.url !== '/metrics') await request.jwtVerify()
})
await app.register(rateLimit, {
  max: LIMIT,
  timeWindow: '1 minute',
  hook: 'preHandler',
  keyGenerator: request => (request.user as { sub: string }).sub
})
await app.register(httpProxy, {
  upstream: `http://127.0.0.1:${upstream}`,
  prefix: '/api',
  rewritePrefix: '/api',
  replyOptions: {
    rewriteRequestHeaders: (request, headers) => ({ ...headers, 'x-request-id': request.id })
  }
})
await app.listen({ host: '127.0.0.1', port: port as number })

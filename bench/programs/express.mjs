import { randomUUID } from 'node:crypto'
import http from 'node:http'
import cors from 'cors'
import express from 'express'
import { rateLimit } from 'express-rate-limit'
import helmet from 'helmet'
import { createProxyMiddleware } from 'http-proxy-middleware'
import jsonwebtoken from 'jsonwebtoken'
import { pinoHttp } from 'pino-http'
import prometheus from 'prom-client'
import { LIMIT, ORIGIN, SECRET } from '../contenders/contender.ts'

// The same policies as Express has them, each by the package that is used most.
const [port, upstream] = process.argv.slice(2).map(Number)
const durations = new prometheus.Histogram({
  name: 'http_request_duration_seconds',
  help: 'Duration of requests in seconds',
  labelNames: ['method', 'route', 'status']
})

const app = express()
app.get('/metrics', async (_request, response) => {
  response.type(prometheus.register.contentType).send(await prometheus.register.metrics())
})
app.use(
  pinoHttp({
    genReqId(_request, response) {
      const id = randomUUID()
      response.setHeader('x-request-id', id)
      return id
    }
  })
)
app.use((request, response, next) => {
  const end = durations.startTimer()
  response.on('finish', () => end({ method: request.method, route: '/api', status: response.statusCode }))
  next()
})
app.use(helmet())
app.use(cors({ origin: [ORIGIN] }))
app.use((request, response, next) => {
  const [scheme, token] = (request.headers.authorization ?? '').split(' ')
  try {
    if (scheme !== 'Bearer') throw new Error('no token')
    request.user = jsonwebtoken.verify(token, SECRET, { algorithms: ['HS256'] })
    next()
  } catch {
    response.status(401).json({ error: 'unauthorized' })
  }
})
app.use(
  rateLimit({
    windowMs: 60_000,
    limit: LIMIT,
    standardHeaders: 'draft-6',
    legacyHeaders: false,
    keyGenerator: request => request.user.sub
  })
)
app.use(
  createProxyMiddleware({
    target: `http://127.0.0.1:${upstream}`,
    pathFilter: '/api',
    agent: new http.Agent({ keepAlive: true, maxSockets: 128 }),
    on: { proxyReq: (outgoing, request) => outgoing.setHeader('x-request-id', request.id) }
  })
)
app.listen(port, '127.0.0.1')

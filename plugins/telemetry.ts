import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Snapshot } from '../src/config/snapshot.ts'
import type { Exchange } from '../src/proxy/exchange.ts'
import type { Runtime } from '../src/runtime/runtime.ts'
import { jsonLine, LEVELS, levelOf, type Outcome, prettyLine } from '../src/telemetry/access-log.ts'
import { UNKNOWN } from '../src/telemetry/metrics.ts'
import { harmless, redactFields } from '../src/telemetry/redact.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Told of every exchange when its answer is complete or its client has gone, whoever wrote the answer. */
    readonly observers: ((exchange: Exchange) => void)[]
  }
}

/** Counts every request, and writes its one line. Also for answers that Fastify never sees the end of. */
export default fp<{ snapshot: Snapshot; runtime: Runtime }>(
  async (app, options) => {
    app.addHook('onRequest', (request, _reply, done) => {
      const { exchange } = request
      const endpoint = exchange.route?.metrics ?? options.runtime.metrics.endpoint(ownEndpoint(request))
      exchange.series = endpoint.of(exchange.method)
      exchange.series.active++
      done()
    })
    // Answers of services never come here; they are counted as they pass.
    app.addHook('onSend', ({ exchange }, _reply, payload, done) => {
      if ((typeof payload === 'string' || Buffer.isBuffer(payload)) && exchange.method !== 'HEAD')
        exchange.bytesOut = Buffer.byteLength(payload)
      done(null, payload)
    })
    app.observers.push(measure(options.runtime))
    if (options.snapshot.logging.access) app.observers.push(accessLog(options))
    const { recorder } = options.runtime
    if (recorder !== undefined) app.observers.push(recorder.observe)
    if (options.snapshot.logging.trace_requests) traceRequests(app, options.runtime)
  },
  { name: 'telemetry' }
)

/** The label of what is not for a service. Fastify makes an object of the route's options whenever somebody asks for them. */
function ownEndpoint({ exchange, routeOptions }: FastifyRequest): string {
  return exchange.refusal === undefined ? (routeOptions.config.url ?? UNKNOWN) : UNKNOWN
}

function measure({ clock }: Runtime): (exchange: Exchange) => void {
  return exchange => {
    exchange.durationMs = clock.monotonic() - exchange.startedAt
    const { series, target, response } = exchange
    if (series !== undefined) {
      series.active--
      series.observe(exchange.status, exchange.durationMs / 1000)
    }
    if (target !== undefined && exchange.upstreamMs >= 0)
      target.series.answered(response.statusCode, exchange.upstreamMs / 1000)
  }
}

function accessLog({ snapshot, runtime }: { snapshot: Snapshot; runtime: Runtime }): (exchange: Exchange) => void {
  const least = LEVELS[snapshot.logging.level] ?? 30
  const render = runtime.pretty ? prettyLine : jsonLine
  return exchange => {
    const { status } = exchange
    if (levelOf(status) < least) return
    const outcome: Outcome = {
      now: runtime.clock.now(),
      durationMs: exchange.durationMs,
      status,
      generation: snapshot.version
    }
    runtime.sink.write(render(exchange, outcome))
  }
}

/** `TRACE_REQUESTS=true` (OBS-17): what came and what went, but for secrets. */
function traceRequests(app: FastifyInstance, { log }: Runtime): void {
  app.addHook('onRequest', (request, _reply, done) => {
    const { exchange } = request
    request.log.info(
      { method: exchange.method, path: harmless(exchange.path), fields: redactFields(exchange.request.rawHeaders) },
      'request started'
    )
    done()
  })
  app.observers.push(exchange => {
    log.info(
      {
        request_id: exchange.id,
        status_code: exchange.response.statusCode,
        fields: redactFields(exchange.responseFields())
      },
      'request ended'
    )
  })
}

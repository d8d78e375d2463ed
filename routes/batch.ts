import type { FastifyPluginAsync } from 'fastify'
import {
  answersAsJson,
  bodyOf,
  fieldsOf,
  idsOf,
  type SubAnswer,
  type SubRequest,
  statusOf
} from '../src/batch/sub-request.ts'
import { type ErrorFormat, formatError } from '../src/error-formats.ts'
import { refuse } from '../src/errors.ts'
import { http } from '../src/runtime/node.ts'
import { Type } from '../src/schema.ts'
import type { OwnRoutesOptions } from './index.ts'
import { operation } from './operation.ts'

const SUB_REQUEST = Type.Object({
  id: Type.Optional(
    Type.String({ description: 'By which its answer is known; its place in the list if not given.', maxLength: 128 })
  ),
  method: Type.String({ description: 'Method; not CONNECT.', default: 'GET', pattern: '^(?!CONNECT$)[A-Z]{1,32}$' }),
  path: Type.String({
    description: 'Path and query, as in a request of its own.',
    pattern: '^/[!-~]*$',
    examples: ['/api/v1/orders?limit=5']
  }),
  headers: Type.Record(Type.String(), Type.String(), { description: 'Header fields.', default: {} }),
  body: Type.Optional(
    Type.Unknown({ description: 'Text is sent as it is, anything else as JSON.', examples: [{ quantity: 2 }] })
  )
})
const SUB_ANSWER = Type.Object({
  id: Type.String({ description: 'Whose answer it is.' }),
  status: Type.Integer({ description: 'Its status.', examples: [200] }),
  headers: Type.Record(Type.String(), Type.Unknown(), {
    description: 'Its header fields; a list for fields that came more than once.',
    examples: [{ 'content-type': 'application/json' }]
  }),
  body: Type.Optional(
    Type.Unknown({ description: 'JSON as it came; other bodies as text.', examples: [{ order: 7, quantity: 2 }] })
  ),
  body_encoding: Type.Optional(
    Type.String({ description: '`base64` for bodies that are no text, or compressed.', examples: ['base64'] })
  )
})

/**
 * Several requests in one (TRC-03). Each takes the same way as one that comes alone: it is written to a connection to the
 * gateway's own door, and read there by Node's parser.
 */
const batch: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime, control }) => {
  const { max_requests, max_parallel, max_body, max_answer } = snapshot.batch
  const { format = 'envelope' } = (snapshot.defaults.errors?.options ?? {}) as { format?: ErrorFormat }
  const proxyField = snapshot.geo.header?.toLowerCase()
  const { schema, config } = operation({
    summary: 'Several requests in one',
    description:
      'Each is routed, authorised, limited and counted as if it had come alone, with the credential of the batch unless it has its own. They run side by side; the answers are in the order asked.',
    tag: 'Batches',
    access: 'optional',
    body: Type.Array(SUB_REQUEST, { minItems: 1, maxItems: max_requests, description: 'The requests.' }),
    answers: {
      200: Type.Array(SUB_ANSWER, { description: 'The answers, none of which is an error.' }),
      207: Type.Array(SUB_ANSWER, { description: 'The answers, of which one at least is an error.' })
    },
    unguarded: true
  })
  // Routes have this guard by themselves; the one of the other endpoints of ours would be in everybody's way here.
  if (snapshot.rateLimits.ip !== undefined) config.policies.pre_limit = { options: {}, scope: 'own' }

  app.post<{ Body: SubRequest[] }>('', { schema, config, bodyLimit: max_body }, async ({ exchange, body }, reply) => {
    if (exchange.peer.batch !== '')
      throw refuse('bad_request', { reason: 'batch_in_batch', details: 'A batch cannot hold another one.' })
    const ids = idsOf(body)
    const fields = body.map((sub, i) => fieldsOf(sub, exchange.request.rawHeaders, `[${i}]`, proxyField))
    const gone = new AbortController()
    reply.raw.once('close', () => gone.abort())

    const answers: SubAnswer[] = []
    let next = 0
    const askOneAfterTheOther = async (): Promise<void> => {
      while (next < body.length && !gone.signal.aborted) {
        const i = next++
        answers[i] = await ask(body[i] as SubRequest, ids[i] as string, fields[i] as Map<string, string>)
      }
    }
    const ask = async (sub: SubRequest, id: string, headers: Map<string, string>): Promise<SubAnswer> => {
      const connection = control.connect(exchange)
      try {
        return { id, ...(await send(connection, sub, headers, { signal: gone.signal, mostBytes: max_answer })) }
      } catch (error) {
        const refusal = refuse('bad_gateway', { details: (error as Error).message })
        const context = { requestId: exchange.id, now: runtime.clock.now() }
        const { type, body } = formatError(refusal, format, context)
        return { id, status: refusal.statusCode, headers: { 'content-type': type }, body: Buffer.from(body) }
      } finally {
        connection.destroy()
      }
    }
    await Promise.all(Array.from({ length: Math.min(max_parallel, body.length) }, askOneAfterTheOther))
    return reply
      .code(statusOf(answers))
      .headers({ 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' })
      .send(answersAsJson(answers))
  })
}

/** Sends a request on a connection of its own. @throws when there is no whole answer, or none that is small enough */
function send(
  connection: ReturnType<OwnRoutesOptions['control']['connect']>,
  sub: SubRequest,
  headers: Map<string, string>,
  { signal, mostBytes }: { signal: AbortSignal; mostBytes: number }
): Promise<Omit<SubAnswer, 'id'>> {
  return new Promise((resolve, reject) => {
    const body = bodyOf(sub)
    // Said here, since Node does not say it of methods that seldom have a body: that would be read as a request of its own.
    if (body !== undefined) headers.set('content-length', String(Buffer.byteLength(body)))
    const cutOff = (): void => reject(new Error('The answer was cut off.'))
    const request = http.request({
      method: sub.method,
      path: sub.path,
      headers: Object.fromEntries(headers),
      createConnection: () => connection,
      signal
    })
    request.on('error', cutOff)
    request.on('response', response => {
      const chunks: Buffer[] = []
      let bytes = 0
      response.on('error', cutOff)
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > mostBytes) reject(new Error('The answer is larger than `batch.max_answer`.'))
        else chunks.push(chunk)
      })
      response.on('end', () => {
        const { statusCode = 0, headers } = response
        resolve({ status: statusCode, headers, body: Buffer.concat(chunks) })
      })
    })
    request.end(body)
  })
}

export default batch

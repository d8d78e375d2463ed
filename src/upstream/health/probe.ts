import { createHash, randomBytes } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { Client } from 'undici'
import { http2 } from '../../runtime/node.ts'
import type { Instance } from '../instance.ts'
import { connector } from '../pool.ts'
import type { ServiceConfig } from '../service.ts'
import type { HealthCheckConfig } from './settings.ts'

/** What an instance is asked with. */
export interface Question {
  readonly service: Pick<ServiceConfig, 'tls'>
  readonly how: HealthCheckConfig
  /** What the gateway calls itself, so that it knows itself again. */
  readonly via: string
  readonly signal: AbortSignal
}

/** What it answered: the status, where the protocol has one, and what is wrong with it. */
export interface Reply {
  readonly status: number | null
  readonly error: string | null
}

/**
 * Asks an instance how it is, over a connection of its own: whether a new one can be had is part of the question.
 * @throws when there is no answer
 */
export function probe(instance: Instance, question: Question): Promise<Reply> {
  return PROBES[question.how.type](instance, question)
}

const PROBES: Readonly<Record<HealthCheckConfig['type'], (instance: Instance, question: Question) => Promise<Reply>>> =
  {
    http: probeHttp,
    tcp: probeTcp,
    grpc: probeGrpc,
    websocket: probeWebSocket
  }

async function probeHttp(instance: Instance, question: Question): Promise<Reply> {
  const { how, via, signal } = question
  return withClient(instance, question, async client => {
    const { statusCode: status, body } = await client.request({
      method: 'GET',
      path: instance.basePath + how.path,
      headers: { 'user-agent': 'sallyport', via },
      signal
    })
    await body.dump()
    return { status, error: how.expected.includes(status) ? null : `status ${status}` }
  })
}

async function probeTcp(instance: Instance, { signal, how }: Question): Promise<Reply> {
  const socket = await connect(instance, { tls: undefined, timeoutMs: how.timeoutMs, signal })
  socket.destroy()
  return { status: null, error: null }
}

/** A handshake that the service accepts (RFC 6455 section 4.1). The WebSocket is closed at once. */
async function probeWebSocket(instance: Instance, question: Question): Promise<Reply> {
  const { how, via, signal } = question
  const key = randomBytes(16).toString('base64')
  return withClient(instance, question, async client => {
    const { headers, socket } = await client.upgrade({
      path: instance.basePath + how.path,
      protocol: 'websocket',
      headers: { 'user-agent': 'sallyport', via, 'sec-websocket-version': '13', 'sec-websocket-key': key },
      signal
    })
    socket.on('error', () => {})
    // A close frame with a mask of zeros (section 5.5.1): it was no client that went away.
    socket.end(Buffer.from([0x88, 0x80, 0, 0, 0, 0]), () => socket.destroy())
    const accepted = (headers as IncomingHttpHeaders)['sec-websocket-accept']
    return { status: 101, error: accepted === acceptOf(key) ? null : 'no WebSocket' }
  })
}

function acceptOf(key: string): string {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
}

async function withClient(
  { url, lookup }: Instance,
  { service: { tls }, how }: Question,
  use: (client: Client) => Promise<Reply>
): Promise<Reply> {
  const client = new Client(url.origin, { connect: connector({ tls, lookup, connectTimeoutMs: how.timeoutMs }) })
  try {
    return await use(client)
  } finally {
    client.destroy(() => {})
  }
}

/** `grpc.health.v1.Health/Check` (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). */
async function probeGrpc(instance: Instance, question: Question): Promise<Reply> {
  const { service, how, via, signal } = question
  const { url } = instance
  const tls = url.protocol === 'https:' ? (service.tls ?? {}) : undefined
  const socket = await connect(instance, { tls, timeoutMs: how.timeoutMs, signal })
  const session = http2().connect(url.origin, { createConnection: () => socket })
  try {
    return await new Promise((resolve, reject) => {
      session.on('error', reject)
      const stream = session.request(
        {
          ':method': 'POST',
          ':path': '/grpc.health.v1.Health/Check',
          'content-type': 'application/grpc',
          te: 'trailers',
          'user-agent': 'sallyport',
          via
        },
        { signal }
      )
      const chunks: Buffer[] = []
      let status: number | null = null
      let code: unknown
      stream.on('response', fields => {
        status = Number(fields[':status'])
        code = fields['grpc-status']
      })
      stream.on('trailers', fields => {
        code = fields['grpc-status'] ?? code
      })
      stream.on('data', chunk => chunks.push(chunk))
      stream.on('error', reject)
      stream.on('close', () => reject(new Error('the stream was closed without an answer')))
      stream.on('end', () => resolve({ status, error: grpcFault(status, String(code), Buffer.concat(chunks)) }))
      stream.end(healthRequest(how.grpcService))
    })
  } finally {
    session.destroy()
  }
}

/** `HealthCheckRequest { string service = 1 }`, framed: not compressed, and its length. */
function healthRequest(service: string): Buffer {
  const name = Buffer.from(service)
  const message = name.length === 0 ? name : Buffer.concat([Buffer.from([0x0a, ...varint(name.length)]), name])
  const frame = Buffer.alloc(5)
  frame.writeUInt32BE(message.length, 1)
  return Buffer.concat([frame, message])
}

function varint(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >>> 7)]
}

const SERVING = 1
const STATUS_NAMES = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN']

/** What is wrong with an answer that should be `HealthCheckResponse { ServingStatus status = 1 }`. */
function grpcFault(status: number | null, code: string, body: Buffer): string | null {
  if (status !== 200) return `status ${status}`
  if (code !== '0') return `grpc-status ${code}`
  // A field that is 0 is not sent at all.
  const serving = body.length >= 7 && body[0] === 0 && body[5] === 0x08 ? (body[6] as number) : 0
  return serving === SERVING ? null : (STATUS_NAMES[serving] ?? `serving status ${serving}`)
}

interface Connecting {
  /** Undefined for a plain connection. */
  readonly tls: ServiceConfig['tls']
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

function connect({ url, lookup }: Instance, { tls, timeoutMs, signal }: Connecting): Promise<Socket | TLSSocket> {
  return new Promise((resolve, reject) => {
    const options = {
      hostname: url.hostname,
      host: url.host,
      protocol: tls === undefined ? 'http:' : 'https:',
      port: url.port || (url.protocol === 'https:' ? '443' : '80'),
      ...(tls !== undefined && { servername: url.hostname })
    }
    const open = connector({
      lookup,
      connectTimeoutMs: timeoutMs,
      ...(tls !== undefined && { tls: { ...tls, allowH2: true } as ServiceConfig['tls'] })
    })
    const socket = open(options as never, (error, connected) => {
      signal.removeEventListener('abort', abort)
      if (error === null) resolve(connected)
      else reject(error)
    }) as unknown as Socket
    const abort = (): void => void socket.destroy(signal.reason)
    signal.addEventListener('abort', abort)
  })
}

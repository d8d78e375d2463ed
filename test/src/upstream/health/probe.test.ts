import { createServer as createHttp, type IncomingMessage } from 'node:http'
import http2, { type Http2Server, type ServerHttp2Stream } from 'node:http2'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { WebSocketServer } from 'ws'
import { probe } from '../../../../src/upstream/health/probe.ts'
import { type HealthCheckConfig, healthCheckOf } from '../../../../src/upstream/health/settings.ts'
import { Instance } from '../../../../src/upstream/instance.ts'
import { makeCertificate } from '../../../support/certificates.ts'
import { FakeClock } from '../../../support/clock.ts'
import { freePort } from '../../../support/free-port.ts'
import { startRawUpstream, startUpstream } from '../../../support/upstream.ts'

const STANDARD = healthCheckOf(undefined, { path: undefined, intervalSeconds: undefined })
const POOL = { connections: 1, connectTimeoutMs: 0, keepAliveMs: 1000, idleTimeoutMs: 0, maxHeaderBytes: 1024 }

function ask(url: string, how: Partial<HealthCheckConfig>, ca?: string, timeoutMs = 2000) {
  const service = { name: 's', instances: [], pool: POOL, tls: ca === undefined ? undefined : { ca } }
  const instance = new Instance({ id: '0', url, weight: 1 }, service, new FakeClock())
  const signal = AbortSignal.timeout(timeoutMs)
  return probe(instance, { service, how: { ...STANDARD, timeoutMs, ...how }, via: '1.1 test', signal })
}

t.test('REG-12 HTTP: the base path, the expected statuses, redirects are no health', async t => {
  const upstream = await startUpstream(t, (request, response) => {
    response.writeHead(Number(request.url?.split('/').at(-1)), { location: '/elsewhere' }).end('x'.repeat(100_000))
  })
  t.same(await ask(`${upstream.url}/base/`, { path: '/200' }), { status: 200, error: null })
  t.equal(upstream.last().url, '/base/200')
  t.same(await ask(upstream.url, { path: '/204', expected: [200, 204] }), { status: 204, error: null })
  t.same(await ask(upstream.url, { path: '/301' }), { status: 301, error: 'status 301' })
  t.same(await ask(upstream.url, { path: '/503' }), { status: 503, error: 'status 503' })
  await t.rejects(ask(`http://127.0.0.1:${await freePort()}`, {}), { code: 'ECONNREFUSED' })
  const garbage = await startRawUpstream(t, socket => socket.end('SSH-2.0\r\n\r\n'))
  await t.rejects(ask(garbage.url, {}), { name: 'HTTPParserError' })
})

t.test('REG-12 TCP: a connection is enough', async t => {
  const raw = await startRawUpstream(t, () => {})
  t.same(await ask(raw.url, { type: 'tcp' }), { status: null, error: null })
  await t.rejects(ask(`http://127.0.0.1:${await freePort()}`, { type: 'tcp' }), { code: 'ECONNREFUSED' })
})

t.test('REG-12 WebSocket: a handshake that is accepted', async t => {
  const server = createHttp((_, response) => response.writeHead(200).end())
  const sockets = new WebSocketServer({ noServer: true })
  const seen: IncomingMessage[] = []
  server.on('upgrade', (request, socket, head) => {
    if (request.url === '/refused') return socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n')
    if (request.url === '/liar')
      return socket.write(
        'HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n'
      )
    return sockets.handleUpgrade(request, socket, head, () => seen.push(request))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  t.same(await ask(url, { type: 'websocket', path: '/ws' }), { status: 101, error: null })
  t.equal(seen[0]?.headers.via, '1.1 test')
  t.same(await ask(url, { type: 'websocket', path: '/liar' }), { status: 101, error: 'no WebSocket' })
  await t.rejects(ask(url, { type: 'websocket', path: '/refused' }))
})

/** A gRPC health service that answers what it is asked for: the name of the service says what it does. */
async function startGrpc(t: Test, server: Http2Server): Promise<number> {
  const statuses: Record<string, number> = { unknown: 0, '': 1, up: 1, down: 2 }
  server.on('stream', (stream: ServerHttp2Stream, headers) => {
    const chunks: Buffer[] = []
    stream.on('error', () => {})
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    stream.on('end', () => {
      const message = Buffer.concat(chunks).subarray(5)
      const name = message.length === 0 ? '' : message.subarray(message[1] === 0xc8 ? 3 : 2).toString()
      if (headers[':path'] !== '/grpc.health.v1.Health/Check' || headers['content-type'] !== 'application/grpc')
        return stream.respond({ ':status': 404 }, { endStream: true })
      if (name === 'hangs') return
      const status = name === 'x'.repeat(200) ? 1 : statuses[name]
      if (status === undefined)
        return stream.respond(
          { ':status': 200, 'grpc-status': '5', 'content-type': 'application/grpc' },
          { endStream: true }
        )
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true })
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
      stream.end(Buffer.from(status === 0 ? [0, 0, 0, 0, 0] : [0, 0, 0, 0, 2, 0x08, status]))
    })
  })
  const sessions = new Set<{ destroy(): void }>()
  server.on('session', session => sessions.add(session))
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    for (const session of sessions) session.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

t.test('REG-12 gRPC: what grpc.health.v1 says of the server or of one service, over h2c and TLS', async t => {
  const port = await startGrpc(t, http2.createServer())
  const url = `http://127.0.0.1:${port}`
  const check = (grpcService: string) => ask(url, { type: 'grpc', grpcService })
  for (const name of ['', 'up', 'x'.repeat(200)]) t.same(await check(name), { status: 200, error: null })
  t.same(await check('down'), { status: 200, error: 'NOT_SERVING' })
  t.same(await check('unknown'), { status: 200, error: 'UNKNOWN' })
  t.same(await check('nobody'), { status: 200, error: 'grpc-status 5' })
  await t.rejects(ask(url, { type: 'grpc', grpcService: 'hangs' }, undefined, 50))
  const plain = await startUpstream(t)
  await t.rejects(ask(plain.url, { type: 'grpc' }, undefined, 500))
  await t.rejects(ask(`http://127.0.0.1:${await freePort()}`, { type: 'grpc' }), { code: 'ECONNREFUSED' })

  const { cert, key } = makeCertificate({ name: 'grpc', hosts: ['localhost'] })
  const secure = await startGrpc(t, http2.createSecureServer({ cert, key }))
  t.same(await ask(`https://localhost:${secure}`, { type: 'grpc' }, cert), { status: 200, error: null })
  await t.rejects(ask(`https://localhost:${secure}`, { type: 'grpc' }), /self-signed|unable to/)
})

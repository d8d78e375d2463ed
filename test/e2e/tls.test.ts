import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import tls, { type TLSSocket } from 'node:tls'
import t, { type Test } from 'tap'
import { type Certificate, type Issuer, makeCertificate, writeCertificate } from '../support/certificates.ts'
import { problemsOf } from '../support/config.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const authority = makeCertificate({ name: 'test authority', authority: true })
const good = makeCertificate({ name: 'good', hosts: ['localhost', '127.0.0.1'], issuer: authority })
const DAY = 86_400_000

/** A connection with TLS, open. */
async function connect(t: Test, port: number, options: tls.ConnectionOptions = {}): Promise<TLSSocket> {
  const socket = tls.connect({ host: '127.0.0.1', port, servername: 'localhost', ca: authority.cert, ...options })
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  return socket
}

/** Asks for `path` on an open connection. */
async function ask(socket: TLSSocket, path: string, end = /\r\n\r\n.*\}$/s): Promise<string> {
  let text = ''
  const onData = (chunk: Buffer): void => {
    text += chunk.toString('latin1')
  }
  socket.on('data', onData)
  socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
  await until(() => end.test(text) || socket.destroyed, `an answer to ${path}`)
  socket.off('data', onData)
  return text
}

/** Who the gateway says it is, to a new connection. */
async function presented(t: Test, port: number): Promise<string> {
  const socket = await connect(t, port)
  const { CN } = socket.getPeerCertificate().subject
  socket.destroy()
  return String(CN)
}

t.test('SEC-01 the gateway ends TLS, and tells the service that it did', async t => {
  const service = await startUpstream(t)
  const gateway = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  const secure = await startGateway(t, {
    server: { tls: writeCertificate(temporaryFolder(t), 'door', good) },
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  t.match(await ask(await connect(t, secure.port), '/x'), /^HTTP\/1\.1 200 /)
  t.match(service.last().headers, { 'x-forwarded-proto': 'https', forwarded: /proto=https$/ })
  await gateway.call('/x')
  t.match(service.last().headers, { 'x-forwarded-proto': 'http' })
  await t.rejects(
    connect(t, secure.port, { maxVersion: 'TLSv1.1', ciphers: 'ALL@SECLEVEL=0', minVersion: 'TLSv1' }),
    'nothing before TLS 1.2'
  )
  await until(() => secure.gateway.server.inFlight === 0)
})

t.test('SEC-01 a new certificate counts from the next connection on, and those that are open stay', async t => {
  const service = await startUpstream(t)
  const folder = temporaryFolder(t)
  const files = writeCertificate(folder, 'door', good)
  const gateway = await startGateway(t, {
    server: { tls: files },
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  gateway.gateway.watch()
  const open = await connect(t, gateway.port)
  t.equal(await presented(t, gateway.port), 'good')

  const renewed = makeCertificate({
    name: 'renewed',
    hosts: ['localhost'],
    issuer: authority,
    to: new Date(Date.now() + 90 * DAY)
  })
  // The certificate without its key: what is in the middle of being replaced changes nothing.
  writeFileSync(files.cert, renewed.cert)
  await gateway.line({ msg: 'the certificate cannot be used; the one before stays' })
  t.equal(await presented(t, gateway.port), 'good')
  writeFileSync(files.key, renewed.key)
  await gateway.line({ msg: 'the certificate has been read again' })
  t.equal(await presented(t, gateway.port), 'renewed')
  t.match(await ask(open, '/x'), /^HTTP\/1\.1 200 /, 'a connection from before goes on')

  const metrics = await ask(open, '/metrics', /\ngateway_tls_certificate_expiry_seconds \d+.*\n/)
  const ends = Number(/^gateway_tls_certificate_expiry_seconds (\S+)/m.exec(metrics)?.[1])
  t.ok(Math.abs(ends - (Date.now() + 90 * DAY) / 1000) < 60, 'the metric says when the new one ends')
})

t.test('SEC-01 a certificate that changes while the configuration does is not overlooked', async t => {
  const folder = temporaryFolder(t)
  const gateway = await startGateway(t, { server: { tls: writeCertificate(folder, 'door', good) } })
  const renewed = makeCertificate({ name: 'renewed', hosts: ['localhost'], issuer: authority })
  // Nobody watches yet, as between two configurations.
  writeCertificate(folder, 'door', renewed)
  gateway.gateway.watch()
  await gateway.line({ msg: 'the certificate has been read again' })
  t.equal(await presented(t, gateway.port), 'renewed')
})

t.test('SEC-01 with client_ca only those get in who have a certificate of its', async t => {
  const service = await startUpstream(t)
  const folder = temporaryFolder(t)
  const ca = join(folder, 'clients.crt')
  writeFileSync(ca, authority.cert)
  const gateway = await startGateway(t, {
    server: { tls: { ...writeCertificate(folder, 'door', good), client_ca: ca } },
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  const attempt = async (client?: Certificate): Promise<string> => {
    try {
      return (await ask(await connect(t, gateway.port, { ...client }), '/x')).slice(0, 12)
    } catch {
      return ''
    }
  }
  t.equal(await attempt(makeCertificate({ name: 'client', issuer: authority })), 'HTTP/1.1 200')
  t.equal(await attempt(), '')
  t.equal(await attempt(makeCertificate({ name: 'stranger' })), '')
  t.equal(
    await attempt(
      makeCertificate({
        name: 'late',
        issuer: authority,
        from: new Date(Date.now() - 2 * DAY),
        to: new Date(Date.now() - DAY)
      })
    ),
    ''
  )
  t.equal(service.seen.length, 1)
})

/** A service with TLS, which says who called it by which name. */
async function startSecureService(
  t: Test,
  certificate: Certificate,
  options: https.ServerOptions = {}
): Promise<{ port: number; asked: () => number; names: (string | undefined)[] }> {
  let asked = 0
  const names: (string | undefined)[] = []
  const server = https.createServer({ ...certificate, ...options }, (request, response) => {
    asked++
    const { subject } = (request.socket as TLSSocket).getPeerCertificate()
    response.end(JSON.stringify({ client: subject?.CN ?? null }))
  })
  server.on('upgrade', (_request, socket) => {
    asked++
    socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
  })
  server.on('secureConnection', socket => names.push(socket.servername || undefined))
  server.on('tlsClientError', () => {})
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return { port: (server.address() as AddressInfo).port, asked: () => asked, names }
}

const HANDSHAKE = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA=='
}

async function before(t: Test, url: string, settings?: object): Promise<TestGateway> {
  return startGateway(t, {
    services: { service: { url, ...(settings === undefined ? {} : { tls: settings }) } },
    routes: [{ path: '/**', service: 'service', authentication: 'none', websocket: true }]
  })
}

t.test('H-104 SEC-02 a service whose certificate is not good is refused, and is sent nothing', async t => {
  const past = { from: new Date(Date.now() - 2 * DAY), to: new Date(Date.now() - DAY) }
  const ca = join(temporaryFolder(t), 'authority.crt')
  writeFileSync(ca, authority.cert)
  const cases: [string, Issuer, string, object | undefined][] = [
    ['signed by itself', makeCertificate({ name: 'self', hosts: ['localhost'] }), 'localhost', undefined],
    ['signed by somebody unknown', good, 'localhost', undefined],
    [
      'signed by itself, with an authority',
      makeCertificate({ name: 'self', hosts: ['localhost'] }),
      'localhost',
      { ca }
    ],
    [
      'expired',
      makeCertificate({ name: 'old', hosts: ['localhost'], issuer: authority, ...past }),
      'localhost',
      { ca }
    ],
    [
      'of another name',
      makeCertificate({ name: 'other', hosts: ['elsewhere.test'], issuer: authority }),
      'localhost',
      { ca }
    ],
    ['of no name', makeCertificate({ name: 'localhost', issuer: authority }), '127.0.0.1', { ca }],
    [
      'of a name, asked for by address',
      makeCertificate({ name: 'named', hosts: ['localhost'], issuer: authority }),
      '127.0.0.1',
      { ca }
    ],
    ['of another name than is asked for', good, 'localhost', { ca, server_name: 'elsewhere.test' }]
  ]
  for (const [name, certificate, host, settings] of cases) {
    const service = await startSecureService(t, certificate)
    const gateway = await before(t, `https://${host}:${service.port}`, settings)
    const answer = await gateway.call('/x', { method: 'POST', body: 'secret' })
    t.match(answer, { status: 502, headers: { 'proxy-status': /error=tls_certificate_error/ } }, name)
    t.notMatch(answer.text, /certificate|localhost|127\.0\.0\.1/i, 'the client learns nothing of it')
    t.match(await gateway.line({ status_code: 502, method: 'POST' }), { reason: /^connect: \S*(CERT|UNABLE_TO)/ })
    const webSocket = await gateway.call('/x', { headers: HANDSHAKE })
    t.equal(webSocket.status, 502, `${name}, as a WebSocket`)
    t.equal(service.asked(), 0, name)
  }
})

t.test('SEC-02 H-104 with its authority a service is trusted, asked for by name, and shown who asks', async t => {
  const folder = temporaryFolder(t)
  const ca = join(folder, 'authority.crt')
  writeFileSync(ca, authority.cert)
  const service = await startSecureService(t, good, { requestCert: true, rejectUnauthorized: true, ca: authority.cert })
  const client = writeCertificate(folder, 'client', makeCertificate({ name: 'the gateway', issuer: authority }))
  const gateway = await before(t, `https://localhost:${service.port}`, { ca, ...client })
  t.match((await gateway.call('/x')).json, { client: 'the gateway' })
  t.same(service.names, ['localhost'], 'SNI says which service is meant')

  const named = await before(t, `https://127.0.0.1:${service.port}`, { ca, ...client, server_name: 'localhost' })
  t.equal((await named.call('/x')).status, 200)
  t.equal(service.names.at(-1), 'localhost', 'or the name that is configured')

  const nobody = await before(t, `https://localhost:${service.port}`, { ca })
  t.equal((await nobody.call('/x')).status, 502, 'without a client certificate the service refuses')
})

t.test('SEC-02 a new client certificate is taken up like any change of the configuration', async t => {
  const folder = temporaryFolder(t)
  const ca = join(folder, 'authority.crt')
  writeFileSync(ca, authority.cert)
  const service = await startSecureService(t, good, { requestCert: true, ca: authority.cert })
  const client = writeCertificate(folder, 'client', makeCertificate({ name: 'first', issuer: authority }))
  const gateway = await before(t, `https://localhost:${service.port}`, { ca, ...client })
  t.match((await gateway.call('/x')).json, { client: 'first' })
  t.match(await gateway.gateway.reload(), { changed: false })
  gateway.gateway.watch()
  writeCertificate(folder, 'client', makeCertificate({ name: 'second', issuer: authority }))
  await until(async () => (await gateway.call('/x')).json.client === 'second')
})

t.test('SEC-02 certificates that cannot be used are found before anything starts', async t => {
  const folder = temporaryFolder(t)
  const bad = join(folder, 'bad.pem')
  writeFileSync(bad, 'no PEM')
  const mine = writeCertificate(folder, 'mine', good)
  const other = writeCertificate(folder, 'other', makeCertificate({ name: 'other' }))
  for (const [settings, message] of [
    [{ ca: join(folder, 'missing') }, /cannot be read: ENOENT/],
    [{ cert: bad, key: mine.key }, /cannot be used/],
    [{ cert: mine.cert, key: other.key }, /cannot be used: .*mismatch/],
    [{ cert: mine.cert }, /"cert" needs "key"/],
    [{ key: mine.key }, /"key" needs "cert"/]
  ] as const) {
    const [problem, ...others] = await problemsOf(t, {
      'gateway.yaml': `services: { service: { url: "https://localhost", tls: ${JSON.stringify(settings)} } }`
    })
    t.match(problem, { file: 'gateway.yaml', line: 1, message, severity: 'error' })
    t.same(others, [])
  }
})

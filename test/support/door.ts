import type { Test } from 'tap'
import type { GatewayOptions, TestGateway } from './gateway.ts'
import { startGateway } from './gateway.ts'
import { type RawAnswer, raw } from './raw.ts'
import { startRawUpstream } from './upstream.ts'

/** In everything that an attack sends, and so in nothing that may come back. */
export const MARK = 'zq7mark'

/** What a request needs to be one, and the mark. */
export const HOST = `Host: door.test\r\nX-Mark: ${MARK}\r\n`

/** Stands behind every attack: it is never to be acted on. */
const SMUGGLED = `GET /smuggled-${MARK} HTTP/1.1\r\nHost: door.test\r\n\r\n`

export interface Refusal {
  /** 400 unless given. */
  readonly status?: number
  /** What the log says; any reason unless given. */
  readonly reason?: string | RegExp
  /** Nothing is put behind the attack, since it does not end, or is what stands behind. */
  readonly alone?: boolean
}

export interface Door extends TestGateway {
  /** Every byte that has reached the service. */
  received(): string
  /** How often a connection to the service has ended. */
  cut(): number
  /**
   * Sends bytes and asserts the default answer to what is no HTTP: the status, `Connection: close`, a closed connection,
   * nothing sent to the service, one line in the log with a reason and the answer's request id, no echo.
   */
  refuses(t: Test, name: string, bytes: string | string[], expected?: Refusal): Promise<RawAnswer>
}

/** A gateway with one route for everything, open to all, before a service that answers 200 to every head that it gets. */
export async function startDoor(
  t: Test,
  more: { server?: object; route?: object; logging?: object } = {},
  options: GatewayOptions = {}
): Promise<Door> {
  let received = ''
  let cut = 0
  const seen = new WeakSet<object>()
  const service = await startRawUpstream(t, (socket, all) => {
    if (!seen.has(socket)) socket.on('close', () => cut++)
    seen.add(socket)
    received += all.slice((socket as { taken?: number }).taken ?? 0)
    ;(socket as { taken?: number }).taken = all.length
    if (isComplete(all.slice(all.lastIndexOf(' HTTP/1.1\r\n'))))
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
  })
  const { route, ...settings } = more
  const gateway = await startGateway(
    t,
    {
      ...settings,
      services: { service: { url: service.url } },
      routes: [{ path: '/**', service: 'service', authentication: 'none', ...route }]
    },
    options
  )
  let sentinels = 0

  const refuses = async (
    t: Test,
    name: string,
    bytes: string | string[],
    { status = 400, reason = /./, alone = false }: Refusal = {}
  ) => {
    const before = { received: received.length, lines: gateway.lines().length }
    const answer = await raw(gateway.port, alone ? bytes : [...[bytes].flat(), SMUGGLED])
    const reached = received.slice(before.received)
    // Whatever else the log has to say of the attack stands before the line of a request that came after it.
    const sentinel = `/sentinel/${++sentinels}`
    await gateway.call(sentinel)
    await gateway.line({ path: sentinel })
    const lines = gateway
      .lines()
      .slice(before.lines)
      .filter(line => line.path !== sentinel)
    const [line = {}] = lines
    const id = /^x-request-id: (\S+)/im.exec(answer.text)?.[1]
    const body = answer.text.slice(answer.text.indexOf('\r\n\r\n') + 4)
    t.match(
      {
        status: answer.status,
        closed: answer.closed,
        close: /^connection: close/im.test(answer.text),
        answers: answer.text.match(/HTTP\/1\.1 \d/g)?.length,
        reached,
        lines: lines.length,
        logged: { status_code: line.status_code, reason: line.reason, request_id: line.request_id },
        error: parsed(body)?.error
      },
      {
        status,
        closed: true,
        close: true,
        answers: 1,
        reached: /^$/,
        lines: 1,
        logged: { status_code: status, reason, request_id: id ?? 'a request id' },
        error: { status, request_id: id ?? 'a request id', code: /^[a-z_]+$/ }
      },
      name
    )
    t.notMatch(answer.text, MARK, `${name}, without an echo`)
    return answer
  }
  return { ...gateway, received: () => received, cut: () => cut, refuses }
}

/** Whether a request has come to its end. */
function isComplete(request: string): boolean {
  const end = request.indexOf('\r\n\r\n')
  if (end === -1) return false
  const body = request.slice(end + 4)
  if (/\r\ntransfer-encoding:/i.test(request)) return body.endsWith('0\r\n\r\n')
  return body.length >= Number(/\r\ncontent-length: (\d+)/i.exec(request)?.[1] ?? 0)
}

// biome-ignore lint/suspicious/noExplicitAny: whatever came.
function parsed(body: string): any {
  try {
    return JSON.parse(body)
  } catch {
    return undefined
  }
}

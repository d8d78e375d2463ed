import { once } from 'node:events'
import tls, { type TLSSocket } from 'node:tls'
import type { Test } from 'tap'

/** Types of frames (RFC 9113 section 6). */
export const FRAME = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PUSH_PROMISE: 5,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9
} as const

export const FLAG = { NONE: 0, ACK: 1, END_STREAM: 1, END_HEADERS: 4 } as const

/** Codes of errors (RFC 9113 section 7). */
export const CODE = {
  NO_ERROR: 0,
  PROTOCOL_ERROR: 1,
  INTERNAL_ERROR: 2,
  FLOW_CONTROL_ERROR: 3,
  ENHANCE_YOUR_CALM: 11
} as const

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  readonly payload: Buffer
}

/** A connection on which a test writes its frames itself. */
export interface FrameConnection {
  readonly socket: TLSSocket
  /** What has come so far. */
  readonly frames: Frame[]
  /** Sends frames, waiting while the other side does not read; false once the connection is over. */
  send(...bytes: Buffer[]): Promise<boolean>
  /** The code that the other side has ended the connection with, if it has said so. */
  goneWith(): number | undefined
  /** Whether the connection is over. */
  readonly closed: boolean
}

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

export function frame(type: number, flags: number, stream: number, payload: Buffer | number[] = []): Buffer {
  const content = Buffer.from(payload)
  const head = Buffer.alloc(9)
  head.writeUIntBE(content.length, 0, 3)
  head.writeUInt8(type, 3)
  head.writeUInt8(flags, 4)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, content])
}

/** Fields as HPACK literals that are not indexed (RFC 7541 section 6.2.2), byte for byte as they are given. */
export function literals(fields: readonly (readonly [name: string, value: string])[]): Buffer {
  return Buffer.concat(
    fields.flatMap(([name, value]) => [
      Buffer.from([0]),
      literal(Buffer.from(name, 'latin1')),
      literal(Buffer.from(value, 'latin1'))
    ])
  )
}

function literal(text: Buffer): Buffer {
  if (text.length < 127) return Buffer.concat([Buffer.from([text.length]), text])
  const length = [127]
  let rest = text.length - 127
  for (; rest >= 128; rest >>= 7) length.push((rest & 127) | 128)
  return Buffer.concat([Buffer.from([...length, rest]), text])
}

/** The head of a request. @param ends whether it has no body */
export function request(stream: number, fields: readonly (readonly [string, string])[], ends = true): Buffer {
  return frame(FRAME.HEADERS, FLAG.END_HEADERS | (ends ? FLAG.END_STREAM : 0), stream, literals(fields))
}

/** The fields of a plain GET, with `changed` ones instead of those of the same name, and `more` behind them. */
export function fieldsOf(
  changed: Readonly<Record<string, string | undefined>> = {},
  more: readonly (readonly [string, string])[] = []
): (readonly [string, string])[] {
  const fields = { ':method': 'GET', ':scheme': 'https', ':path': '/', ':authority': 'door.test', ...changed }
  const given = Object.entries(fields).filter((field): field is [string, string] => field[1] !== undefined)
  return [...given, ...more]
}

/** Opens a connection, agrees on HTTP/2, and exchanges settings. */
export async function connectFrames(t: Test, port: number): Promise<FrameConnection> {
  const socket = tls.connect({ port, host: '127.0.0.1', ALPNProtocols: ['h2'], rejectUnauthorized: false })
  const frames: Frame[] = []
  let rest: Buffer = Buffer.alloc(0)
  let closed = false
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  const over = new Promise<void>(resolve => {
    socket.on('close', () => {
      closed = true
      resolve()
    })
  })
  socket.on('data', chunk => {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 9 && rest.length >= 9 + rest.readUIntBE(0, 3)) {
      const end = 9 + rest.readUIntBE(0, 3)
      const [type, flags, stream] = [rest.readUInt8(3), rest.readUInt8(4), rest.readUInt32BE(5)]
      frames.push({ type, flags, stream, payload: rest.subarray(9, end) })
      rest = rest.subarray(end)
    }
  })
  await once(socket, 'secureConnect')
  const send = async (...bytes: Buffer[]): Promise<boolean> => {
    if (closed || socket.destroyed) return false
    if (!socket.write(Buffer.concat(bytes)))
      await Promise.race([new Promise(resolve => socket.once('drain', resolve)), over])
    return !closed
  }
  await send(PREFACE, frame(FRAME.SETTINGS, FLAG.NONE, 0), frame(FRAME.SETTINGS, FLAG.ACK, 0))
  const goneWith = (): number | undefined =>
    frames.findLast(({ type }) => type === FRAME.GOAWAY)?.payload.readUInt32BE(4)
  return {
    socket,
    frames,
    send,
    goneWith,
    get closed() {
      return closed
    }
  }
}

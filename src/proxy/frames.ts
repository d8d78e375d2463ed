import { randomBytes } from 'node:crypto'

/** The most bytes that come before a frame's payload. */
const LONGEST_HEAD = 14

/**
 * Follows one direction of a WebSocket without looking into it: where does a frame end (RFC 6455 section 5.2)? Only there
 * may a frame of our own be put in. Costs an addition per chunk within a frame.
 */
export class FrameFollower {
  /** Payload bytes of the current frame still to come. */
  #left = 0
  /** The bytes of a frame's head that have come so far. */
  readonly #head: number[] = []

  /** Whether the last chunk ended where a frame ends. */
  get atBoundary(): boolean {
    return this.#left === 0 && this.#head.length === 0
  }

  /** Follows `chunk`; returns how much of it belongs to frames that end in it. */
  push(chunk: Buffer): number {
    let at = 0
    let whole = 0
    while (at < chunk.length) {
      if (this.#left > 0) {
        const step = Math.min(this.#left, chunk.length - at)
        this.#left -= step
        at += step
      } else if (this.#head.length === 0 && chunk.length - at >= LONGEST_HEAD) {
        this.#left = payloadLength(chunk, at)
        at += headLength(chunk[at + 1] as number)
      } else {
        // A head that may come in pieces.
        this.#head.push(chunk[at++] as number)
        if (this.#head.length < 2 || this.#head.length < headLength(this.#head[1] as number)) continue
        this.#left = payloadLength(this.#head, 0)
        this.#head.length = 0
      }
      if (this.#left === 0 && this.#head.length === 0) whole = at
    }
    return whole
  }
}

/** @param second the head's second byte */
function headLength(second: number): number {
  const length = second & 0x7f
  return 2 + (length === 126 ? 2 : length === 127 ? 8 : 0) + (second & 0x80 ? 4 : 0)
}

/** @param at where the head begins */
function payloadLength(bytes: ArrayLike<number>, at: number): number {
  const length = (bytes[at + 1] as number) & 0x7f
  if (length < 126) return length
  const end = at + (length === 126 ? 4 : 10)
  let total = 0
  for (let i = at + 2; i < end; i++) total = total * 256 + (bytes[i] as number)
  return total
}

/** A close frame. @param masked as a client has to send it. */
export function closeFrame(code: number, reason: string, masked: boolean): Buffer {
  const payload = Buffer.alloc(2 + Buffer.byteLength(reason))
  payload.writeUInt16BE(code, 0)
  payload.write(reason, 2)
  if (!masked) return Buffer.concat([Buffer.from([0x88, payload.length]), payload])
  const mask = randomBytes(4)
  for (let i = 0; i < payload.length; i++) payload[i] = (payload[i] as number) ^ (mask[i % 4] as number)
  return Buffer.concat([Buffer.from([0x88, 0x80 | payload.length]), mask, payload])
}

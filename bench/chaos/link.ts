import { once } from 'node:events'
import net, { type Socket } from 'node:net'

/** What happens between the gateway and an instance. */
export type LinkFault =
  /** Nobody listens, and who is connected is cut off: the instance has been killed. */
  | 'kill'
  /** Nothing goes through in either direction until it is over, and then all of it: packets have been lost for a while. */
  | 'blackhole'
  /** Each connection is reset after some bytes of an answer. */
  | 'reset'
  /** Answers come 256 bytes at a time, with pauses. */
  | 'drip'

const DRIP_BYTES = 256
const DRIP_PAUSE_MS = 25
const MOST_BYTES_TO_RESET = 4000

/** Two sockets that are joined: the gateway's and the instance's. */
interface Pair {
  readonly gateway: Socket
  readonly instance: Socket
  /** Bytes of answers until it is reset, while that is what happens. */
  left: number
}

/** The way to one instance: a listener that passes bytes on, as long as nothing is wrong with it. */
export class Link {
  readonly #to: number
  readonly #random: () => number
  readonly #server: net.Server
  readonly #pairs = new Set<Pair>()
  readonly port: number
  #fault: LinkFault | undefined

  /** @param port where to listen @param to where the instance does */
  constructor(port: number, to: number, random: () => number) {
    this.port = port
    this.#to = to
    this.#random = random
    this.#server = net.createServer({ noDelay: true, allowHalfOpen: true }, socket => this.#join(socket))
  }

  async listen(): Promise<void> {
    await once(this.#server.listen(this.port, '127.0.0.1'), 'listening')
  }

  /** Breaks it, or mends it when no fault is given. */
  async set(fault: LinkFault | undefined): Promise<void> {
    const before = this.#fault
    this.#fault = fault
    if (fault === 'kill') this.close()
    else if (!this.#server.listening) await this.listen()
    for (const pair of this.#pairs) {
      pair.left = this.#bytesToReset()
      if (fault === 'blackhole') this.#pause(pair)
      else if (before === 'blackhole') this.#resume(pair)
    }
  }

  close(): void {
    this.#server.close()
    for (const { gateway, instance } of this.#pairs) {
      // As the kernel does for one that is killed: a reset when something was left unread, else an end.
      if (this.#random() < 0.5) gateway.resetAndDestroy()
      else gateway.destroy()
      instance.destroy()
    }
  }

  #bytesToReset(): number {
    return Math.floor(this.#random() * MOST_BYTES_TO_RESET)
  }

  #join(gateway: Socket): void {
    const instance = net.connect({ port: this.#to, host: '127.0.0.1', noDelay: true, allowHalfOpen: true })
    const pair: Pair = { gateway, instance, left: this.#bytesToReset() }
    this.#pairs.add(pair)
    gateway.on('error', () => instance.destroy())
    instance.on('error', () => gateway.destroy())
    gateway.on('close', () => {
      this.#pairs.delete(pair)
      instance.destroy()
    })
    instance.on('close', () => gateway.destroy())
    gateway.on('end', () => instance.end())
    instance.on('end', () => gateway.end())
    gateway.on('data', chunk => pass(chunk, gateway, instance))
    instance.on('data', chunk => this.#answer(chunk, pair))
    if (this.#fault === 'blackhole') this.#pause(pair)
  }

  #answer(chunk: Buffer, pair: Pair): void {
    const { gateway, instance } = pair
    if (this.#fault === 'drip') return void this.#drip(chunk, pair)
    if (this.#fault !== 'reset') return pass(chunk, instance, gateway)
    if (chunk.length < pair.left) {
      pair.left -= chunk.length
      return pass(chunk, instance, gateway)
    }
    instance.removeAllListeners('data').destroy()
    gateway.write(chunk.subarray(0, pair.left), () => gateway.resetAndDestroy())
  }

  async #drip(chunk: Buffer, { gateway, instance }: Pair): Promise<void> {
    instance.pause()
    for (let at = 0; at < chunk.length && !gateway.destroyed; at += DRIP_BYTES) {
      gateway.write(chunk.subarray(at, at + DRIP_BYTES))
      await new Promise(resolve => setTimeout(resolve, DRIP_PAUSE_MS))
    }
    if (this.#fault !== 'blackhole') instance.resume()
  }

  #pause({ gateway, instance }: Pair): void {
    gateway.pause()
    instance.pause()
  }

  #resume({ gateway, instance }: Pair): void {
    gateway.resume()
    instance.resume()
  }
}

function pass(chunk: Buffer, from: Socket, to: Socket): void {
  if (to.write(chunk)) return
  from.pause()
  to.once('drain', () => from.resume())
}

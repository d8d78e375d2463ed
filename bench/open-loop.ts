import net from 'node:net'

/** Requests at a given rate, whatever the answers do: a slow answer makes no pause for anybody. */
export interface OpenLoop {
  readonly port: number
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  /** Kept open all the time; requests go to those that wait longest. */
  readonly connections: number
  readonly perSecond: number
  readonly seconds: number
}

export interface Latencies {
  readonly answers: number
  /** Answers other than 200, connections that broke, requests without an answer within two seconds of the end. */
  readonly errors: number
  /** Connections that were open at once. */
  readonly connections: number
  /** Milliseconds from when the request was due, so that a late start counts as well. */
  readonly p50: number
  readonly p99: number
  readonly max: number
}

const LAST_ANSWERS_MS = 2000

export async function openLoop(load: OpenLoop): Promise<Latencies> {
  const loop = new Loop(load)
  await loop.connect()
  return loop.run()
}

class Loop {
  readonly #load: OpenLoop
  readonly #request: Buffer
  readonly #idle: Client[] = []
  /** When requests were due for which no connection was free. */
  readonly #waiting: number[] = []
  readonly #latencies: number[] = []
  #clients: Client[] = []
  #errors = 0

  constructor(load: OpenLoop) {
    this.#load = load
    const fields = Object.entries({ Host: '127.0.0.1', ...load.headers })
    this.#request = Buffer.from(
      `GET ${load.path} HTTP/1.1\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`
    )
  }

  async connect(): Promise<void> {
    const { connections, port } = this.#load
    this.#clients = await Promise.all(Array.from({ length: connections }, () => Client.connect(port)))
    for (const client of this.#clients) {
      client.onAnswer = (status, latency) => {
        if (status === 200) this.#latencies.push(latency)
        else this.#errors++
        const due = this.#waiting.shift()
        if (due === undefined) this.#idle.push(client)
        else client.send(this.#request, due)
      }
      client.onBroken = () => this.#errors++
      this.#idle.push(client)
    }
  }

  async run(): Promise<Latencies> {
    const { perSecond, seconds } = this.#load
    const all = perSecond * seconds
    const since = performance.now()
    let sent = 0
    await new Promise<void>(resolve => {
      const timer = setInterval(() => {
        const due = Math.min(all, Math.floor(((performance.now() - since) / 1000) * perSecond))
        for (; sent < due; sent++) this.#send(since + (sent / perSecond) * 1000)
        if (sent === all) {
          clearInterval(timer)
          resolve()
        }
      }, 1)
    })
    for (let waited = 0; waited < LAST_ANSWERS_MS && this.#latencies.length + this.#errors < all; waited += 10)
      await new Promise(resolve => setTimeout(resolve, 10))
    const connections = this.#clients.filter(({ open }) => open).length
    for (const client of this.#clients) client.close()
    const sorted = this.#latencies.toSorted((a, b) => a - b)
    const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
    return {
      answers: sorted.length,
      errors: all - sorted.length,
      connections,
      p50: at(0.5),
      p99: at(0.99),
      max: at(1)
    }
  }

  #send(due: number): void {
    const client = this.#idle.shift()
    if (client === undefined) this.#waiting.push(due)
    else client.send(this.#request, due)
  }
}

/** One connection that has one request under way at a time. */
class Client {
  readonly #socket: net.Socket
  #due = 0
  #text = ''
  open = true
  onAnswer: (status: number, latency: number) => void = () => {}
  onBroken: () => void = () => {}

  private constructor(socket: net.Socket) {
    this.#socket = socket
    socket.setNoDelay(true)
    socket.setEncoding('latin1')
    socket.on('data', text => this.#read(text as unknown as string))
    socket.on('error', () => {})
    socket.on('close', () => {
      if (this.open) this.onBroken()
      this.open = false
    })
  }

  static connect(port: number): Promise<Client> {
    return new Promise((resolve, reject) => {
      const socket = net.connect(port, '127.0.0.1', () => {
        socket.off('error', reject)
        resolve(new Client(socket))
      })
      socket.on('error', reject)
    })
  }

  /** @param due when it should have been sent */
  send(request: Buffer, due: number): void {
    this.#due = due
    this.#socket.write(request)
  }

  /** An answer is complete when as much has come as its head announced; all that are measured announce it. */
  #read(text: string): void {
    this.#text = this.#text === '' ? text : this.#text + text
    const head = this.#text.indexOf('\r\n\r\n')
    if (head === -1) return
    const length = Number(/\r\ncontent-length: *(\d+)/i.exec(this.#text.slice(0, head))?.[1] ?? 0)
    if (this.#text.length < head + 4 + length) return
    const status = Number(this.#text.slice(9, 12))
    this.#text = ''
    this.onAnswer(status, performance.now() - this.#due)
  }

  close(): void {
    this.open = false
    this.#socket.destroy()
  }
}

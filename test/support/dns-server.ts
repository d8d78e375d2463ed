import dgram from 'node:dgram'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'

/** What a name stands for. */
export interface Records {
  readonly A?: readonly string[]
  readonly AAAA?: readonly string[]
  readonly SRV?: readonly { priority: number; weight: number; port: number; name: string }[]
  /** In seconds; 1 if not given. */
  readonly ttl?: number
  /** 2 is SERVFAIL; by type. */
  readonly fails?: Partial<Record<'A' | 'AAAA' | 'SRV', number>>
}

export interface DnsServer {
  /** `127.0.0.1:5353` */
  readonly address: string
  /** By name, in lower case; others are NXDOMAIN. */
  readonly zone: Map<string, Records>
  /** `A orders.test`, as they were asked. */
  readonly asked: string[]
  stop(): Promise<void>
  start(): Promise<void>
}

const TYPES = { 1: 'A', 28: 'AAAA', 33: 'SRV' } as const

/** A name server on UDP (RFC 1035), for as long as the test runs. */
export async function startDnsServer(t: Test): Promise<DnsServer> {
  const zone = new Map<string, Records>()
  const asked: string[] = []
  let port = 0
  let socket: dgram.Socket | undefined
  const start = async (): Promise<void> => {
    const opened = dgram.createSocket('udp4')
    opened.on('message', (query, from) => opened.send(answer(query, zone, asked), from.port, from.address))
    await new Promise<void>(resolve => opened.bind(port, '127.0.0.1', resolve))
    port = (opened.address() as AddressInfo).port
    socket = opened
  }
  const stop = (): Promise<void> =>
    new Promise(resolve => {
      if (socket === undefined) return resolve()
      socket.close(() => resolve())
      socket = undefined
    })
  await start()
  t.teardown(stop)
  return { address: `127.0.0.1:${port}`, zone, asked, start, stop }
}

function answer(query: Buffer, zone: DnsServer['zone'], asked: string[]): Buffer {
  let at = 12
  const labels: string[] = []
  for (let length = query[at] as number; length > 0; length = query[at] as number) {
    labels.push(query.toString('latin1', at + 1, at + 1 + length))
    at += length + 1
  }
  const name = labels.join('.').toLowerCase()
  const type = TYPES[query.readUInt16BE(at + 1) as keyof typeof TYPES] ?? 'A'
  asked.push(`${type} ${name}`)
  const records = zone.get(name)
  const fails = records?.fails?.[type] ?? 0
  const data = records === undefined || fails > 0 ? [] : dataOf(records, type)
  const head = Buffer.alloc(12)
  query.copy(head, 0, 0, 2)
  head.writeUInt16BE(0x8580 | (records === undefined ? 3 : fails), 2)
  head.writeUInt16BE(1, 4)
  head.writeUInt16BE(data.length, 6)
  const answers = data.flatMap(bytes => {
    const fields = Buffer.alloc(12)
    // The name is the one in the question.
    fields.writeUInt16BE(0xc00c, 0)
    query.copy(fields, 2, at + 1, at + 5)
    fields.writeUInt32BE(records?.ttl ?? 1, 6)
    fields.writeUInt16BE(bytes.length, 10)
    return [fields, bytes]
  })
  return Buffer.concat([head, query.subarray(12, at + 5), ...answers])
}

function dataOf({ A = [], AAAA = [], SRV = [] }: Records, type: 'A' | 'AAAA' | 'SRV'): Buffer[] {
  if (type === 'A') return A.map(address => Buffer.from(address.split('.').map(Number)))
  if (type === 'AAAA') return AAAA.map(bytesOf)
  return SRV.map(({ priority, weight, port, name }) => {
    const numbers = Buffer.alloc(6)
    for (const [i, number] of [priority, weight, port].entries()) numbers.writeUInt16BE(number, i * 2)
    const labels = name.split('.').flatMap(label => [Buffer.from([label.length]), Buffer.from(label)])
    return Buffer.concat([numbers, ...labels, Buffer.from([0])])
  })
}

function bytesOf(address: string): Buffer {
  const [before = '', after = ''] = address.split('::')
  const [start, end] = [before, after].map(part => part.split(':').filter(word => word !== ''))
  const words = [...(start ?? []), ...Array(8 - (start?.length ?? 0) - (end?.length ?? 0)).fill('0'), ...(end ?? [])]
  return Buffer.from(words.map(word => word.padStart(4, '0')).join(''), 'hex')
}

import { BlockList, isIP, isIPv4, isIPv6, type Socket } from 'node:net'
import { refuse } from '../errors.ts'
import type { Turns } from './turns.ts'

/** Which addresses are proxies of ours, whose word on the client's address counts. */
export interface TrustedProxies {
  has(address: string): boolean
}

/**
 * Compiles addresses and CIDR ranges (`10.0.0.0/8`, `::1`) into a look-up; `loopback` and `private` stand for the usual
 * ranges. @throws {Error} for an entry that is no address.
 */
export function addressSet(entries: readonly string[]): TrustedProxies {
  if (entries.length === 0) return { has: () => false }
  const list = new BlockList()
  for (const entry of entries.flatMap(name => NAMED_RANGES[name] ?? [name])) {
    const [address = '', prefix] = entry.split('/')
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    if (prefix === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(prefix), family)
  }
  return { has: address => list.check(address, isIPv6(address) ? 'ipv6' : 'ipv4') }
}

/** What is wrong with an entry that is to be in an {@link addressSet}, in words. */
export function rangeFault(entry: string): string | undefined {
  if (Object.hasOwn(NAMED_RANGES, entry)) return undefined
  const [, address = '', prefix] = /^([^/%]+)(?:\/(\d{1,3}))?$/.exec(entry) ?? []
  const family = isIP(address)
  if (family !== 0 && Number(prefix ?? 0) <= (family === 4 ? 32 : 128)) return undefined
  return `"${entry}" is no address and no range: write 192.0.2.7 or 10.0.0.0/8`
}

const NAMED_RANGES: Record<string, string[]> = {
  loopback: ['127.0.0.0/8', '::1'],
  private: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7', 'fe80::/10', '169.254.0.0/16']
}

/** `::ffff:192.0.2.1` is 192.0.2.1: one client, one name for its limits. */
export function plainAddress(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address
}

/** What is known of a connection, worked out once and kept on its socket. */
export class Peer {
  /** The address at the other end of the socket. */
  readonly address: string
  /** Whether it is one of `server.trusted_proxies`. */
  readonly trusted: boolean
  readonly protocol: 'http' | 'https'
  /** The id of the batch whose sub-requests come on this connection; '' for connections from outside. */
  readonly batch: string
  /** Unset for HTTP/2, whose requests need no turns. */
  turns: Turns | undefined
  #rawHost = ''
  #host = ''
  #forwardingHost = ''
  #forwarding: readonly string[] = []

  constructor(socket: Pick<Socket, 'remoteAddress'>, proxies: TrustedProxies, batch = '') {
    this.batch = batch
    this.address = plainAddress(socket.remoteAddress ?? '')
    this.trusted = this.address !== '' && proxies.has(this.address)
    this.protocol = 'encrypted' in socket ? 'https' : 'http'
  }

  /**
   * The host to route by: lower case, no port, no trailing dot (H-36). A client keeps to one host, so the last is kept.
   * @throws {GatewayError} 400 for one that is no host.
   */
  hostOf(raw: string): string {
    if (raw !== this.#rawHost) {
      this.#host = parseHost(raw)
      this.#rawHost = raw
    }
    return this.#host
  }

  /**
   * The fields that tell a service where a request came from, for a client that sits at this very connection: de-facto
   * `X-Forwarded-*` and RFC 7239 `Forwarded`. The same array for as long as the client keeps to one host.
   */
  forwardingFields(host: string): readonly string[] {
    if (host !== this.#forwardingHost || this.#forwarding.length === 0) {
      this.#forwardingHost = host
      this.#forwarding = forwardingFields(this.address, this.address, this.protocol, host)
    }
    return this.#forwarding
  }
}

/** What a URL may have as its host and port, but for characters that no name on a network has (RFC 3986 section 3.2.2). */
const HOST = /^(?:\[([0-9a-fA-F:.]+)\]|([\w-]+(?:\.[\w-]+)*)\.?)(?::(\d{0,5}))?$/

function parseHost(raw: string): string {
  const [, ipv6, name, port] = HOST.exec(raw) ?? []
  if (ipv6 === undefined ? name === undefined : !isIPv6(ipv6)) throw refuse('bad_request', { reason: 'bad_host' })
  if (Number(port ?? 0) > 65535) throw refuse('bad_request', { reason: 'bad_host' })
  return (name ?? `[${ipv6}]`).toLowerCase()
}

/** Whether `raw` may stand for a host and port in a field. */
export function isHost(raw: string): boolean {
  return HOST.test(raw)
}

/** @param chain what `X-Forwarded-For` says: the client, then every proxy that passed the request on. */
export function forwardingFields(client: string, chain: string, protocol: string, host: string): readonly string[] {
  const node = client.includes(':') ? `"[${client}]"` : client
  return [
    'x-forwarded-for',
    chain,
    'x-forwarded-proto',
    protocol,
    'x-forwarded-host',
    host,
    'forwarded',
    `for=${node};host="${host}";proto=${protocol}`
  ]
}

const MAX_HOPS = 100

/**
 * The client behind trusted proxies: the rightmost hop of `X-Forwarded-For` that is not one of them (CVE-2026-110724 took
 * the leftmost). Only the last {@link MAX_HOPS} are looked at; a hop that is no address ends the search (H-41, H-42).
 */
export function clientBehind(peer: string, forwardedFor: string, proxies: TrustedProxies): string {
  let client = peer
  let end = forwardedFor.length
  for (let hop = 0; hop < MAX_HOPS && end > 0; hop++) {
    const comma = forwardedFor.lastIndexOf(',', end - 1)
    const address = hopAddress(forwardedFor.slice(comma + 1, end).trim())
    if (address === undefined) return client
    client = address
    if (!proxies.has(client) || comma === -1) return client
    end = comma
  }
  return client
}

/** The address in `192.0.2.1`, `192.0.2.1:4711`, `[2001:db8::1]:4711` or `"[2001:db8::1]"`. */
function hopAddress(hop: string): string | undefined {
  const match =
    /^"?(?:\[([0-9a-fA-F:.]{2,45})\](?::\d{1,5})?|(\d{1,3}(?:\.\d{1,3}){3})(?::\d{1,5})?|([0-9a-fA-F:.]{2,45}))"?$/.exec(
      hop
    )
  const address = match && (match[1] ?? match[2] ?? match[3])
  if (!address) return undefined
  const plain = plainAddress(address.toLowerCase())
  return isIPv4(plain) || isIPv6(plain) ? plain : undefined
}

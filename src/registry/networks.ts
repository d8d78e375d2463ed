import { lookup as systemLookup } from 'node:dns'
import { BlockList, isIP, isIPv6, type LookupFunction } from 'node:net'

/** Where registered services may be: `registry.allow`. */
export interface Networks {
  allows(address: string): boolean
}

/** What stands for a set of addresses; each address is in one of them, or in none of them. */
export const NETWORK_WORDS = ['public', 'private', 'loopback'] as const

const LOOPBACK = ['127.0.0.0/8', '::1/128']
const PRIVATE = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7']
/**
 * Not meant for services: unspecified, link-local, multicast and reserved addresses, clouds' metadata wherever it is, and
 * IPv6 forms that a router turns into any IPv4 address. Only a network that names them lets them in.
 */
const SPECIAL = [
  ...['0.0.0.0/8', '169.254.0.0/16', '192.0.0.0/24', '198.18.0.0/15', '224.0.0.0/4', '240.0.0.0/4'],
  ...['::/96', 'fe80::/10', 'ff00::/8', '64:ff9b::/96', '64:ff9b:1::/48', '2002::/16', '2001::/32'],
  ...['fd00:ec2::254/128', 'fd20:ce::254/128', '100.100.100.200/32', '168.63.129.16/32']
]

const [loopback, local, special] = [LOOPBACK, PRIVATE, SPECIAL].map(listOf) as [BlockList, BlockList, BlockList]

/**
 * Compiles `registry.allow`.
 * @param entries {@link NETWORK_WORDS}, addresses and CIDR ranges
 */
export function networksOf(entries: readonly string[]): Networks {
  const words = new Set(entries)
  const named = listOf(entries.filter(entry => !(NETWORK_WORDS as readonly string[]).includes(entry)))
  return {
    allows(given) {
      const address = asIPv4(given)
      if (contains(named, address)) return true
      if (contains(loopback, address)) return words.has('loopback')
      if (contains(special, address)) return false
      return words.has(contains(local, address) ? 'private' : 'public')
    }
  }
}

/** Whether an entry of `registry.allow` can be understood. */
export function isNetwork(entry: string): boolean {
  if ((NETWORK_WORDS as readonly string[]).includes(entry)) return true
  const [, address = '', , prefix] = /^([^/]+)(\/(\d{1,3}))?$/.exec(entry) ?? []
  return isIP(address) !== 0 && (prefix === undefined || Number(prefix) <= (isIPv6(address) ? 128 : 32))
}

/** The address that a URL names, if it is one and not a name. */
export function addressOf({ hostname }: URL): string | undefined {
  const address = hostname.startsWith('[') ? hostname.slice(1, -1) : hostname
  return isIP(address) === 0 ? undefined : address
}

/**
 * Node's look-up of names, but for addresses outside of `networks`: what a name stood for when it was registered says nothing
 * about what it stands for when a connection is opened.
 */
export function lookupWithin(networks: Networks, lookup: typeof systemLookup = systemLookup): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, found) => {
      if (error !== null) return callback(error, [])
      const allowed = found.filter(({ address }) => networks.allows(address))
      const [first] = allowed
      if (first === undefined) return callback(new NotAllowed(hostname), [])
      if (options.all) callback(null, allowed)
      else callback(null, first.address, first.family)
    })
  }
}

/**
 * How the addresses of an instance are found; undefined leaves that to the system.
 * @param address where it is, if that is known already
 * @param networks `registry.allow`, if it holds for the service
 */
export function lookupOf({ address, networks }: LookupTerms): LookupFunction | undefined {
  if (address !== undefined) return lookupAt(address)
  return networks === undefined ? undefined : lookupWithin(networksOf(networks))
}

export interface LookupTerms {
  readonly address?: string | undefined
  readonly networks?: readonly string[] | undefined
}

/** What every name stands for is `address`. */
function lookupAt(address: string): LookupFunction {
  const found = { address, family: isIP(address) }
  return (_name, { all }, callback) => {
    if (all) callback(null, [found])
    else callback(null, found.address, found.family)
  }
}

/** A name leads where registered services must not be. */
class NotAllowed extends Error {
  readonly code = 'ERR_NOT_ALLOWED'

  constructor(hostname: string) {
    super(`${hostname} leads to no address that registry.allow allows`)
  }
}

function listOf(entries: readonly string[]): BlockList {
  const list = new BlockList()
  for (const entry of entries) {
    const [address = '', prefix] = entry.split('/')
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    if (prefix === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(prefix), family)
  }
  return list
}

function contains(list: BlockList, address: string): boolean {
  return list.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
}

/** `::ffff:7f00:1` and `::ffff:127.0.0.1` are 127.0.0.1. */
function asIPv4(address: string): string {
  const [, dotted, high, low] = /^::ffff:(?:([\d.]+)|([0-9a-f]{1,4}):([0-9a-f]{1,4}))$/i.exec(address) ?? []
  if (dotted !== undefined) return dotted
  if (high === undefined || low === undefined) return address
  const [a, b] = [Number.parseInt(high, 16), Number.parseInt(low, 16)]
  return [a >> 8, a & 255, b >> 8, b & 255].join('.')
}

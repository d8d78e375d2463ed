import { lookup } from 'node:dns/promises'
import { networkInterfaces } from 'node:os'
import { addressOf, networksOf } from './networks.ts'

/** Something about an address of a service. */
export interface Finding {
  /** The address, as it was given. */
  readonly url: string
  readonly message: string
}

/**
 * Looks at where services would be reached: names stand for addresses, and some of these are nobody's business (H-123).
 * Connections look again, since names change their mind.
 * @param allow `registry.allow`
 * @param ports on which this gateway listens
 */
export async function checkTargets(
  urls: readonly string[],
  allow: readonly string[],
  ports: readonly number[]
): Promise<{ faults: Finding[]; doubts: Finding[] }> {
  const networks = networksOf(allow)
  const faults: Finding[] = []
  const doubts: Finding[] = []
  await Promise.all(
    urls.map(async text => {
      if (!URL.canParse(text)) return
      const url = new URL(text)
      const addresses = await addressesOf(url)
      if (addresses.length === 0)
        doubts.push({ url: text, message: `${url.hostname} has no address yet, or none that is known here` })
      const foreign = addresses.find(address => !networks.allows(address))
      const port = Number(url.port || (url.protocol === 'https:' ? 443 : 80))
      if (ports.includes(port) && addresses.some(isOurs))
        faults.push({ url: text, message: 'leads to this gateway itself' })
      else if (foreign !== undefined)
        faults.push({ url: text, message: `leads to ${foreign}, which "registry.allow" does not allow` })
    })
  )
  return { faults, doubts }
}

async function addressesOf(url: URL): Promise<string[]> {
  const address = addressOf(url)
  if (address !== undefined) return [address]
  try {
    return (await lookup(url.hostname, { all: true })).map(({ address }) => address)
  } catch {
    return []
  }
}

function isOurs(address: string): boolean {
  if (networksOf(['loopback']).allows(address) || /^(?:0\.0\.0\.0|::)$/.test(address)) return true
  return Object.values(networkInterfaces()).some(list => list?.some(entry => entry.address === address))
}

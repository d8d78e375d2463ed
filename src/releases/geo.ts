import { createHash } from 'node:crypto'
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Exchange } from '../proxy/exchange.ts'
import { TwoGenerations } from '../runtime/two-generations.ts'
import { type Static, Type } from '../schema.ts'

/** Addresses of which the country is remembered; looking one up takes some microseconds. */
const REMEMBERED = 4096

export const geo = Type.Object(
  {
    header: Type.Optional(
      Type.String({
        description:
          'Field in which a trusted proxy says the country: `CF-IPCountry`. From anybody else it is dropped.',
        pattern: "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
      })
    ),
    database: Type.Optional(
      Type.String({ description: 'File in the MaxMind DB format, for what no proxy says. Read again when it changes.' })
    )
  },
  { description: 'How it is known from which country a request comes.', default: {} }
)

export type GeoSettings = Static<typeof geo>

/** The settings, and what tells the database from others: another one is another configuration. */
export interface GeoConfig {
  readonly header: string | undefined
  readonly database: { readonly file: string; readonly print: string } | undefined
}

/** The country of an address by ISO 3166-1, in upper case; '' where nobody knows. */
export type Countries = (address: string) => string

/** What databases of countries say of an address: MaxMind's own, and the plainer ones. */
interface CountryRecord {
  readonly country?: { readonly iso_code?: string }
  readonly country_code?: string
}

/** The end of such a file holds its metadata, with the time of its making, in bytes. */
const METADATA_BYTES = 65536

/** What tells the database in a file from others, without reading all of it; '' if there is none. */
export function fingerprintOf(file: string): string {
  try {
    const handle = openSync(file, 'r')
    try {
      const { size } = fstatSync(handle)
      const end = Buffer.alloc(Math.min(size, METADATA_BYTES))
      readSync(handle, end, 0, end.length, size - end.length)
      return `${size}:${createHash('sha256').update(end).digest('hex')}`
    } finally {
      closeSync(handle)
    }
  } catch {
    return ''
  }
}

/**
 * Reads a database of countries into memory.
 * @throws {Error} for a file that is not there, or no such database
 */
export async function openCountries(file: string): Promise<Countries> {
  const [{ Reader }, content] = await Promise.all([import('mmdb-lib'), readFile(file)])
  const reader = new Reader(content)
  const known = new TwoGenerations<string>(REMEMBERED)
  return address => {
    let country = known.get(address)
    if (country === undefined) {
      // One of IPv4 addresses would take the first bits of an IPv6 address for one.
      const holds = reader.metadata.ipVersion === 6 || !address.includes(':')
      const record = holds ? (reader.get(address) as CountryRecord | null) : null
      country = countryOf(record?.country?.iso_code ?? record?.country_code)
      known.set(address, country)
    }
    return country
  }
}

/** A country's code, or '' for everything else that may stand in its place: `XX` and `T1` are no countries. */
function countryOf(text: string | undefined): string {
  const code = text?.trim().toUpperCase() ?? ''
  return /^[A-Z]{2}$/.test(code) && code !== 'XX' && code !== 'ZZ' ? code : ''
}

/** The function that says from which country a request comes, for the route table. */
export function compileCountry(
  { header }: Pick<GeoConfig, 'header'>,
  countries: Countries | undefined
): (exchange: Pick<Exchange, 'peer' | 'client' | 'header' | 'dropUpstreamField'>) => string {
  const field = header?.toLowerCase()
  return exchange => {
    if (field !== undefined) {
      if (exchange.peer.trusted) {
        const country = countryOf(exchange.header(field))
        if (country !== '') return country
      } else exchange.dropUpstreamField(field)
    }
    return countries === undefined ? '' : countries(exchange.client)
  }
}

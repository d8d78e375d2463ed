import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'

/** A certificate and its key, PEM. */
export interface Certificate {
  readonly cert: string
  readonly key: string
}

export interface CertificateOptions {
  /** Common name; every certificate of a test should have its own. */
  readonly name: string
  /** Host names and addresses it is good for. */
  readonly hosts?: readonly string[]
  /** Who signs it; itself if not given. */
  readonly issuer?: Issuer
  readonly authority?: boolean
  readonly from?: Date
  readonly to?: Date
}

export interface Issuer extends Certificate {
  readonly name: string
}

/** Makes a certificate (RFC 5280) with an ECDSA key, so that tests need neither openssl nor files that expire. */
export function makeCertificate(options: CertificateOptions): Issuer {
  const { name, hosts = [], issuer, authority = false } = options
  const { from = new Date(Date.now() - 3_600_000), to = new Date(Date.now() + 365 * 86_400_000) } = options
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  const algorithm = sequence(oid('2a8648ce3d040302'))
  const body = sequence(
    der(0xa0, integer(Buffer.from([2]))),
    integer(Buffer.concat([Buffer.from([1]), randomBytes(15)])),
    algorithm,
    nameOf(issuer?.name ?? name),
    sequence(time(from), time(to)),
    nameOf(name),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(...extensions(hosts, authority)))
  )
  const signature = sign('sha256', body, issuer?.key ?? key)
  return { name, key, cert: pem(sequence(body, algorithm, der(0x03, Buffer.from([0]), signature))) }
}

/** Writes a certificate and its key into `folder`; returns where they are. */
export function writeCertificate(folder: string, name: string, { cert, key }: Certificate): Certificate {
  const files = { cert: join(folder, `${name}.crt`), key: join(folder, `${name}.key`) }
  writeFileSync(files.cert, cert)
  writeFileSync(files.key, key)
  return files
}

function extensions(hosts: readonly string[], authority: boolean): Buffer[] {
  const constraints = sequence(oid('551d13'), TRUE, der(0x04, sequence(...(authority ? [TRUE] : []))))
  if (hosts.length === 0) return [constraints]
  const names = hosts.map(host =>
    isIP(host) === 4 ? der(0x87, Buffer.from(host.split('.').map(Number))) : der(0x82, Buffer.from(host))
  )
  return [constraints, sequence(oid('551d11'), der(0x04, sequence(...names)))]
}

const TRUE = Buffer.from([0x01, 0x01, 0xff])

function der(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts)
  const length =
    content.length < 128
      ? Buffer.from([content.length])
      : content.length < 256
        ? Buffer.from([0x81, content.length])
        : Buffer.from([0x82, content.length >> 8, content.length & 255])
  return Buffer.concat([Buffer.from([tag]), length, content])
}

function sequence(...parts: Buffer[]): Buffer {
  return der(0x30, ...parts)
}

function integer(value: Buffer): Buffer {
  return der(0x02, value)
}

function oid(hex: string): Buffer {
  return der(0x06, Buffer.from(hex, 'hex'))
}

function nameOf(common: string): Buffer {
  return sequence(der(0x31, sequence(oid('550403'), der(0x0c, Buffer.from(common)))))
}

function time(date: Date): Buffer {
  return der(0x18, Buffer.from(`${date.toISOString().replace(/\D/g, '').slice(0, 14)}Z`))
}

function pem(bytes: Buffer): string {
  return `-----BEGIN CERTIFICATE-----\n${(bytes.toString('base64').match(/.{1,64}/g) as string[]).join('\n')}\n-----END CERTIFICATE-----\n`
}

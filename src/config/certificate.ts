import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'

/** Where the files of the gateway's own certificate are; see `server.tls`. */
export interface CertificateFiles {
  readonly cert: string
  readonly key: string
  readonly client_ca?: string | undefined
}

/** Something about a certificate that stops the gateway, or will one day. */
export interface CertificateTrouble {
  /** The setting that names the file. */
  readonly key: keyof CertificateFiles
  readonly message: string
  readonly severity: 'error' | 'warning'
}

const DAY_MS = 86_400_000
/** So long before a certificate ends somebody should hear of it. */
const NOTICE_MS = 21 * DAY_MS

/** The certificates of a PEM file, the first one first. @throws for a file that cannot be read or holds none */
function readCertificates(file: string): X509Certificate[] {
  const blocks = readFileSync(file, 'utf8').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g)
  if (blocks === null) throw new Error('holds no certificate in PEM')
  return blocks.map(block => new X509Certificate(block))
}

/** When the first certificate of `file` that ends does so, in milliseconds since 1970. @throws as {@link readCertificates} */
export function expiryOf(file: string): number {
  return Math.min(...readCertificates(file).map(({ validTo }) => Date.parse(validTo)))
}

/** What is wrong with the files, or soon will be (SEC-10). @param now milliseconds since 1970 */
export function certificateTrouble(files: CertificateFiles, now: number): CertificateTrouble[] {
  const trouble: CertificateTrouble[] = []
  const attempt = <T>(key: keyof CertificateFiles, read: () => T): T | undefined => {
    try {
      return read()
    } catch (error) {
      trouble.push({ key, message: `"${files[key]}" ${inWords(error)}`, severity: 'error' })
      return undefined
    }
  }
  const chain = attempt('cert', () => readCertificates(files.cert))
  const key = attempt('key', () => createPrivateKey(readFileSync(files.key)))
  if (chain !== undefined) trouble.push(...chainTrouble(chain, key, now))
  const { client_ca: clientCa } = files
  const authorities = clientCa === undefined ? undefined : attempt('client_ca', () => readCertificates(clientCa))
  for (const authority of authorities ?? []) {
    const message = timeTrouble(authority, now)
    if (message !== undefined) trouble.push({ key: 'client_ca', message, severity: 'warning' })
  }
  return trouble
}

function chainTrouble(
  chain: readonly X509Certificate[],
  key: KeyObject | undefined,
  now: number
): CertificateTrouble[] {
  const trouble: CertificateTrouble[] = []
  const [leaf] = chain
  if (key !== undefined && leaf !== undefined && !leaf.checkPrivateKey(key))
    trouble.push({ key: 'key', message: 'is not the key of the certificate', severity: 'error' })
  for (const certificate of chain) {
    const message = timeTrouble(certificate, now)
    if (message !== undefined) trouble.push({ key: 'cert', message, severity: 'warning' })
  }
  const broken = chain.findIndex((certificate, i) => {
    const next = chain[i + 1]
    return next !== undefined && !certificate.checkIssued(next)
  })
  if (broken !== -1) {
    const message = `${nameOf(chain[broken])} is not issued by the certificate that follows it; put each before its issuer`
    trouble.push({ key: 'cert', message, severity: 'warning' })
  }
  return trouble
}

function timeTrouble(certificate: X509Certificate, now: number): string | undefined {
  const from = Date.parse(certificate.validFrom)
  const to = Date.parse(certificate.validTo)
  if (to <= now) return `${nameOf(certificate)} has expired on ${day(to)}`
  if (from > now) return `${nameOf(certificate)} is not valid before ${day(from)}`
  if (to - now < NOTICE_MS) return `${nameOf(certificate)} expires in ${Math.floor((to - now) / DAY_MS)} days`
  return undefined
}

function nameOf(certificate: X509Certificate | undefined): string {
  return `the certificate of ${/CN=([^\n]+)/.exec(certificate?.subject ?? '')?.[1] ?? certificate?.subjectAltName ?? 'nobody'}`
}

function day(time: number): string {
  return new Date(time).toISOString().slice(0, 10)
}

function inWords(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'ENOENT') return 'is not there'
  if (code === 'EACCES') return 'may not be read'
  if (code?.startsWith('ERR_OSSL') || code === 'ERR_INVALID_ARG_VALUE') return 'is no PEM that can be used'
  return message
}

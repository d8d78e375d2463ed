import { writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t, { type Test } from 'tap'
import { type Certificate, makeCertificate, writeCertificate } from '../../support/certificates.ts'
import { load, problemsOf } from '../../support/config.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { startGateway } from '../../support/gateway.ts'

const DAY = 86_400_000
const inDays = (days: number) => new Date(Date.now() + days * DAY + 60_000)
const authority = makeCertificate({ name: 'an authority', authority: true })
const leaf = (from: Date, to: Date) => makeCertificate({ name: 'gw.example.com', issuer: authority, from, to })
const good = leaf(inDays(-1), inDays(90))

/** The configuration of a gateway with such a certificate; the place of the value to blame is line 4. */
function withCertificate(t: Test, certificate: Certificate, key: 'cert' | 'key' = 'cert'): Record<string, string> {
  const files = writeCertificate(temporaryFolder(t), 'door', certificate)
  const [first, second] = key === 'cert' ? (['key', 'cert'] as const) : (['cert', 'key'] as const)
  return {
    'gateway.yaml': `server:\n  tls:\n    ${first}: ${files[first]}\n    ${second}: ${files[second]}\n`
  }
}

t.test('SEC-10 a certificate that is good is passed over in silence', async t => {
  t.same((await load(t, withCertificate(t, { ...good, cert: good.cert + authority.cert }))).snapshot.warnings, [])
})

for (const [what, certificate, message] of [
  [
    'has expired',
    leaf(inDays(-90), inDays(-2)),
    /^the certificate of gw\.example\.com has expired on \d{4}-\d\d-\d\d$/
  ],
  ['is not valid yet', leaf(inDays(3), inDays(90)), /gw\.example\.com is not valid before \d{4}-\d\d-\d\d/],
  ['expires soon', leaf(inDays(-1), inDays(20)), /gw\.example\.com expires in 20 days/],
  [
    'has a chain in the wrong order',
    { ...good, cert: good.cert + makeCertificate({ name: 'a stranger', authority: true }).cert },
    /gw\.example\.com is not issued by the certificate that follows it/
  ],
  [
    'has an authority in its chain that has expired',
    (() => {
      const old = makeCertificate({ name: 'an old one', authority: true, from: inDays(-90), to: inDays(-1) })
      const signed = makeCertificate({ name: 'gw', issuer: old, to: inDays(90) })
      return { ...signed, cert: signed.cert + old.cert }
    })(),
    /the certificate of an old one has expired/
  ]
] as const) {
  t.test(`SEC-10 check warns, at its line, of a certificate that ${what}`, async t => {
    const { warnings } = (await load(t, withCertificate(t, certificate))).snapshot
    t.match(warnings, [{ key: 'server.tls.cert', line: 4, message, severity: 'warning' }])
    t.equal(warnings.length, 1)
  })
}

t.test('SEC-10 a certificate that cannot be used is an error', async t => {
  const stranger = makeCertificate({ name: 'a stranger' })
  const bad = join(temporaryFolder(t), 'bad.pem')
  writeFileSync(bad, 'no PEM')
  for (const [files, key, message] of [
    [withCertificate(t, { cert: good.cert, key: stranger.key }, 'key'), 'key', /is not the key of the certificate/],
    [withCertificate(t, { cert: 'nothing', key: good.key }), 'cert', /door\.crt" holds no certificate in PEM/],
    [withCertificate(t, { cert: good.cert, key: 'nothing' }, 'key'), 'key', /door\.key" is no PEM that can be used/],
    [{ 'gateway.yaml': 'server:\n  tls:\n    key: /nowhere\n    cert: /nowhere' }, 'cert', /"\/nowhere" is not there/]
  ] as const) {
    const problems = await problemsOf(t, files)
    t.match(
      problems.find(problem => problem.key === `server.tls.${key}`),
      { file: 'gateway.yaml', line: 4, message, severity: 'error' }
    )
  }
})

t.test(
  'SEC-10 CFG-07 files are named from the file that names them, those of a variable from the working folder',
  async t => {
    const pem = good.key
    const named = (
      cert: string
    ): string => `server: { tls: { cert: "${cert}", key: certs/door.key, client_ca: certs/door.crt } }
services: { s: { url: "https://s", tls: { ca: ../ca.crt } } }
identity: { jwt: { algorithm: ES256, secret: certs/door.key } }
`
    const files = (cert: string) => ({
      'gateway.yaml': 'include: conf/tls.yaml',
      'ca.crt': authority.cert,
      conf: { 'tls.yaml': named(cert), certs: { 'door.crt': good.cert, 'door.key': pem } }
    })
    const { snapshot, seen } = await load(t, files('certs/door.crt'))
    const { tls } = snapshot.server
    t.match(tls?.cert, /conf\/certs\/door\.crt$/)
    t.match(tls?.key, /conf\/certs\/door\.key$/)
    t.equal(tls?.client_ca, tls?.cert)
    t.equal(snapshot.services.get('s')?.tls?.ca, authority.cert)
    t.equal(snapshot.identity.jwt.secret, pem)
    t.ok(seen.has(tls?.cert as string), 'and watched there')
    // biome-ignore lint/suspicious/noTemplateCurlyInString: a placeholder of the configuration.
    const [problem] = await problemsOf(t, files('${CERT}'), { env: { CERT: 'certs/door.crt' } })
    t.match(problem, { key: 'server.tls.cert', message: `"${resolve('certs/door.crt')}" is not there` })
  }
)

t.test('SEC-10 gateway_tls_certificate_expiry_seconds is when the first of the chain ends', async t => {
  const short = makeCertificate({ name: 'a middle', authority: true, to: inDays(30) })
  const signed = makeCertificate({ name: 'gw', issuer: short, to: inDays(90) })
  const files = writeCertificate(temporaryFolder(t), 'door', { ...signed, cert: signed.cert + short.cert })
  const { gateway } = await startGateway(t, { server: { tls: files } })
  const families = gateway.runtime.metrics.families()
  const expiry = families.find(({ name }) => name === 'gateway_tls_certificate_expiry_seconds')
  const [sample] = (await expiry!.get()).values
  t.ok(Math.abs((sample?.value as number) - inDays(30).getTime() / 1000) < 5)
})

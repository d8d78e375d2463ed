import t from 'tap'
import { base32, hotp, matchStep, otpauthUri, stepOf } from '../../../src/identity/totp.ts'

t.test('IDN-10 codes are those of RFC 4226 appendix D', async t => {
  const secret = Buffer.from('12345678901234567890')
  const codes = ['755224', '287082', '359152', '969429', '338314', '254676', '287922', '162583', '399871', '520489']
  for (const [counter, code] of codes.entries()) t.equal(hotp(secret, counter), code)
})

t.test('IDN-10 codes are those of RFC 6238 appendix B', async t => {
  const secrets = { sha1: 20, sha256: 32, sha512: 64 }
  const rows: [seconds: number, sha1: string, sha256: string, sha512: string][] = [
    [59, '94287082', '46119246', '90693936'],
    [1111111109, '07081804', '68084774', '25091201'],
    [1111111111, '14050471', '67062674', '99943326'],
    [1234567890, '89005924', '91819424', '93441116'],
    [2000000000, '69279037', '90698825', '38618901'],
    [20000000000, '65353130', '77737706', '47863826']
  ]
  for (const [seconds, ...codes] of rows)
    for (const [i, [algorithm, length]] of Object.entries(secrets).entries()) {
      const secret = Buffer.from('1234567890'.repeat(7).slice(0, length))
      const options = { digits: 8, algorithm: algorithm as 'sha1' }
      t.equal(hotp(secret, stepOf(seconds * 1000), options), codes[i], `${algorithm} at ${seconds}`)
    }
})

t.test('IDN-10 a code is good for its own step, the one before and the one after', async t => {
  const secret = Buffer.from('12345678901234567890')
  const now = 1_700_000_000_000
  const step = stepOf(now)
  for (const [off, found] of [
    [-2, undefined],
    [-1, step - 1],
    [0, step],
    [1, step + 1],
    [2, undefined]
  ] as const)
    t.equal(matchStep(secret, hotp(secret, step + off), now), found)
  for (const code of ['', '12345', '1234567', 'abcdef', '１２３４５６'])
    t.equal(matchStep(secret, code, now), undefined, code)
})

t.test('IDN-10 what an authenticator scans', async t => {
  t.equal(base32(Buffer.from('foobar')), 'MZXW6YTBOI', 'RFC 4648 section 10')
  t.equal(base32(Buffer.from('foob')), 'MZXW6YQ')
  t.equal(
    otpauthUri(Buffer.from('foobar'), 'my gateway', 'alice'),
    'otpauth://totp/my%20gateway:alice?secret=MZXW6YTBOI&issuer=my%20gateway&algorithm=SHA1&digits=6&period=30'
  )
})

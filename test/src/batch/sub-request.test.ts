import t from 'tap'
import { answersAsJson, bodyOf, fieldsOf, idsOf, type SubRequest, statusOf } from '../../../src/batch/sub-request.ts'

const sub = (parts: Partial<SubRequest> = {}): SubRequest => ({ method: 'GET', path: '/', headers: {}, ...parts })
const fields = (parts: Partial<SubRequest>, batch: readonly string[] = [], proxyField?: string) =>
  Object.fromEntries(fieldsOf(sub(parts), batch, '[0]', proxyField))

t.test(
  'TRC-03 fields of a sub-request are its own, the way’s, and the batch’s as long as it says nothing else',
  async t => {
    const batch = [
      'Host',
      'a.example',
      'Authorization',
      'Bearer x',
      'Content-Type',
      'application/json',
      'Accept',
      '*/*'
    ]
    const cases: [parts: Partial<SubRequest>, batch: string[], wanted: object][] = [
      [{}, batch, { host: 'a.example', authorization: 'Bearer x' }],
      [{ headers: { 'X-API-Key': 'k' } }, batch, { host: 'a.example', 'x-api-key': 'k' }],
      [{ headers: { HOST: 'b.example' } }, batch, { host: 'b.example', authorization: 'Bearer x' }],
      [{ body: { a: 1 } }, [], { 'content-type': 'application/json' }],
      [{ body: 'text' }, [], {}],
      [{ body: {}, headers: { 'content-type': 'application/x' } }, [], { 'content-type': 'application/x' }],
      [
        {},
        [':authority', 'a', 'x-forwarded-for', '1.1.1.1', 'x-forwarded-for', '2.2.2.2'],
        { host: 'a', 'x-forwarded-for': '1.1.1.1, 2.2.2.2' }
      ],
      [{ headers: { traceparent: 'mine' } }, ['traceparent', 'its', 'b3', '0'], { traceparent: 'mine', b3: '0' }],
      [{}, ['cookie', 'a=1', 'x-request-id', 'r', 'connection', 'close', 'content-length', '9'], {}]
    ]
    for (const [parts, from, wanted] of cases) t.strictSame(fields(parts, from), wanted)
    t.strictSame(fields({}, ['CF-IPCountry', 'CH'], 'cf-ipcountry'), { 'cf-ipcountry': 'CH' })
  }
)

t.test('TRC-03 what a proxy in front says, nobody inside a batch says', async t => {
  const names = ['x-forwarded-for', 'X-Forwarded-Proto', 'forwarded', 'via', 'x-client-id', 'origin', 'x-request-id']
  for (const name of [...names, 'x-user-roles', 'x_user_id', 'te', 'expect', 'Transfer_Encoding', ':path', ''])
    t.throws(() => fields({ headers: { [name]: '1' } }), { code: 'validation_error' }, name)
  t.throws(() => fields({ headers: { 'CF-IPCountry': 'CH' } }, [], 'cf-ipcountry'), { code: 'validation_error' })
})

t.test('TRC-03 ids are given, or places; none is there twice', async t => {
  t.strictSame(idsOf([sub(), sub({ id: 'x' }), sub()]), ['0', 'x', '2'])
  t.throws(() => idsOf([sub(), sub({ id: '0' })]), { code: 'validation_error' })
})

t.test('TRC-03 bodies go and come as they are', async t => {
  t.equal(bodyOf(sub()), undefined)
  t.equal(bodyOf(sub({ body: '' })), '')
  t.equal(bodyOf(sub({ body: [1, null] })), '[1,null]')
  const answer = (body: string | Buffer, headers: Record<string, string> = {}) =>
    answersAsJson([{ id: 'a', status: 200, headers: { connection: 'close', ...headers }, body: Buffer.from(body) }])
  const json = { 'content-type': 'application/vnd.x+json; charset=utf-8' }
  t.equal(answer('{"n": 1.10}', json), `[{"id":"a","status":200,"headers":${JSON.stringify(json)},"body":{"n": 1.10}}]`)
  t.match(answer('{"n": ', json), '"body":"{\\"n\\": "', 'what says that it is JSON and is not')
  t.match(answer('', json), /"headers":\{[^}]*\}\}\]$/)
  t.match(answer(Buffer.from([0xc3])), '"body":"ww==","body_encoding":"base64"')
  t.match(answer('text', { 'content-encoding': 'gzip' }), '"body_encoding":"base64"')
})

t.test('TRC-03 an error among the answers shows in the status of all', async t => {
  const of = (...statuses: number[]) =>
    statusOf(statuses.map(status => ({ id: '', status, headers: {}, body: Buffer.alloc(0) })))
  t.equal(of(200, 204, 304), 200)
  t.equal(of(200, 404), 207)
  t.equal(of(502), 207)
})
